"""A run that is watched is the run that is not, to the bit; and what hooks could break does not break."""

from __future__ import annotations

import copy
import io
import itertools
import pickle
import warnings
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

import evengrad as eg

MODELS = ("mlp", "cnn", "lstm", "attention", "checkpointed", "checkpointed, reentrant")
OPTIMIZERS = {
    "adam": lambda p: torch.optim.Adam(p, 1e-2),
    "adamw, foreach": lambda p: torch.optim.AdamW(p, 1e-2, foreach=True),
    "adam, fused": lambda p: torch.optim.Adam(p, 1e-2, fused=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 1e-3, momentum=0.5),
    "nag": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, nesterov=True, weight_decay=1e-4),
}


def bits(trained: Any) -> list[bytes]:
    """Everything a run leaves: weights, buffers, gradients, optimizer state, generator, losses."""
    tensors = [*trained.model.parameters(), *trained.model.buffers(), *(p.grad for p in trained.model.parameters()), trained.generator]
    for state in trained.optimizer.state.values():
        tensors += [v for v in state.values() if isinstance(v, torch.Tensor)]
    return [t.detach().numpy().tobytes() for t in tensors if t is not None] + [repr(trained.losses).encode()]


def same(loops: ModuleType, loop: Any, **options: Any) -> Any:
    plain, watched = loops.run(loop, watched=False), loops.run(loop, watched=True, **options)
    assert bits(plain) == bits(watched)
    assert watched.monitor.trace.events == () or {e.kind for e in watched.monitor.trace.events} <= {"scaler_skip"}
    return watched.monitor


@pytest.mark.parametrize("every", [None, 1])
@pytest.mark.parametrize("model", MODELS)
def test_a_watched_run_is_the_same_to_the_bit(loops: ModuleType, model: str, every: int | None) -> None:
    monitor = same(loops, loops.Loop(model=model), every=every)
    trace = monitor.trace
    assert len(trace.steps) == (25 if every else 23)
    assert (trace.columns["grad_norm"] > 0).any()
    assert (trace.columns["update_norm"][:, [i for i, layer in enumerate(trace.layers) if layer.depth]] > 0).all()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_kind_of_optimizer_steps_the_same(loops: ModuleType, optimizer: str) -> None:
    same(loops, loops.Loop(optimizer=OPTIMIZERS[optimizer]), every=1)


@pytest.mark.parametrize(("accumulate", "clip"), [(1, None), (1, 0.1), (3, None), (3, 0.1)])
def test_accumulation_and_clipping_under_a_scaler_stay_the_same(loops: ModuleType, accumulate: int, clip: float | None) -> None:
    loop = loops.Loop(accumulate=accumulate, clip=clip, autocast=torch.float16, scaler=True, steps=8)
    trace = same(loops, loop, every=1).trace
    assert list(trace.steps) == list(range(8))
    assert list(trace.curves["loss"].steps) == list(range(8))


COMBINED = list(itertools.product(MODELS, (None, torch.bfloat16), (1, 3), (None, 0.1)))


@pytest.mark.parametrize(("model", "autocast", "accumulate", "clip"), COMBINED)
def test_every_family_in_every_precision_accumulated_and_clipped_stays_the_same(
    loops: ModuleType, model: str, autocast: torch.dtype | None, accumulate: int, clip: float | None
) -> None:
    loop = loops.Loop(model=model, accumulate=accumulate, clip=clip, autocast=autocast, steps=6)
    trace = same(loops, loop, every=2).trace  # every other step is one at which nothing is due
    assert list(trace.steps) == [0, 2, 4]
    assert list(trace.curves["loss"].steps) == list(range(6))


@pytest.mark.slow
@pytest.mark.parametrize(("model", "autocast", "accumulate", "clip"), COMBINED)
def test_a_compiled_model_trains_the_same(
    loops: ModuleType, model: str, autocast: torch.dtype | None, accumulate: int, clip: float | None
) -> None:
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same(loops, loops.Loop(model=model, compiled=True, autocast=autocast, accumulate=accumulate, clip=clip))


def watched() -> tuple[nn.Module, torch.optim.Optimizer, eg.Monitor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    return model, optimizer, eg.watch(model, optimizer)


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.ones(3, 4)).square().mean().backward()
    optimizer.step()


