"""Guards on runs that go wrong without them."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import evengrad as eg
from evengrad.errors import InputError, UnknownNameError
from evengrad.monitor.guards import discovered, resolved
from evengrad.monitor.guards.base import Norms
from evengrad.types import Event

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=0.01),
    "SGD, fused": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, fused=True),
    **{
        name: (lambda p, name=name: getattr(torch.optim, name)(p, lr=1e-3))
        for name in ("Adam", "AdamW", "NAdam", "RAdam", "Adamax", "RMSprop", "Adagrad", "Adadelta", "ASGD", "Rprop")
    },
    "Adam, foreach": lambda p: torch.optim.Adam(p, 1e-3, foreach=True),
    "AdamW, fused": lambda p: torch.optim.AdamW(p, 1e-3, fused=True),
    "Adam, capturable off, amsgrad": lambda p: torch.optim.Adam(p, 1e-3, amsgrad=True),
}


def state(trained: Any) -> list[bytes]:
    """Weights and optimizer state, as bytes."""
    tensors = list(trained.model.parameters())
    for held in trained.optimizer.state.values():
        tensors += [torch.as_tensor(v) for v in held.values()]
    return [t.detach().numpy().tobytes() for t in tensors]


def finite(model: nn.Module) -> bool:
    return all(bool(p.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_step_left_out_leaves_no_trace_in_weights_and_optimizer(loops: ModuleType, optimizer: str) -> None:
    loop = loops.Loop(optimizer=OPTIMIZERS[optimizer], steps=6, bad=(5,))
    harmed = loops.run(loop, watched=False)
    assert not finite(harmed.model) or optimizer == "Rprop"  # which takes the sign of NaN for 0
    guarded = loops.run(loop, watched=True, guard="skip")
    assert state(guarded) == state(loops.run(loops.Loop(optimizer=OPTIMIZERS[optimizer], steps=5), watched=False))
    assert [(e.kind, e.step) for e in guarded.monitor.trace.events] == [("bad_operation", 5), ("skip", 5)]
    assert all(p.grad is not None for p in guarded.model.parameters())  # the loop finds them as it left them


def test_without_a_guard_nothing_is_touched_and_the_first_bad_step_is_told(loops: ModuleType) -> None:
    loop = loops.Loop(steps=8, bad=(3,))
    watched = loops.run(loop, watched=True, every=1)
    assert state(watched) == state(loops.run(loop, watched=False))
    assert [(e.kind, e.step) for e in watched.monitor.trace.events] == [("bad_operation", 3)]
    assert "nan_or_inf" in {f.symptom for f in watched.monitor.findings}


def test_warn_warns_once(loops: ModuleType) -> None:
    with pytest.warns(RuntimeWarning, match="step 3 are not finite") as told:
        trained = loops.run(loops.Loop(steps=8, bad=(3, 5)), watched=True, guard="warn")
    assert len(told) == 1
    assert state(trained) == state(loops.run(loops.Loop(steps=8, bad=(3, 5)), watched=False))


def test_skip_leaves_out_a_step_far_beyond_what_is_usual_and_goes_on(loops: ModuleType) -> None:
    loop = loops.Loop(model="relu", steps=60, bad=(40,), by=1e4)
    harmed, guarded = loops.run(loop, watched=False), loops.run(loop, watched=True, guard="skip")
    assert [(e.kind, e.step) for e in guarded.monitor.trace.events] == [("skip", 40)]
    assert max(guarded.losses[41:]) < 2 < max(harmed.losses[41:])
    assert list(guarded.monitor.trace.curves["skip"].steps) == [40]


def test_skip_takes_a_level_that_lasts(loops: ModuleType) -> None:
    loop = loops.Loop(model="relu", steps=60, bad=tuple(range(30, 60)), by=1e3, optimizer=lambda p: torch.optim.SGD(p, 1e-6))
    events = loops.run(loop, watched=True, guard=eg.guards.Skip(deviations=4, patience=3)).monitor.trace.events
    assert [e.step for e in events if e.kind == "skip"] == [30, 31, 32]


def test_clip_learns_a_threshold_and_tames_a_spike(loops: ModuleType) -> None:
    loop = loops.Loop(model="relu", steps=60, bad=(40,), by=1e4)
    harmed, guarded = loops.run(loop, watched=False), loops.run(loop, watched=True, guard="clip", every=1)
    trace = guarded.monitor.trace
    assert [(e.kind, e.step) for e in trace.events] == [("clip", 40)]
    assert trace.curves["grad_norm_used"].values[40] < 10 * np.median(trace.curves["grad_norm"].values)
    assert max(guarded.losses[41:]) < 2 < max(harmed.losses[41:])
    assert trace.curves["clipped"].values.tolist() == [float(step == 40) for step in range(60)]


def test_a_given_threshold_clips_as_torch_does(loops: ModuleType) -> None:
    clipped = loops.run(loops.Loop(steps=8, clip=0.01), watched=False)
    guarded = loops.run(loops.Loop(steps=8), watched=True, guard=eg.guards.Clip(threshold=0.01))
    for one, other in zip(clipped.model.parameters(), guarded.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


def test_stop_ends_the_block_with_the_last_good_weights(loops: ModuleType) -> None:
    guarded = loops.run(loops.Loop(steps=20, bad=(7,)), watched=True, guard="stop")
    assert len(guarded.losses) == 7
    assert state(guarded) == state(loops.run(loops.Loop(steps=7), watched=False))
    assert guarded.monitor.trace.events[-1].message == "training stopped before step 7: its gradients are not finite"
    assert guarded.monitor.detached


def test_outside_of_a_block_stop_raises_out_of_the_step() -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    monitor = eg.watch(model, optimizer, guard="stop")
    model(torch.tensor([[math.nan, 1.0]])).sum().backward()
    with pytest.raises(eg.TrainingStoppedError, match="before step 0"):
        optimizer.step()
    assert model.weight.grad is not None
    assert finite(model)
    monitor.detach()


def unstable(*, guard: Any, lr: float = 3.0, steps: int = 200) -> tuple[nn.Module, list[float], eg.Monitor, torch.optim.Optimizer]:
    """Regression by a rate at which plain SGD diverges within a few dozen steps."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=lr * 1e-3, momentum=0.9)
    x = torch.randn(256, 4)
    y, losses = x.square().sum(1, keepdim=True), []
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 if step < 40 else 100.0)  # the rate jumps: a user's mistake
    with eg.watch(model, optimizer, guard=guard) as monitor:
        for _ in range(steps):
            optimizer.zero_grad()
            loss = (model(x) - y).square().mean()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
    return model, losses, monitor, optimizer


