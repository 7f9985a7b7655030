"""A training is watched, judged and explained by experiment; nothing of the user's is changed."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import evengrad as eg
from evengrad.examine import check_rig, diagnose_run
from evengrad.judge import chosen_rules
from evengrad.rules.vanishing_gradient import VanishingGradient
from evengrad.training import Experiment, build, first_batch, train


def points(n: int = 64) -> tuple[Tensor, Tensor]:
    x = torch.randn(n, 6, generator=torch.Generator().manual_seed(0))
    return x, (x[:, 0] > 0).long()


def deep(activation: Callable[[], nn.Module], layers: int) -> nn.Module:
    sizes = [6, *[16] * layers]
    return nn.Sequential(*[m for a, b in itertools.pairwise(sizes) for m in (nn.Linear(a, b), activation())], nn.Linear(16, 2))


def experiment(model: Callable[[], nn.Module], **changes: Any) -> Experiment:
    given: dict[str, Any] = {
        "data": points(),
        "loss_fn": nn.CrossEntropyLoss(),
        "optimizer": lambda m: torch.optim.SGD(m.parameters(), 0.05),
    }
    return Experiment(model, **given | {"epochs": 2, "batch_size": 16} | changes)


@pytest.fixture(scope="module")
def report() -> eg.Report:
    return eg.diagnose(experiment(lambda: deep(nn.Sigmoid, 10)))


def test_names_the_cause_by_the_least_change_that_restores_the_signal(report: eg.Report) -> None:
    finding = next(f for f in report.findings if f.code == "VAN001")
    assert finding.cause == "bad_hidden_activation"
    mine = [i for i in report.interventions if i.code == "VAN001"]
    changes = [i.proposal.remedy for i in mine]
    assert changes.index("initialize") < changes.index("swap_activation") < changes.index("batch_norm")
    assert not any(i.restored for i in mine if i.proposal.remedy == "initialize")
    swap = next(i for i in mine if i.restored)
    assert swap.cause == finding.cause
    assert swap.before < 0.4
    assert swap.after > 0.7
    assert swap.findings == ()
    assert next(i for i in mine if not i.restored).findings == ("VAN001",)
    assert report.causes[0] == "bad_hidden_activation"
    assert report.proposals[0].remedy == "swap_activation"


def test_the_report_says_what_ran_and_shows_the_run(report: eg.Report) -> None:
    assert report.run.verb == "diagnose"
    assert report.verdict == ""
    assert report.trace is not None
    assert list(report.trace.steps) == [0, 1, 2, 3, 4, 5, 7]  # of two epochs of four batches: the first, then ever fewer, and the last
    assert len(report.trace.curves["loss"].values) == 8
    updates = report.trace.column("update_norm")
    assert np.isfinite(updates).all()
    assert "updates" not in report.skipped
    assert report.run.samples == 16


def test_a_check_of_the_same_network_finds_the_same_before_any_step(report: eg.Report) -> None:
    rig = build(experiment(lambda: deep(nn.Sigmoid, 10)))
    checked = check_rig(rig, first_batch(rig), chosen_rules())
    early = {f.code for f in report.findings if f.steps[0] == 0 and f.code in checked.checked}
    assert {f.code for f in checked.findings} == early
    assert {f.cause for f in checked.findings if f.code == "VAN001"} == {"bad_hidden_activation"}
    assert checked.skipped["updates"] == "no step was taken"


def test_a_healthy_network_has_no_findings_and_nothing_is_tried() -> None:
    report = eg.diagnose(experiment(lambda: deep(nn.Tanh, 2), epochs=25))
    assert report.findings == ()
    assert report.interventions == ()
    assert report.causes == ()


def test_the_training_that_is_watched_is_the_experiments_own_to_the_bit() -> None:
    given = experiment(lambda: nn.Sequential(deep(nn.Sigmoid, 4), nn.Dropout(0.2), nn.BatchNorm1d(2)))
    _, watched = diagnose_run(given, chosen_rules(), seed=3)
    plain = train(given, seed=3)
    assert watched.losses.tobytes() == plain.losses.tobytes()
    assert watched.metric == plain.metric
    for a, b in zip(watched.model.state_dict().values(), plain.model.state_dict().values(), strict=True):
        assert a.numpy().tobytes() == b.numpy().tobytes()


def test_interventions_run_on_a_copy() -> None:
    rig = build(experiment(lambda: deep(nn.Sigmoid, 10)))
    before = copy.deepcopy(rig.model.state_dict())
    modules = [id(m) for m in rig.model.modules()]
    report = check_rig(rig, first_batch(rig), chosen_rules())
    assert report.interventions
    assert [id(m) for m in rig.model.modules()] == modules
    assert all(a.numpy().tobytes() == b.numpy().tobytes() for a, b in zip(before.values(), rig.model.state_dict().values(), strict=True))
    assert all(p.grad is None for p in rig.model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in rig.model.modules())
    assert rig.optimizer is not None
    assert not rig.optimizer.state
    assert not rig.optimizer._optimizer_step_pre_hooks


def test_the_same_seed_gives_the_same_report() -> None:
    def seen(seed: int) -> list[tuple[str, float, float]]:
        report = eg.diagnose(experiment(lambda: deep(nn.Sigmoid, 6), epochs=1), seed=seed)
        return [(i.proposal.summary, i.before, i.after) for i in report.interventions]

    assert seen(1)
    assert seen(1) == seen(1)
    assert seen(1) != seen(2)


def test_a_model_that_cannot_be_copied_is_judged_without_causes() -> None:
    class Uncopyable(nn.Sequential):
        def __deepcopy__(self, memo: object) -> Uncopyable:
            raise TypeError("one of a kind")

    report = eg.diagnose(experiment(lambda: Uncopyable(*deep(nn.Sigmoid, 10).children())))
    assert "VAN001" in {f.code for f in report.findings}
    assert report.skipped["causes"] == "the model cannot be copied (one of a kind)"
    assert report.interventions == ()
    assert report.proposals


def test_own_thresholds_hold_during_interventions_too() -> None:
    given = experiment(lambda: deep(nn.Sigmoid, 10))
    tolerant, _ = diagnose_run(given, chosen_rules([VanishingGradient(max_lost_decades=50.0, error_decades=60.0)], select=["VAN001"]))
    assert tolerant.findings == ()
    picky, _ = diagnose_run(given, chosen_rules([VanishingGradient(max_lost_decades=1e-6, error_decades=1e-5)], select=["VAN001"]))
    assert [f.code for f in picky.findings] == ["VAN001"]


def test_a_fault_that_only_training_shows_is_replayed() -> None:
    x, _ = points()
    given = experiment(
        lambda: deep(nn.ReLU, 2),
        data=(x, x[:, :2].sin()),
        loss_fn=nn.MSELoss(),
        optimizer=lambda m: torch.optim.SGD(m.parameters(), 1e3),
        epochs=3,
    )
    report = eg.diagnose(given)
    finding = next(f for f in report.findings if f.code == "NUM001")
    assert finding.steps[0] > 0
    assert finding.cause == "lr_too_high"
    assert "lr_too_high" in report.causes
    lowered = [i for i in report.interventions if i.proposal.remedy == "lower_rate"]
    assert lowered[0].restored
    assert (lowered[0].before > 0, lowered[0].after) == (True, 0)


def test_a_budget_ends_the_training_and_the_report_comes_all_the_same() -> None:
    report = eg.diagnose(experiment(lambda: deep(nn.Sigmoid, 10), epochs=5000), max_seconds=0.3)
    assert report.trace is not None
    assert len(report.trace.curves["loss"].steps) < 5000  # not even one step an epoch
    assert "VAN001" in {f.code for f in report.findings}


def test_damaged_inputs_are_named_and_no_remedy_is_said_to_heal_them() -> None:
    x, y = points()
    x = x.clone()
    x[::7, 2] = float("nan")
    report = eg.diagnose(experiment(lambda: deep(nn.Tanh, 2), data=(x, y), epochs=1))
    finding = report.findings[0]
    assert (finding.code, finding.where) == ("NUM001", ("inputs",))
    assert not {"standardize_input", "lower_rate", "clip_norm", "clip_value"} & {p.remedy for p in report.proposals}
    assert not any(i.restored for i in report.interventions if i.code == "NUM001")


class Log(nn.Module):
    """The logarithm of what is above -3."""

    def forward(self, x: Tensor) -> Tensor:
        return (x + 3).log()


@pytest.mark.parametrize("place", ["inputs", "targets"])
def test_what_the_data_bring_later_is_no_fault_of_the_network(place: str) -> None:
    x, y = torch.randn(64, 6, generator=torch.Generator().manual_seed(0)), torch.zeros(64, 1)
    (x if place == "inputs" else y)[40, 0] = float("nan")
    order = [(x[i], y[i]) for i in torch.arange(64).split(16)]
    found = eg.diagnose(
        Experiment(lambda: nn.Linear(6, 1), lambda: iter(order), nn.MSELoss(), lambda m: torch.optim.SGD(m.parameters(), 0.01), epochs=1)
    )
    (finding,) = [f for f in found.findings if f.code == "NUM001"]
    assert (finding.cause, finding.where) == ("data_nan", (place,))
    assert found.causes == ("data_nan",)


def test_the_first_bad_operation_of_a_run_is_named_by_running_its_step_again() -> None:
    x, y = points()
    x = x.clamp(-2, 2)
    x[37, 2] = -3.0  # the logarithm of zero, in one sample of one batch
    planted = experiment(lambda: nn.Sequential(Log(), nn.Dropout(0.1), nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2)), data=(x, y), epochs=1)
    report, result = diagnose_run(planted, chosen_rules(), causes=False)
    assert report.trace is not None
    (event,) = report.trace.events
    assert (event.kind, event.step) == ("bad_operation", int(np.argmin(np.isfinite(result.losses))))
    assert "log in 0 made 1 of 96 values -inf" in event.message
    assert event.message in str(report).replace("\n", " ") or "log in 0" in str(report)


def test_a_step_that_spoils_the_weights_is_named_and_not_the_one_after_it() -> None:
    class Root(nn.Module):
        def forward(self, h: Tensor) -> Tensor:
            return (h - h).abs().sqrt() + h

    planted = experiment(lambda: nn.Sequential(nn.Linear(6, 8), Root(), nn.Linear(8, 2)), epochs=1)
    report, result = diagnose_run(planted, chosen_rules(), causes=False)
    assert np.isfinite(result.losses).tolist()[:2] == [True, False]
    assert report.trace is not None
    assert [(e.step, "sqrt" in e.message) for e in report.trace.events] == [(0, True)]


def test_a_run_that_stays_finite_is_not_run_again() -> None:
    report, _ = diagnose_run(experiment(lambda: deep(nn.Tanh, 2)), chosen_rules(), causes=False)
    assert report.trace is not None
    assert report.trace.events == ()


def test_two_faults_are_both_named_and_what_follows_stands_under_them() -> None:
    """A softmax before cross-entropy and gradients that nobody zeroes."""

    def step(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
        loss: Tensor = loss_fn(model(batch[0]), batch[1])
        loss.backward()
        optimizer.step()
        return loss

    found = eg.diagnose(experiment(lambda: nn.Sequential(deep(nn.Tanh, 2), nn.Softmax(1)), train_step=step, epochs=15))
    assert set(found.causes[:2]) == {"redundant_output_activation", "missing_zero_grad"}
    standing = {f.cause for f in found.findings if f.effect_of is None and f.severity != "note"}
    assert standing == {"redundant_output_activation", "missing_zero_grad"}


def test_rules_can_be_chosen() -> None:
    found = eg.diagnose(experiment(lambda: deep(nn.Sigmoid, 10)), select=["VAN", "ACT"], ignore=["VAN002"])
    assert {f.code for f in found.findings} == {"VAN001", "ACT003", "ACT004"}
    tolerant = [VanishingGradient(max_lost_decades=30.0)]
    assert eg.diagnose(experiment(lambda: deep(nn.Sigmoid, 10)), select=["VAN001"], rules=tolerant).findings == ()


def test_data_without_a_length_that_end_at_once_are_told_of_as_too_few_steps() -> None:
    x, y = points(64)
    found = eg.diagnose(experiment(lambda: deep(nn.Tanh, 2), data=lambda: iter([(x[:16], y[:16])]), epochs=6))
    assert found.causes == ("undertrained",)
    assert found.trace is not None
    assert (found.trace.facts.loop or {})["steps"] == 6
