"""Trials drawn a batch at a time and trained as one network, against `eg.train` of the same experiments."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import evengrad as eg
from evengrad.errors import ForwardError, InputError, UnknownNameError
from evengrad.lab.data import load
from evengrad.lab.engine.losses import LOSSES
from evengrad.lab.engine.runs import Runs
from evengrad.lab.models.hashing import set_step
from evengrad.lab.search import Halving, Health, SearchResult, search
from evengrad.lab.search.arms import Arms

SPACE = {"lr": (0.01, 1.0, "log"), "initialiser": ["as built", "auto", "orthogonal"], "clip_norm": [None, 0.5]}
FREE: dict[str, Any] = {"health": None, "halving": None, "storage": "memory"}


def circles(count: int = 160) -> tuple[torch.Tensor, torch.Tensor]:
    split = load("two_circles")
    return split.x_train[:count], split.y_train[:count]


def chain() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))


class Functional(nn.Module):
    """Activations that are no modules, a norm and a branch: what users write."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.enter, self.hidden, self.leave = nn.Linear(2, width), nn.Linear(width, width), nn.Linear(width, 2)
        self.norm = nn.BatchNorm1d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = F.relu(self.norm(self.enter(x)))
        out: torch.Tensor = self.leave(h + F.relu(self.hidden(h)))
        return out


def experiment(model: Callable[[], nn.Module] = chain, **changes: Any) -> eg.Experiment:
    x, y = circles()
    parts: dict[str, Any] = {
        "data": (x, y.long()),
        "loss_fn": nn.CrossEntropyLoss(),
        "optimizer": lambda m: torch.optim.SGD(m.parameters(), 0.1, momentum=0.9),
        "metric": "loss",
        "maximize": False,
        "epochs": 3,
        "batch_size": 32,
    } | changes
    return eg.Experiment(model, parts.pop("data"), parts.pop("loss_fn"), parts.pop("optimizer"), **parts)


def assert_as_trained_alone(result: SearchResult) -> None:
    """Products of one matrix and of many round differently: 1e-7 at a time, which these short trainings multiply by hundreds at most."""
    arms = Arms(result.original, result.seed)
    for one in result.trials:
        expected = eg.train(arms.apply(one.numbers), seed=result.seed)
        assert one.metric == pytest.approx(expected.metric, rel=1e-4, nan_ok=True), one
        assert one.steps == len(expected.losses)


@pytest.mark.parametrize(
    ("optimizer", "space"),
    [
        (lambda m: torch.optim.SGD(m.parameters(), 0.1), {"lr": (0.01, 1.0, "log"), "momentum": [0.0, 0.9], "clip_norm": [0.01, 0.03]}),
        (
            lambda m: torch.optim.Adam(m.parameters(), 0.01),
            {"lr": (1e-3, 0.1, "log"), "beta1": (0.5, 0.9), "weight_decay": (0, 0.1, "log")},
        ),
        (lambda m: torch.optim.AdamW(m.parameters(), 0.01), {"weight_decay": (0.0, 0.3), "beta2": (0.9, 0.99), "init_scale": (0.5, 2.0)}),
        (
            lambda m: torch.optim.RMSprop(m.parameters(), 0.01),
            {"alpha": (0.8, 0.99), "clip_value": [1e-3, 1e-2], "lr": (1e-3, 0.03, "log")},
        ),
    ],
)
def test_a_trial_among_others_is_what_training_it_alone_gives(optimizer: Any, space: dict[str, Any]) -> None:
    result = search(experiment(optimizer=optimizer), space, 6, batch=6, **FREE)
    assert result.notes == ()
    assert result.ends == {"complete": 6}
    assert_as_trained_alone(result)


def half(out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (0.5 * (out[:, 0] - y).abs()).mean()


@pytest.mark.parametrize(
    "changes",
    [
        {"loss_fn": nn.CrossEntropyLoss(label_smoothing=0.2)},
        {"loss_fn": nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3.0]))},
        {"loss_fn": half},
        {"metric": lambda m: float(m(circles()[0]).detach().square().mean()), "maximize": True},
        {"metric": "accuracy", "maximize": True, "validation": (circles(100)[0], circles(100)[1].long())},
        {"data": lambda: torch.utils.data.DataLoader(torch.utils.data.TensorDataset(circles()[0], circles()[1].long()), 40, shuffle=True)},
    ],
)
def test_losses_metrics_and_data_of_the_users_own_count_as_alone(changes: dict[str, Any]) -> None:
    result = search(experiment(**changes), SPACE, 5, batch=5, **FREE)
    assert result.notes == ()
    assert_as_trained_alone(result)