def test_a_copy_and_a_saved_model_hold_no_trace_of_the_monitor() -> None:
    model, optimizer, monitor = watched()
    step(model, optimizer)
    twin = copy.deepcopy(model)
    file = io.BytesIO()
    torch.save(model, file)
    assert b"evengrad" not in file.getvalue()
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    seen = len(monitor.trace.steps)
    for copied in (twin, loaded, pickle.loads(pickle.dumps(model))):
        assert len(copied._forward_pre_hooks) == 0
        step(copied, torch.optim.SGD(copied.parameters(), 0.1))
    assert len(monitor.trace.steps) == seen
    assert copy.deepcopy(optimizer).state_dict()["param_groups"] == optimizer.state_dict()["param_groups"]
    assert model.state_dict().keys() == twin.state_dict().keys()


@pytest.mark.slow
def test_exporting_tracing_scripting_and_compiling_a_watched_model_work() -> None:
    model, optimizer, monitor = watched()
    x = torch.ones(3, 4)
    step(model, optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = model(x)
        programs = [torch.jit.script(model), torch.jit.trace(model, x), torch.export.export(model, (x,)).module()]
        for program in programs:
            torch.testing.assert_close(program(x), expected)
        assert torch._dynamo.explain(model)(x).graph_break_count == 0
        torch.testing.assert_close(torch.compile(model, backend="aot_eager", fullgraph=True)(x), expected)
        torch.testing.assert_close(torch.func.vmap(model)(x), expected)
    step(model, optimizer)
    assert not monitor.detached


def test_a_scheduler_works_and_its_rates_are_seen() -> None:
    model, optimizer, monitor = watched()
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    for _ in range(3):
        step(model, optimizer)
        scheduler.step()
    assert list(monitor.trace.curves["lr"].values) == pytest.approx([0.1, 0.05, 0.025])


def test_detaching_leaves_nothing_behind() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    original = model._forward_pre_hooks
    with eg.watch(model, optimizer) as monitor:
        step(model, optimizer)
        assert len(model._forward_pre_hooks) == 1
    monitor.detach()
    assert model._forward_pre_hooks is original
    left = (original, model._forward_hooks, optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks)
    assert [len(hooks) for hooks in left] == [0, 0, 0, 0]
    assert all(not p._post_accumulate_grad_hooks for p in model.parameters())


def test_autograd_calls_nothing_of_ours_at_steps_at_which_nothing_is_due() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    monitor = eg.watch(model, optimizer, every=eg.Cadence(parameters=10, layers=10, budget=1e-6))  # no norms in between
    hooked = []
    for _ in range(12):
        optimizer.zero_grad()
        model(torch.randn(3, 4)).square().mean().backward()
        hooked.append(any(p._post_accumulate_grad_hooks for p in model.parameters()))
        nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        optimizer.step()
    assert hooked[0]
    assert hooked[4:] == [False] * 6 + [True, False]
    curves = monitor.trace.curves
    assert list(curves["clipped"].steps) == [0, 10]
    assert curves["clipped"].values.all()
    assert curves["grad_norm"].values.min() > 2e-3 > curves["grad_norm_used"].values.max()


def test_hooks_of_the_users_own_can_come_and_go() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    calls: list[str] = []
    early = model.register_forward_pre_hook(lambda module, args: calls.append("early"))
    monitor = eg.watch(model, optimizer)
    late = model.register_forward_pre_hook(lambda module, args: calls.append("late"))
    step(model, optimizer)
    assert calls == ["early", "late"]
    early.remove()
    step(model, optimizer)
    assert calls == ["early", "late", "late"]
    monitor.detach()
    step(model, optimizer)
    late.remove()
    step(model, optimizer)
    assert calls == ["early", "late", "late", "late"]


def test_two_monitors_of_one_model_see_the_same() -> None:
    model, optimizer, first = watched()
    second = eg.watch(model, optimizer)
    step(model, optimizer)
    first.detach()
    step(model, optimizer)
    assert (len(first.trace.steps), len(second.trace.steps)) == (1, 2)
    second.detach()
    assert len(model._forward_pre_hooks) == 0


def test_an_exception_in_the_loop_leaves_a_report_and_no_hook() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    monitor = eg.watch(model, optimizer, every=1)
    step(model, optimizer)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), monitor:
        model(torch.ones(3, 5))
    assert len(model._forward_pre_hooks) == len(model._forward_hooks) == 0
    assert not torch.overrides._get_current_function_mode_stack()
    assert list(monitor.trace.steps) == [0]


def test_a_forward_that_raised_is_forgotten() -> None:
    model, optimizer, monitor = watched()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        model(torch.ones(3, 5))
    step(model, optimizer)
    assert not torch.overrides._get_current_function_mode_stack()
    assert len(model._forward_hooks) == 0
    assert not monitor.detached