def test_rollback_saves_a_run_that_diverges_without_it() -> None:
    _, losses, _, _ = unstable(guard=None)
    assert not losses[-1] < 1e6
    model, losses, monitor, optimizer = unstable(guard=eg.guards.Rollback(every=10, factor=0.1))
    events = monitor.trace.events
    assert {e.kind for e in events} <= {"rollback", "bad_operation"}
    assert 1 <= sum(e.kind == "rollback" for e in events) <= 5
    assert finite(model)
    assert losses[-1] < losses[35]
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.3)  # the schedule's own: the guard lowers only what a step uses


def test_rollback_goes_back_exactly_and_gives_up_after_its_retries(loops: ModuleType) -> None:
    loop = loops.Loop(optimizer=lambda p: torch.optim.Adam(p, 1e-3), steps=20, bad=tuple(range(12, 20)))
    trained = loops.run(loop, watched=True, guard=eg.guards.Rollback(every=5, retries=2))
    events = trained.monitor.trace.events
    assert [(e.kind, e.step) for e in events] == [("bad_operation", 12), ("rollback", 12), ("rollback", 13), ("stop", 14)]
    assert "back to the weights of step 10" in events[1].message
    assert "back to the weights of step 5" in events[2].message
    assert state(trained) == state(loops.run(loops.Loop(optimizer=loop.optimizer, steps=5), watched=False))


def test_with_no_good_state_rollback_stops(loops: ModuleType) -> None:
    events = loops.run(loops.Loop(steps=5, bad=(0,)), watched=True, guard="rollback").monitor.trace.events
    assert [(e.kind, e.step) for e in events] == [("bad_operation", 0), ("stop", 0)]


@pytest.mark.parametrize("guard", ["warn", "clip", "skip", "rollback", "stop"])
@pytest.mark.parametrize("model", ["mlp", "cnn", "lstm"])
def test_guards_leave_a_healthy_run_alone(loops: ModuleType, guard: str, model: str) -> None:
    loop = loops.Loop(model=model, steps=60)
    assert state(loops.run(loop, watched=True, guard=guard)) == state(loops.run(loop, watched=False))


def test_a_guard_given_twice_remembers_one_run_only() -> None:
    guard = eg.guards.Warn()
    model = nn.Linear(2, 1)
    for _ in range(2):
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        monitor = eg.watch(model, optimizer, guard=guard)
        model(torch.tensor([[math.nan, 1.0]])).sum().backward()
        with pytest.warns(RuntimeWarning, match="not finite"):
            optimizer.step()
        monitor.detach()
        nn.init.zeros_(model.weight)
        nn.init.zeros_(model.bias)
        optimizer.zero_grad()


def test_the_usual_is_learned_robustly() -> None:
    norms = Norms()
    assert norms.limit(3) == math.inf
    for norm in [1.0] * 19:
        norms.add(norm)
    assert norms.limit(3) == math.inf
    norms.add(1e9)
    assert norms.limit(3) == pytest.approx(10**0.75)
    for norm in (0.0, math.inf, math.nan):
        norms.add(norm)
    assert len(norms.values) == 20


def test_guards_are_found_by_name() -> None:
    assert list(discovered()) == ["clip", "limits", "rollback", "skip", "stop", "warn"]
    with pytest.raises(UnknownNameError, match="Did you mean 'clip'"):
        resolved("clp")
    with pytest.raises(InputError, match="guard must be a name such as 'skip', or a guard; got int"):
        resolved(3)  # type: ignore[arg-type]


def test_a_guard_of_ones_own_works() -> None:
    class Halve(eg.Guard):
        name = "halve"

        def before(self, at: Any) -> Event | None:
            torch._foreach_mul_(list(at.gradients), 0.5)
            return Event(step=at.step, kind="halve", message="halved")

    def weight(*, lr: float, guard: eg.Guard | None) -> Tensor:
        torch.manual_seed(0)
        model = nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr)
        with eg.watch(model, optimizer, guard=guard):
            model(torch.ones(3, 2)).sum().backward()
            optimizer.step()
        return model.weight.detach()

    torch.testing.assert_close(weight(lr=0.1, guard=Halve()), weight(lr=0.05, guard=None))