def test_a_users_module_with_functional_activations_trains_together() -> None:
    result = search(experiment(Functional), SPACE | {"width": [6, 8]}, 8, batch=8, **FREE)
    assert result.notes == ()
    assert {t.numbers["width"] for t in result.trials} == {6, 8}  # two shapes: two networks
    assert_as_trained_alone(result)


def test_modules_that_differ_in_what_no_parameter_shows_are_kept_apart() -> None:
    class Own(nn.Module):
        def __init__(self, phi: Callable[[torch.Tensor], torch.Tensor]) -> None:
            super().__init__()
            self.enter, self.leave, self.phi = nn.Linear(2, 8), nn.Linear(8, 2), phi

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.leave(self.phi(self.enter(x)))
            return out

    phis = {"tanh": torch.tanh, "sin": torch.sin}

    def model(phi: str = "tanh") -> nn.Module:
        return Own(phis[phi])

    result = search(experiment(model), {"lr": (0.1, 1.0, "log"), "phi": ["tanh", "sin"]}, 6, batch=6, **FREE)
    assert result.notes == ()
    assert_as_trained_alone(result)


def step(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> torch.Tensor:
    optimizer.zero_grad()
    loss: torch.Tensor = loss_fn(model(batch[0]), batch[1])
    loss.backward()
    optimizer.step()
    return loss


class Branching(nn.Module):
    """Goes another way for other values, which no mapped network can."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h: torch.Tensor = self.layer(x)
        return h if h.sum() > 0 else -h


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"train_step": step}, "has a train_step of its own"),
        ({"scheduler": lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9)}, "has a scheduler of its own"),
        ({"optimizer": lambda m: torch.optim.NAdam(m.parameters(), 0.01)}, "trains with NAdam; together can be SGD"),
        ({"optimizer": lambda m: torch.optim.SGD(m.parameters(), 0.1, maximize=True)}, "trains with SGD(maximize=True)"),
        ({"optimizer": lambda m: torch.optim.SGD(m[0].parameters(), 0.1)}, "parameters without an optimizer"),
        ({"model": Branching}, "cannot be run as several networks at once"),
    ],
)
def test_what_cannot_train_together_trains_alone_and_says_why(changes: dict[str, Any], why: str) -> None:
    result = search(experiment(**changes), {"lr": (0.001, 0.05, "log")}, 3, batch=3, **FREE)
    assert len(result.notes) == 1
    assert f"3 of 3 trials were trained one at a time, since the experiment {why}" in result.notes[0] or why in result.notes[0]
    arms = Arms(result.original)
    assert [t.metric for t in result.trials] == [eg.train(arms.apply(t.numbers)).metric for t in result.trials]


def test_policies_stop_what_trains_alone_as_well() -> None:
    def deep() -> nn.Module:
        return nn.Sequential(*[m for i in range(12) for m in (nn.Linear(2 if i == 0 else 8, 8), nn.Tanh())], nn.Linear(8, 2))

    held = experiment(deep, train_step=step, epochs=8, batch_size=16)  # the second look is before the first rung
    space = {"initialiser": ["orthogonal"], "init_scale": [1.0, 0.02], "lr": (0.001, 0.3, "log")}
    result = search(held, space, 12, storage="memory", sampler="random", halving=Halving(least=4))
    assert {t.how for t in result.trials if t.numbers["init_scale"] == 0.02} == {"health"}
    assert "loss" in result.ends
    assert all(t.steps < t.planned for t in result.trials if t.how in {"loss", "health"})


def test_the_best_experiment_trains_to_the_value_that_was_told() -> None:
    result = eg.search(experiment(metric="auto", maximize=True), trials=12, batch=6, storage="memory")
    assert result.best is not None
    assert result.best.metric == max(t.metric for t in result.trials if t.how == "complete")
    assert eg.train(result.experiment, seed=result.seed).metric == pytest.approx(
        result.best.metric, abs=2 / 160
    )  # two samples on the fence
    assert eg.check(eg.build(result.experiment).model, circles()[0]).checked


def test_a_smaller_metric_is_better_where_the_experiment_says_so() -> None:
    result = search(experiment(), SPACE, 8, batch=8, **FREE)
    assert result.best is not None
    assert result.best.metric == min(t.metric for t in result.trials)
    assert [t.metric for t in result.ranked] == sorted(t.metric for t in result.trials)


def test_the_experiments_own_numbers_are_tried_and_never_stopped() -> None:
    own = experiment(optimizer=lambda m: torch.optim.SGD(m.parameters(), 1.2345678e-5, momentum=0.9), epochs=8)
    result = search(own, {"lr": (1e-5, 0.5, "log")}, 16, storage="memory")
    assert result.as_it_is is not None
    assert result.as_it_is.numbers == {"lr": 1.2345678e-5}
    assert result.as_it_is.how == "complete"
    assert result.as_it_is.metric == pytest.approx(eg.train(own).metric, rel=1e-5)
    assert "loss" in result.ends


def test_stopping_some_runs_does_not_disturb_the_others() -> None:
    changes = {"epochs": 8, "optimizer": lambda m: torch.optim.Adam(m.parameters(), 0.01)}
    every = search(experiment(**changes), SPACE, 12, batch=12, sampler="random", **FREE)
    some = search(experiment(**changes), SPACE, 12, batch=12, sampler="random", health=None, storage="memory")
    assert "loss" in some.ends
    expected = {str(t.numbers): t.metric for t in every.trials}
    for one in some.ranked:
        assert one.metric == pytest.approx(expected[str(one.numbers)], rel=1e-3)


def test_a_training_that_diverges_is_the_worst_and_no_error() -> None:
    result = search(experiment(Functional, epochs=6), {"lr": [0.1, 1e38]}, 8, batch=4, **FREE)
    assert {t.how for t in result.trials if t.numbers["lr"] == 1e38} == {"diverged"}
    assert result.best is not None
    assert result.best.numbers["lr"] == 0.1
    assert all(math.isnan(t.metric) and "not finite at step" in t.reason for t in result.trials if t.how == "diverged")


def test_a_search_in_which_nothing_comes_to_its_end_has_no_best() -> None:
    result = search(experiment(Functional), {"lr": [1e37, 1e38]}, 4, **FREE)
    assert result.best is None
    assert result.experiment is result.original
    assert result.patch == ""
    assert result.importance() == {}
    assert dict(result.figures) == {}


def test_numbers_for_which_the_users_code_raises_are_failed_trials() -> None:
    def picky(width: int = 8) -> nn.Module:
        if width == 7:
            raise ValueError("seven does not divide")
        return nn.Sequential(nn.Linear(2, width), nn.Linear(width, 2))

    result = search(experiment(picky), {"width": [7, 8]}, 8, batch=8, **FREE)
    assert {t.how for t in result.trials if t.numbers["width"] == 7} == {"failed"}
    assert {t.how for t in result.trials if t.numbers["width"] == 8} == {"complete"}
    assert "seven does not divide" in next(t.reason for t in result.trials if t.how == "failed")
    with pytest.raises(ForwardError, match="seven does not divide"):
        search(experiment(picky), {"width": [7]}, 8, batch=4, **FREE)


def test_dropout_trains_together_and_says_that_its_masks_differ() -> None:
    def net(p: float = 0.2) -> nn.Module:
        return nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Dropout(p), nn.Linear(16, 2))

    result = search(experiment(net, epochs=20), {"p": (0.0, 0.9), "lr": [0.1]}, 6, batch=6, **FREE)
    assert result.notes == ("trials that were trained together had dropout masks of their own: eg.train draws others",)
    metrics = {t.numbers["p"]: t.metric for t in result.trials}
    assert len(set(metrics.values())) == 6


def test_wrong_arguments_say_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'tpe'"):
        search(experiment(), SPACE, 4, sampler="tpo", storage="memory")
    with pytest.raises(InputError, match="at least one trial"):
        search(experiment(), SPACE, 0)
    with pytest.raises(InputError, match="is a folder; expected a file"):
        search(experiment(), SPACE, 4, storage=tmp_path)
    with pytest.raises(InputError, match=r"kept in \(0, 1\]"):
        Halving(kept=0)
    with pytest.raises(InputError, match="ascending steps"):
        Health(steps=(5, 0))


def test_without_optuna_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evengrad.lab.search.run.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'evengrad\[search\]'"):
        search(experiment(), SPACE, 4)


def test_importance_and_pictures_show_what_mattered(tmp_path: Path) -> None:
    result = search(experiment(epochs=6), {"lr": (1e-4, 0.5, "log"), "weight_decay": (0, 1e-3, "log")}, 24, sampler="random", **FREE)
    shares = result.importance()
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["lr"] > 0.8
    assert list(result.figures) == ["What matters", "The metric over each number"]
    page = result.to_html(tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("<img") == 2
    assert "What to change" in page


def test_importance_needs_no_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    result = search(experiment(epochs=6), {"lr": (1e-4, 0.5, "log"), "weight_decay": (0, 1e-3, "log")}, 24, sampler="random", **FREE)
    monkeypatch.setattr("evengrad.lab.search.importance.find_spec", lambda name: None)
    assert max(result.importance().items(), key=lambda item: item[1])[0] == "lr"


def numbers(result: SearchResult) -> list[dict[str, Any]]:
    return [dict(t.numbers) for t in result.trials]


def test_a_search_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole = search(experiment(), SPACE, 12, batch=4, storage=tmp_path / "whole.journal")
    first = search(experiment(), SPACE, 4, batch=4, storage=tmp_path / "parts.journal")
    then = search(experiment(), SPACE, 12, batch=4, storage=tmp_path / "parts.journal")
    assert len(first.trials) == 4
    assert numbers(then) == numbers(whole)
    assert [t.metric for t in then.trials] == pytest.approx([t.metric for t in whole.trials], nan_ok=True)


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_every_batch_draws_other_trials(sampler: str) -> None:
    result = search(experiment(), {"lr": (0.01, 1.0, "log")}, 12, batch=3, sampler=sampler, **FREE)
    assert len({t.numbers["lr"] for t in result.trials}) > 9
    other = search(experiment(), {"lr": (0.01, 1.0, "log")}, 12, batch=3, sampler=sampler, seed=1, **FREE)
    assert numbers(other)[1:] != numbers(result)[1:]


def test_all_trials_are_there_already_so_nothing_is_trained(tmp_path: Path) -> None:
    told: list[int] = []
    kept = tmp_path / "a.journal"
    search(experiment(), SPACE, 4, storage=kept)
    again = search(experiment(), SPACE, 4, storage=kept, progress=lambda now: told.append(now.done))
    assert told == []
    assert len(again.trials) == 4
    afresh = search(experiment(), SPACE, 4, storage=kept, resume=False, progress=lambda now: told.append(now.done))
    assert told == [1, 2, 3, 4]
    assert numbers(afresh) == numbers(again)


def test_another_experiment_or_space_begins_anew(tmp_path: Path) -> None:
    kept = tmp_path / "a.journal"
    search(experiment(), SPACE, 4, storage=kept)
    for changed, space in ((experiment(epochs=2), SPACE), (experiment(), {"lr": (0.01, 1.0, "log")}), (experiment(Functional), SPACE)):
        assert len(search(changed, space, 3, batch=3, storage=kept).trials) == 3


def test_trials_that_ended_are_kept_when_it_is_interrupted(tmp_path: Path) -> None:
    def interrupt(now: Any) -> None:
        if now.done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(experiment(train_step=step), {"lr": (0.01, 1.0, "log")}, 8, batch=8, storage=tmp_path / "a.journal", progress=interrupt)
    then = search(experiment(train_step=step), {"lr": (0.01, 1.0, "log")}, 8, batch=8, storage=tmp_path / "a.journal")
    assert len(then.trials) == 8
    assert "failed" not in then.ends


def test_a_journal_lies_in_the_store_unless_another_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENGRAD_STORE", str(tmp_path / "store"))
    result = search(experiment(), SPACE, 2, name="a.py:b")
    (found,) = (tmp_path / "store" / "searches").glob("*.journal")
    assert result.storage == str(found)
    assert found.name.startswith("a-py-b-")
    search(experiment(), SPACE, 2, storage="memory")
    assert len(list((tmp_path / "store" / "searches").iterdir())) == 1


def test_a_database_is_a_storage_too(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.sqlite'}"
    assert len(search(experiment(), SPACE, 2, storage=url).trials) == 2
    assert len(search(experiment(), SPACE, 4, storage=url).trials) == 4


def test_a_line_half_written_is_cut_off_and_other_damage_is_an_error(tmp_path: Path) -> None:
    kept = tmp_path / "a.journal"
    search(experiment(), SPACE, 3, storage=kept)
    whole = kept.read_bytes()
    kept.write_bytes(whole[: whole.rstrip(b"\n").rfind(b"\n") + 20])
    assert len(search(experiment(), SPACE, 4, storage=kept).trials) == 4
    kept.write_bytes(b"no journal\n" * 3)
    with pytest.raises(InputError, match=r"a\.journal' cannot be used"):
        search(experiment(), SPACE, 4, storage=kept)


@pytest.mark.slow
def test_a_search_that_was_killed_goes_on(tmp_path: Path) -> None:
    code = """
        import sys, torch
        from torch import nn
        import evengrad as eg

        draw = torch.Generator().manual_seed(0)
        x = torch.randn(64, 2, generator=draw)
        held = eg.Experiment(
            lambda: nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1)), (x, x[:, :1] * x[:, 1:]), nn.MSELoss(),
            lambda m: torch.optim.SGD(m.parameters(), 0.1), epochs=100, batch_size=16,
        )
        result = eg.search(held, {"lr": (0.01, 1.0, "log")}, int(sys.argv[2]), batch=4, storage=sys.argv[1])
        print(len(result.trials), result.ends.get("failed", 0))
    """
    script, kept = tmp_path / "script.py", tmp_path / "a.journal"
    script.write_text(textwrap.dedent(code), encoding="utf-8")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(eg.__file__).parents[1])}
    process = subprocess.Popen([sys.executable, str(script), str(kept), "100000"], env=environment)
    try:
        deadline = time.monotonic() + 120
        while (kept.read_bytes().count(b"\n") if kept.exists() else 0) < 8:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    there = kept.read_bytes().count(b'"op_code":4')  # a trial is created: one line
    assert there >= 4
    done = subprocess.run(
        [sys.executable, str(script), str(kept), str(there + 4)], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split() == [str(there + 4), "0"]


def test_nothing_outside_is_changed() -> None:
    held = experiment(Functional)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    search(held, SPACE, 4, storage="memory")
    assert torch.equal(torch.get_rng_state(), before)
    assert np.random.get_state()[1].tolist() == numpy_before


@pytest.mark.parametrize(
    "model", [chain, Functional, lambda: nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 2))]
)
def test_runs_that_are_taken_out_have_their_own_weights_and_gradients(model: Callable[[], nn.Module]) -> None:
    x, y = circles(32)
    models = [model() for _ in range(4)]
    for net in models:
        net(x)  # norms have something to remember
    runs, loss = Runs(models), LOSSES["cross_entropy"]
    set_step(runs.module, torch.arange(4), 3)
    some = runs.take([2, 0])
    outputs = runs.gradients(x.expand(4, -1, -1), y.long().expand(4, -1), loss)
    own = some.gradients(x.expand(2, -1, -1), y.long().expand(2, -1), loss)
    torch.testing.assert_close(own, outputs[[2, 0]])
    for name, p in some.module.named_parameters():
        torch.testing.assert_close(p.grad, runs.module.get_parameter(name).grad[[2, 0]])  # type: ignore[index]
    kept = runs.flat.clone()
    some.flat.zero_()
    assert torch.equal(runs.flat, kept)
    assert not any(bool(p.any()) for p in some.module.parameters())
    for name, buffer in runs.take([1]).network(0).named_buffers():
        assert torch.equal(buffer, runs.network(1).get_buffer(name))
