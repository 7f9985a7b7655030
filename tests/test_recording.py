"""What a training shows beside each layer's numbers: the loop, the loss, the targets, evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import evengrad as eg
from evengrad.examine import diagnose_run
from evengrad.recording.checkpoints import Checkpoints
from evengrad.training import build, first_batch, train
from evengrad.types import Trace

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(256, 6, generator=GENERATOR)
Y = (X[:, 0] + X[:, 1] > 0).long()


def network(*, dropout: float = 0.0, norm: bool = False) -> nn.Module:
    middle = [nn.BatchNorm1d(16)] if norm else []
    return nn.Sequential(nn.Linear(6, 16), *middle, nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 2))


def experiment(**changes: Any) -> eg.Experiment:
    given: dict[str, Any] = {
        "model": network,
        "data": (X, Y),
        "loss_fn": nn.CrossEntropyLoss(),
        "optimizer": lambda m: torch.optim.SGD(m.parameters(), 0.1),
        "epochs": 5,
        "batch_size": 32,
    }
    given |= changes
    return eg.Experiment(given.pop("model"), given.pop("data"), given.pop("loss_fn"), given.pop("optimizer"), **given)


def trace_of(**changes: Any) -> Trace:
    trace = diagnose_run(experiment(**changes), [], causes=False)[0].trace
    assert trace is not None
    return trace


def stepping(change: Any) -> Any:
    def step(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
        inputs, targets = batch
        loss = loss_fn(model(inputs), targets)
        change(model, loss, optimizer)
        return loss

    return step


def standard(model: nn.Module, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def never_zeroed(model: nn.Module, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
    loss.backward()
    optimizer.step()


def uphill(model: nn.Module, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    (-loss).backward()
    optimizer.step()


def zeroed_after(model: nn.Module, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def in_pairs() -> Any:
    calls = 0

    def step(model: nn.Module, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
        nonlocal calls
        calls += 1
        loss.backward()
        if calls % 2 == 0:
            optimizer.step()
            optimizer.zero_grad()

    return step


@pytest.mark.parametrize("step", [standard, zeroed_after], ids=lambda f: f.__name__)
def test_a_step_that_does_the_usual_agrees_with_the_standard_step(step: Any) -> None:
    trace = trace_of(train_step=stepping(step))
    np.testing.assert_allclose(trace.column("grad_agreement"), 1.0, atol=1e-5)
    np.testing.assert_allclose(trace.column("update_agreement"), 1.0, atol=1e-3)
    np.testing.assert_allclose(trace.column("grad_norm"), trace.column("grad_raw_norm"), rtol=1e-4)
    assert (trace.facts.loop or {})["accumulated"] == 0


def test_gradients_that_are_never_zeroed_are_told_from_those_added_on_purpose() -> None:
    assert (trace_of(train_step=stepping(never_zeroed)).facts.loop or {})["accumulated"] > 0.99
    assert (trace_of(train_step=stepping(in_pairs())).facts.loop or {})["accumulated"] < 0.5


def test_a_step_uphill_disagrees() -> None:
    np.testing.assert_allclose(trace_of(train_step=stepping(uphill)).column("grad_agreement"), -1.0, atol=1e-5)
    maximised = trace_of(optimizer=lambda m: torch.optim.SGD(m.parameters(), 0.01, maximize=True))
    np.testing.assert_allclose(maximised.column("update_agreement"), -1.0, atol=1e-2)


def test_updates_that_a_small_type_swallows_are_counted() -> None:
    def tiny(m: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(m.parameters(), 1e-6)

    lost = trace_of(model=lambda: network().bfloat16(), data=(X.bfloat16(), Y), optimizer=tiny).column("unchanged_fraction")
    assert np.nanmin(lost) > 0.9
    assert np.nanmax(trace_of(optimizer=tiny).column("unchanged_fraction")) < 0.7  # a millionth of a gradient is near single's own end
    assert np.nanmax(trace_of().column("unchanged_fraction")) < 0.05


def test_rate_and_accuracy_and_evaluation_have_curves() -> None:
    schedule = {"scheduler": lambda o: torch.optim.lr_scheduler.StepLR(o, 10, 0.5)}
    trace = trace_of(validation=(X[:64], Y[:64]), **schedule)
    rates, losses = trace.curves["lr"], trace.curves["loss"]
    assert len(rates.values) == len(losses.values) == 40
    assert (rates.values[0], rates.values[15]) == (0.1, 0.05)
    evaluated = trace.curves["eval_loss"]
    np.testing.assert_allclose(evaluated.values, losses.values[evaluated.steps], rtol=1e-5)  # no dropout, no batch norm: the same number
    assert 8 <= len(evaluated.steps) <= 12
    assert trace.curves["val_accuracy"].values[-1] > 0.65
    assert trace.curves["accuracy"].values[-1] > 0.65
    assert "val_loss" not in trace_of().curves


def test_a_run_that_goes_on_beyond_its_plan_is_evaluated_ever_more_rarely() -> None:
    seen = Checkpoints(8, None)
    rig = build(experiment())
    batch = first_batch(rig)
    for rig.step in range(800):
        seen.see(rig, batch)
    steps = [step for step, _ in seen.values["eval_loss"]]
    assert steps[:9] == list(range(9))
    assert len(steps) < 60


def test_dropout_parts_training_from_evaluation() -> None:
    trace = trace_of(model=lambda: network(dropout=0.8), epochs=10)
    evaluated = trace.curves["eval_loss"]
    late = len(trace.curves["loss"].values) // 2
    assert np.mean(evaluated.values[evaluated.steps >= late]) < np.mean(trace.curves["loss"].values[late:])


def test_modes_are_told_as_the_users_step_leaves_them() -> None:
    def evaluating(model: nn.Module, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
        model.eval()
        standard(model, loss, optimizer)

    (norm,) = (trace_of(model=lambda: network(norm=True)).facts.modules or {})["norms"]
    assert norm == {
        "name": "1",
        "kind": "BatchNorm1d",
        "training": True,
        "eps": 1e-5,
        "momentum": 0.1,
        "tracks": True,
        "values": 32,
    }
    (norm,) = (trace_of(model=lambda: network(norm=True), train_step=stepping(evaluating)).facts.modules or {})["norms"]
    assert not norm["training"]


def test_targets_are_counted_over_more_than_a_batch_and_compared_with_their_neighbours() -> None:
    told = trace_of().facts.targets or {}
    assert told["samples"] == 1024
    assert sum(told["labels"].values()) == 1024
    assert told["neighbour_agreement"] > 0.7
    shuffled = trace_of(data=(X, Y[torch.randperm(256, generator=torch.Generator().manual_seed(1))]), epochs=1).facts.targets or {}
    assert abs(shuffled["neighbour_agreement"] - shuffled["neighbour_chance"]) < 4 * shuffled["neighbour_error"]


def test_the_loop_is_described() -> None:
    loop = trace_of(train_step=stepping(standard)).facts.loop or {}
    assert loop.items() >= {"standard": False, "epochs": 5, "samples": 256, "batch_size": 32, "steps": 40}.items()
    source = trace_of(data=lambda: iter([(X, Y)] * 30), epochs=1)
    assert (source.facts.loop or {})["steps"] == 30  # of data without a length, what a run that ended by itself took
    assert len(source.curves["eval_loss"].steps) >= 5


@pytest.mark.parametrize(
    ("loss_fn", "targets", "op", "toward"),
    [
        (nn.CrossEntropyLoss(), Y[:8], "cross_entropy", 1),
        (nn.functional.mse_loss, X[:8, :2], "mse", 1),
        (nn.BCEWithLogitsLoss(), (X[:8, :2] > 0).float(), "bce_with_logits", 1),
        (lambda o, y: -nn.functional.cross_entropy(o, y), Y[:8], "cross_entropy", -1),
        (lambda o, y: nn.functional.softplus(o[:, 0] * (1 - 2 * y)).mean(), Y[:8], "other", 1),
        (lambda o, y: -o.softmax(1)[torch.arange(len(y)), y].log().mean(), Y[:8], "other", 1),
    ],
    ids=["cross-entropy", "mse", "bce", "negated", "one unit", "own"],
)
def test_a_loss_is_known_by_what_it_calls_and_where_it_pulls(loss_fn: Any, targets: Tensor, op: str, toward: int) -> None:
    one_unit = op == "other" and "softplus" in loss_fn.__code__.co_names
    model = nn.Sequential(nn.Linear(6, 1)) if one_unit else network()
    trace = eg.check(model, X[:8], targets, loss_fn, causes=False).trace
    assert trace is not None
    facts = trace.facts.loss or {}
    assert facts["op"] == op
    assert np.sign(facts["toward_targets"]) == toward
    assert facts["batch_growth"] == pytest.approx(1.0, rel=1e-4)


def test_a_sum_grows_with_the_batch_and_the_best_constant_answer_is_known() -> None:
    trace = eg.check(network(), X, Y, nn.CrossEntropyLoss(reduction="sum"), causes=False).trace
    assert trace is not None
    facts = trace.facts.loss or {}
    assert facts["batch_growth"] == pytest.approx(2.0, rel=1e-4)
    share = float(Y.double().mean())
    entropy = -share * np.log(share) - (1 - share) * np.log(1 - share)
    assert facts["baseline"] == pytest.approx(256 * entropy, rel=1e-4)


def test_watching_changes_no_bit() -> None:
    given = experiment(model=lambda: network(dropout=0.3, norm=True), validation=(X[:64], Y[:64]))
    plain, watched = train(given), diagnose_run(given, [], causes=False)[1]
    np.testing.assert_array_equal(plain.losses, watched.losses)
    for one, other in zip(plain.model.state_dict().values(), watched.model.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_a_penalty_in_the_user_s_step_is_no_gradient_left_over() -> None:
    def penalised(model: nn.Module, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        (loss + 0.5 * sum(p.abs().sum() for p in model.parameters())).backward()
        optimizer.step()

    assert (trace_of(train_step=stepping(penalised)).facts.loop or {})["accumulated"] < 0.9


def test_gradients_that_the_optimizer_does_not_have_are_not_its_own_to_zero() -> None:
    trace = trace_of(optimizer=lambda m: torch.optim.SGD(m[0].parameters(), 0.1), train_step=stepping(standard))
    assert (trace.facts.loop or {})["accumulated"] == 0


def _own(change: Any = None, *, every: int = 1, pieces: int = 1, scale: float = 1.0) -> Any:
    """A user's step that does something with the weights or gradients, takes a step every few batches, or cuts a batch into pieces."""
    seen = [0]

    def step(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
        seen[0] += 1
        for x, y in zip(batch[0].chunk(pieces), batch[1].chunk(pieces), strict=True):
            loss: Tensor = loss_fn(model(x), y)
            (loss * scale).backward()
            if seen[0] % every == 0:
                optimizer.step()
                optimizer.zero_grad()
        if change is not None:
            with torch.no_grad():
                for p in model.parameters():
                    p.copy_(change(p))
        return loss

    return step


def test_steps_and_pieces_of_a_loop_are_counted() -> None:
    rare, cut = (trace_of(train_step=step).facts.loop for step in (_own(every=8), _own(pieces=16)))
    assert rare is not None
    assert cut is not None
    assert (rare["optimizer_steps"], rare["model_calls"], rare["piece"]) == (1 / 8, 1.0, 32.0)
    assert (cut["optimizer_steps"], cut["model_calls"], cut["piece"]) == (16.0, 16.0, 2.0)


def test_what_a_loop_does_behind_the_optimizer_is_told_from_what_the_optimizer_does() -> None:
    shrunk, rounded, usual = (trace_of(train_step=_own(c)) for c in (lambda p: 0.9 * p, lambda p: (p * 64).round() / 64, None))
    assert np.allclose(shrunk.column("behind_ratio"), 0.1, atol=1e-5)
    assert np.nanmin(shrunk.column("behind_shrink")) > 0.999
    assert np.nanmedian(shrunk.column("update_agreement")) > 0.999  # of the optimizer's own change
    assert np.nanmin(rounded.column("rounded_fraction")[1:]) == 1.0
    assert np.nanmax(usual.column("rounded_fraction")) < 0.1
    assert np.nanmax(usual.column("behind_ratio")) == 0.0


def test_gradients_that_arrive_as_zero_are_counted_and_a_penalty_is_seen() -> None:
    def step(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer, *, penalty: float) -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = loss_fn(model(batch[0]), batch[1])
        (loss + penalty * sum(p.square().sum() for p in model.parameters())).backward()
        for p in model.parameters():
            if not penalty and p.grad is not None:
                p.grad = torch.where(p.grad.abs() < p.grad.abs().median(), 0.0, p.grad)
        optimizer.step()
        return loss

    lost = trace_of(train_step=lambda *a: step(*a, penalty=0.0))
    assert 0.4 < np.nanmedian(lost.column("lost_fraction")) < 0.6
    assert np.nanmin(trace_of(train_step=lambda *a: step(*a, penalty=1.0)).column("extra_shrink")) > 0.99


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return -grads[0]


class _Turn(nn.Module):
    def forward(self, h: Tensor) -> Tensor:
        turned: Tensor = _Reversed.apply(h)  # type: ignore[no-untyped-call]
        return turned


def test_a_gradient_that_points_uphill_is_measured_on_the_loss_itself() -> None:
    right = trace_of().facts.loss
    wrong = trace_of(model=lambda: nn.Sequential(nn.Linear(6, 16), nn.Tanh(), _Turn(), nn.Linear(16, 2))).facts.loss
    assert right is not None
    assert wrong is not None
    assert right["descent"] == pytest.approx(1.0, abs=0.1)
    assert wrong["descent"] == pytest.approx(-1.0, abs=0.1)


def test_noise_of_training_mode_is_a_share_of_the_output() -> None:
    quiet, loud = (trace_of(model=lambda p=p: network(dropout=p)).facts.head for p in (0.0, 0.95))
    assert quiet is not None
    assert loud is not None
    assert quiet["noise"] == 0.0
    assert loud["noise"] > 0.5


def test_parameters_that_nobody_owns_are_found_behind_the_loss() -> None:
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers, self.head = [nn.Linear(6, 16)], nn.Linear(16, 2)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.layers[0](x).relu())
            return out

    report = eg.diagnose(experiment(model=Listed))
    assert report.trace is not None
    assert report.trace.facts.optimizer is not None
    assert report.trace.facts.optimizer["unowned"] == 6 * 16 + 16
    assert report.causes[0] == "frozen_params"
