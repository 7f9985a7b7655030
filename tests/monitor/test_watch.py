"""What a monitor sees of a loop that it does not know."""

from __future__ import annotations

import json
import math
import socket
import subprocess
import sys
import warnings
from collections import deque
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import evengrad as eg
from evengrad.errors import InputError, UnknownNameError


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 3))


def batch(step: int, count: int = 32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(count, 6, generator=generator)
    return x, x[:, :3].argmax(1)


def loss_of(model: nn.Module, step: int) -> Tensor:
    x, y = batch(step)
    return nn.functional.cross_entropy(model(x), y)


def test_columns_are_what_autograd_and_the_optimizer_did() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.5, momentum=0.9)
    monitor = eg.watch(model, optimizer, every=1)
    expected = []
    for step in range(4):
        before = [m.weight.detach().clone() for m in (model[0], model[2], model[4])]
        optimizer.zero_grad()
        loss_of(model, step).backward()
        grads = [m.weight.grad.clone() for m in (model[0], model[2], model[4])]
        optimizer.step()
        moved = [m.weight.detach() - w for m, w in zip((model[0], model[2], model[4]), before, strict=True)]
        expected.append((before, grads, moved))
    trace = monitor.trace
    assert [layer.name for layer in trace.layers] == ["0", "2", "4"]
    for s, (weights, grads, moved) in enumerate(expected):
        for i in range(3):
            seen = {name: trace.columns[name][s, i] for name in trace.columns}
            assert seen["weight_norm"] == pytest.approx(weights[i].norm().item(), rel=1e-5)
            assert seen["grad_norm"] == pytest.approx(grads[i].norm().item(), rel=1e-5)
            assert seen["grad_mean"] == pytest.approx(grads[i].mean().item(), rel=1e-3, abs=1e-8)
            assert seen["grad_abs_mean"] == pytest.approx(grads[i].abs().mean().item(), rel=1e-5)
            assert seen["grad_abs_max"] == pytest.approx(grads[i].abs().max().item(), rel=1e-5)
            assert seen["update_norm"] == pytest.approx(moved[i].norm().item(), rel=1e-4)
            assert seen["update_abs_max"] == pytest.approx(moved[i].abs().max().item(), rel=1e-4)
    check = eg.check(network(), *batch(0), nn.CrossEntropyLoss(), causes=False).trace
    assert check is not None
    for name in ("out_spread", "out_rms", "saturated_fraction", "grad_out_norm", "weight_mean", "distinct_unit_fraction"):
        np.testing.assert_allclose(trace.columns[name][0], check.columns[name][0], rtol=1e-4, err_msg=name)


def test_the_update_of_a_large_tensor_is_estimated_from_a_sample() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(300, 400), nn.Linear(400, 2))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    monitor = eg.watch(model, optimizer, every=1)
    before = model[0].weight.detach().clone()
    model(torch.randn(8, 300)).square().mean().backward()
    optimizer.step()
    assert monitor.trace.columns["update_norm"][0, 0] == pytest.approx((model[0].weight.detach() - before).norm().item(), rel=0.05)


def test_sampled_steps_are_dense_at_first_then_spaced_and_at_least_sixty_in_a_thousand() -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    monitor = eg.watch(model, optimizer)
    for _ in range(1000):
        optimizer.zero_grad()
        model(torch.ones(4, 2)).sum().backward()
        optimizer.step()
    steps = monitor.trace.steps
    assert list(steps[:20]) == list(range(20))
    assert 60 <= len(steps) <= 80
    assert (np.diff(np.diff(steps[30:])) >= 0).mean() > 0.6
    assert set(steps) <= set(monitor.trace.curves["grad_norm"].steps)
    assert np.diff(monitor.trace.curves["grad_norm"].steps).max() <= 64


def test_a_step_of_several_micro_batches_is_one_step() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    monitor = eg.watch(model, optimizer, every=1)
    losses: list[list[float]] = []
    for step in range(3):
        optimizer.zero_grad()
        losses.append([])
        for part in range(4):
            loss = loss_of(model, 4 * step + part) / 4
            loss.backward()
            losses[-1].append(loss.item())
            monitor.observe(loss=4 * loss)
        norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters()])
        optimizer.step()
        assert monitor.trace.curves["grad_norm"].values[-1] == pytest.approx(norm.item(), rel=1e-5)
    assert list(monitor.trace.steps) == [0, 1, 2]
    np.testing.assert_allclose(monitor.trace.curves["loss"].values, [sum(part) for part in losses], rtol=1e-5)


@pytest.mark.parametrize("late", [False, True])
def test_a_loss_belongs_to_its_step_whether_it_is_told_before_the_step_or_after(*, late: bool) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    monitor, losses = eg.watch(model, optimizer), []
    for step in range(5):
        optimizer.zero_grad()
        loss = loss_of(model, step)
        loss.backward()
        if not late:
            monitor.observe(loss=loss)
        optimizer.step()
        if late:
            monitor.observe(loss=loss)
        losses.append(loss.item())
    curve = monitor.trace.curves["loss"]
    assert list(curve.steps) == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(curve.values, losses, rtol=1e-6)


def test_the_norm_is_told_before_and_after_clipping_and_the_share_of_clipped_steps() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    monitor, norms = eg.watch(model, optimizer, every=1), []
    for step in range(6):
        optimizer.zero_grad()
        loss_of(model, step).backward()
        norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), 0.01 if step < 3 else 100.0)))
        optimizer.step()
    curves = monitor.trace.curves
    np.testing.assert_allclose(curves["grad_norm"].values, norms, rtol=1e-5)
    np.testing.assert_allclose(curves["grad_norm_used"].values, [0.01] * 3 + norms[3:], rtol=1e-3)
    assert list(curves["clipped"].values) == [1, 1, 1, 0, 0, 0]


def test_a_step_that_the_scaler_leaves_out_is_counted(loops: ModuleType) -> None:
    loop = loops.Loop(autocast=torch.float16, scaler=True, steps=10, bad=(3, 7), by=math.inf)
    trace = loops.run(loop, watched=True, every=1).monitor.trace
    assert [(e.kind, e.step) for e in trace.events] == [("scaler_skip", 3), ("scaler_skip", 7)]
    assert list(trace.curves["scaler_skip"].steps) == [3, 7]
    assert list(trace.curves["loss"].steps) == list(range(10))
    assert list(trace.steps) == [0, 1, 2, 4, 5, 6, 8, 9]
    assert list(trace.curves["loss_scale"].values) == [1024, 512, 256]
    plain = loops.run(loops.Loop(steps=3), watched=True, every=1).monitor.trace
    np.testing.assert_allclose(trace.curves["grad_norm"].values[:3], plain.curves["grad_norm"].values, rtol=0.05)  # not 1,024 times


def test_a_fused_optimizer_under_a_scaler_is_handed_scaled_gradients_and_they_are_unscaled(loops: ModuleType) -> None:
    def build(p: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(p, 0.05, fused=True)

    loop = loops.Loop(optimizer=build, autocast=torch.float16, scaler=True, steps=6, bad=(3,), by=math.inf)
    trace = loops.run(loop, watched=True, every=1).monitor.trace
    plain = loops.run(loops.Loop(optimizer=build, steps=3), watched=True, every=1).monitor.trace
    np.testing.assert_allclose(trace.columns["grad_norm"][:3], plain.columns["grad_norm"], rtol=0.2)
    assert [(e.kind, e.step) for e in trace.events] == [("scaler_skip", 3)]
    assert list(trace.curves["loss"].steps) == list(range(6))


def test_half_precision_without_its_scaler_says_what_it_cannot_know(loops: ModuleType) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    monitor = eg.watch(model, optimizer)
    for step in range(3):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.float16):
            loss = loss_of(model, step)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    assert "GradScaler" in monitor.report().skipped["norm before clipping"]
    assert monitor.trace.curves["grad_norm"].values.max() < 10


def test_on_a_gpu_without_a_guard_norms_are_read_a_step_late(loops: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    from evengrad.monitor.watcher import Watcher

    plain = Watcher.__init__

    def late(self: Watcher, *args: Any, **kwargs: Any) -> None:
        plain(self, *args, **kwargs)
        self._late = deque()

    expected = loops.run(loops.Loop(steps=8), watched=True).monitor.trace.curves["grad_norm"]
    monkeypatch.setattr(Watcher, "__init__", late)
    trace = loops.run(loops.Loop(steps=8), watched=True).monitor.trace
    assert list(trace.curves["grad_norm"].steps) == list(range(8))
    np.testing.assert_allclose(trace.curves["grad_norm"].values, expected.values, rtol=1e-6)
    events = loops.run(loops.Loop(steps=8, bad=(3,)), watched=True).monitor.trace.events
    assert [(e.kind, e.step) for e in events] == [("bad_operation", 3)]
    assert "guard='skip' finds its operation" in events[0].message


@pytest.mark.parametrize("model", ["mlp", "relu", "cnn", "lstm", "attention"])
def test_at_a_step_at_which_nothing_is_due_a_gradient_that_is_not_finite_is_noticed_before_it_is_used(
    loops: ModuleType, model: str
) -> None:
    loop = loops.Loop(model=model, steps=130, bad=(121,))
    trace = loops.run(loop, watched=True, every=eg.Cadence(dense=1, growth=1000.0, budget=1e-6)).monitor.trace
    assert list(trace.steps) == [0, 1]
    measured = [step for step in trace.curves["grad_norm"].steps if step < 121]
    assert 121 - measured[-1] < 64 == measured[-1] - measured[-2]  # every 64 steps: the norm was not due
    assert [(e.kind, e.step) for e in trace.events] == [("bad_operation", 121)]
    assert "not found" not in trace.events[0].message


@pytest.mark.parametrize("touch", [lambda g: g.mul_(0.5), lambda g: g.data.mul_(0.5), lambda g: g.data.clamp_(-1e-4, 1e-4)])
def test_columns_are_of_the_gradients_that_are_used_however_they_were_changed(touch: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(80, 100), nn.Tanh(), nn.Linear(100, 3))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    monitor = eg.watch(model, optimizer, every=1)
    for step in range(3):
        optimizer.zero_grad()
        model(torch.randn(8, 80)).square().mean().backward()
        if step == 2:
            for p in model.parameters():
                touch(p.grad)
        used = [model[i].weight.grad.norm().item() for i in (0, 2)]
        optimizer.step()
    np.testing.assert_allclose(monitor.trace.columns["grad_norm"][-1], used, rtol=1e-5)


def test_one_entry_of_a_large_gradient_that_is_not_finite_makes_its_norm_and_its_largest_magnitude_infinite() -> None:
    model = nn.Linear(300, 400)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    monitor = eg.watch(model, optimizer, every=1)
    for step in range(2):
        model(torch.ones(2, 300)).sum().backward()
        assert model.weight.grad is not None
        if step:
            model.weight.grad[0, 100] = math.nan  # none of the entries that are sampled
        optimizer.step()
    columns = monitor.trace.columns
    assert np.isinf([columns["grad_norm"][-1, 0], columns["grad_abs_max"][-1, 0]]).all()
    assert columns["grad_abs_max"][0, 0] == 2.0


@pytest.mark.parametrize("outputs", [64, 128, 512])
@pytest.mark.parametrize("inputs", [128, 512, 784])
def test_a_sample_is_of_all_inputs_of_a_layer_also_where_its_first_are_always_zero(inputs: int, outputs: int) -> None:
    torch.manual_seed(0)
    model = nn.Linear(inputs, outputs)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    monitor = eg.watch(model, optimizer, every=1)
    x = torch.randn(32, inputs)
    x[:, : inputs // 4] = 0  # as the upper edge of a picture is
    model(x).square().mean().backward()
    before = model.weight.detach().clone()
    optimizer.step()
    assert monitor.trace.columns["update_norm"][0, 0] == pytest.approx((model.weight.detach() - before).norm().item(), rel=0.1)


@pytest.mark.parametrize("size", [1e-30, 1e25])
def test_norms_whose_squares_single_precision_cannot_hold_are_still_norms(size: float) -> None:
    model = nn.Linear(4, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    monitor = eg.watch(model, optimizer, every=1, guard="skip")
    (model(torch.ones(1, 4)) * size).sum().backward()
    optimizer.step()
    trace = monitor.trace
    assert trace.events == ()
    assert trace.curves["grad_norm"].values[0] == pytest.approx(2 * size, rel=1e-5)
    assert trace.columns["grad_norm"][0, 0] == pytest.approx(2 * size, rel=1e-5)


def test_closures_are_measured_after_the_step() -> None:
    model = network()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)
    monitor = eg.watch(model, optimizer, every=1)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, 0)
        loss.backward()
        return loss

    first = closure().item()
    for _ in range(3):
        monitor.observe(loss=optimizer.step(closure))
    trace = monitor.trace
    assert list(trace.steps) == [0, 1, 2]
    assert (trace.columns["update_norm"] > 0).all()
    assert (trace.columns["grad_norm"] > 0).all()
    assert trace.curves["loss"].values[-1] < first
    assert "closure" in monitor.report().skipped["guard, norm before clipping"]


def test_several_optimizers_fill_the_rows_of_one_step() -> None:
    model = network()
    first, second = torch.optim.SGD(model[:2].parameters(), 0.1), torch.optim.Adam(model[2:].parameters(), 1e-3)
    monitor = eg.watch(model, [first, second], every=1)
    for step in range(3):
        first.zero_grad()
        second.zero_grad()
        loss_of(model, step).backward()
        first.step()
        second.step()
    trace = monitor.trace
    assert list(trace.steps) == [0, 1, 2]
    for name in ("grad_norm", "update_norm", "weight_norm", "out_spread"):
        assert np.isfinite(trace.columns[name]).all(), name


def test_frozen_and_unused_parameters_are_unseen_not_zero() -> None:
    class Partly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.frozen, self.used, self.unused = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(8, 3)
            self.frozen.requires_grad_(requires_grad=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(self.frozen(x).tanh())

    torch.manual_seed(0)
    model = Partly()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    monitor = eg.watch(model, optimizer, every=1)
    for step in range(2):
        optimizer.zero_grad()
        loss_of(model, step).backward()
        optimizer.step()
    trace = monitor.trace
    assert [layer.name for layer in trace.layers] == ["frozen", "used"]
    assert np.isnan(trace.columns["grad_norm"][:, 0]).all()
    assert np.isfinite(trace.columns["grad_norm"][:, 1]).all()
    assert np.isfinite(trace.columns["weight_norm"]).all()


def test_evaluation_between_steps_is_not_seen() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    monitor = eg.watch(model, optimizer, every=1)
    for step in range(3):
        optimizer.zero_grad()
        loss_of(model, step).backward()
        optimizer.step()
        model.eval()
        with torch.no_grad():
            model(torch.full((5, 6), torch.nan))
        model.train()
        with torch.no_grad():
            model(torch.full((5, 6), torch.nan))
    assert list(monitor.trace.steps) == [0, 1, 2]
    assert np.isfinite(monitor.trace.columns["out_spread"][:, [0, 2]]).all()  # a norm's own row has none


def test_norms_of_a_model_that_is_never_called_as_a_whole_are_those_before_clipping() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    monitor, norms = eg.watch(model, optimizer, every=2), []
    for step in range(9):
        optimizer.zero_grad()
        x, y = batch(step)
        nn.functional.cross_entropy(model[4](model[:4](x)), y).backward()
        norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), 0.01)))
        optimizer.step()
    curve = monitor.trace.curves["grad_norm"]
    assert {0, 2, 4, 6, 8} <= set(curve.steps)
    np.testing.assert_allclose(curve.values, [norms[step] for step in curve.steps], rtol=1e-5)


def test_a_model_that_is_never_called_as_a_whole_says_that_its_layers_were_not_seen() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    monitor = eg.watch(model, optimizer)
    for step in range(3):
        optimizer.zero_grad()
        x, y = batch(step)
        nn.functional.cross_entropy(model[4](model[:4](x)), y).backward()
        optimizer.step()
        monitor.observe(loss=step)
    assert "model(x)" in monitor.report().skipped["layers"]
    assert list(monitor.trace.curves["grad_norm"].steps) == [0, 1, 2]
    assert list(monitor.trace.curves["loss"].values) == [0, 1, 2]


@pytest.mark.slow
def test_a_compiled_model_is_probed_uncompiled(loops: ModuleType) -> None:
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = loops.run(loops.Loop(compiled=True), watched=True, every=1).monitor
    plain = loops.run(loops.Loop(), watched=True, every=1).monitor
    assert "projection" in compiled.report().skipped["gradient of the layers' outputs"]
    for name in ("grad_norm", "update_norm", "weight_norm"):
        np.testing.assert_allclose(compiled.trace.columns[name], plain.trace.columns[name], rtol=1e-3, err_msg=name)
    assert np.isfinite(compiled.trace.columns["out_spread"]).all()


def test_the_name_of_the_run_and_its_facts_are_told() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.25)
    monitor = eg.watch(model, optimizer, name="my run")
    for step in range(3):
        optimizer.zero_grad()
        loss = loss_of(model, step)
        loss.backward()
        optimizer.step()
        monitor.observe(loss=loss, accuracy=0.5)
    report = monitor.report()
    run, facts = report.run, report.trace.facts
    assert (run.name, run.model, run.verb, run.samples, run.parameters) == ("my run", "Sequential", "watch", 32, 435)
    assert facts.optimizer is not None
    assert facts.optimizer.items() >= {"name": "SGD", "lr": 0.25, "missing": []}.items()
    assert facts.inputs["shape"] == [32, 6]
    assert facts.head["width"] == 3
    assert "loss" in str(report)
    assert eg.Report.from_json(report.to_json()).to_json() == report.to_json()


def test_sick_runs_are_found_by_the_rules_of_check() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*[m for _ in range(12) for m in (nn.Linear(16, 16), nn.Sigmoid())], nn.Linear(16, 3))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with eg.watch(model, optimizer) as monitor:
        for step in range(10):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(torch.randn(32, 16)), batch(step)[1]).backward()
            optimizer.step()
    assert "VAN001" in {f.code for f in monitor.findings}


def test_wrong_arguments_are_told_at_once() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(InputError, match=r"watch needs an nn\.Module"):
        eg.watch(lambda x: x, optimizer)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"watch needs a torch\.optim\.Optimizer"):
        eg.watch(model, [torch.optim.lr_scheduler.StepLR(optimizer, 1)])  # type: ignore[list-item]
    with pytest.raises(InputError, match="none of the model's parameters"):
        eg.watch(network(), optimizer)
    with pytest.raises(InputError, match="at least 1"):
        eg.watch(model, optimizer, every=0)
    with pytest.raises(InputError, match="share of the training's time"):
        eg.Cadence(budget=2.0)
    with pytest.raises(UnknownNameError, match="Did you mean 'skip'"):
        eg.watch(model, optimizer, guard="skp")
    with pytest.raises(UnknownNameError, match="VAN001"):
        eg.watch(model, optimizer, select=["VAN01"])
    monitor = eg.watch(model, optimizer)
    with pytest.raises(InputError, match=r"observe takes scalars; loss is a tensor of shape \(3,\)"):
        monitor.observe(loss=torch.ones(3))
    assert len(model._forward_pre_hooks) == 1
    monitor.detach()


@pytest.mark.parametrize("where", ["on_forward", "on_backward", "before_step", "after_step", "observe"])
def test_a_fault_of_our_own_ends_the_watch_is_told_once_and_never_stops_the_training(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from evengrad.monitor.watcher import Watcher

    def run(*, watched: bool) -> tuple[list[float], eg.Monitor | None, list[str]]:
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        monitor, losses = (eg.watch(model, optimizer, every=1) if watched else None), []
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            for step in range(8):
                if watched and step == 4:
                    monkeypatch.setattr(Watcher, where, lambda *args, **kwargs: 1 / 0)
                optimizer.zero_grad()
                loss = loss_of(model, step)
                loss.backward()
                optimizer.step()
                if monitor is not None:
                    monitor.observe(loss=loss)
                losses.append(loss.item())
        assert not model._forward_pre_hooks or monitor is None
        return losses, monitor, [str(w.message) for w in told]

    plain, _, _ = run(watched=False)
    losses, monitor, told = run(watched=True)
    assert losses == plain
    assert monitor is not None
    assert monitor.detached
    assert len(told) == 1
    assert "ZeroDivisionError" in told[0]
    assert "The training goes on" in told[0]
    assert [e.kind for e in monitor.trace.events] == ["fault"]
    assert len(monitor.trace.steps) >= 4


def test_a_fault_that_ending_the_watch_meets_again_is_told_once_and_never_reaches_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    from evengrad.monitor.watcher import Watcher

    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    monitor = eg.watch(model, optimizer)
    monkeypatch.setattr(Watcher, "finish", lambda self: 1 / 0)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for step in range(3):
            optimizer.zero_grad()
            loss_of(model, step).backward()
            optimizer.step()
    assert ["ZeroDivisionError" in str(w.message) for w in told] == [True]
    assert (monitor.detached, len(model._forward_pre_hooks)) == (True, 0)
    assert [e.kind for e in monitor.trace.events] == ["fault"]


def test_watching_is_counted_and_stays_in_its_budget_where_steps_are_not_tiny() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 3))
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    monitor = eg.watch(model, optimizer)
    x, y = torch.randn(2048, 64), torch.randint(0, 3, (2048,))
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    assert 0 < monitor.overhead < 0.5
    looked = np.isfinite(monitor.trace.columns["out_spread"]).any(1)
    assert looked[0]
    assert not looked[1:6].all()  # a look at the layers of every step would be beyond the budget


@pytest.mark.slow
def test_two_ranks_see_averaged_gradients() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, str(Path(__file__).with_name("ranks.py"))]
    ranks = [subprocess.Popen([*command, str(rank), port], stdout=subprocess.PIPE, text=True) for rank in range(2)]
    seen = [json.loads(rank.communicate(timeout=120)[0].splitlines()[-1]) for rank in ranks]
    for one in seen:
        assert one["layers"] == ["0", "2"]
        assert one["norms"] == pytest.approx(one["averaged"], rel=1e-5)
        assert (one["steps"], one["events"]) == ([0, 1, 2], [])
    assert seen[0]["norms"] == pytest.approx(seen[1]["norms"])
    planes = [np.array(one["ranks"]) for one in seen]  # (steps, layers, ranks)
    np.testing.assert_array_equal(*planes)
    assert planes[0].shape == (3, 2, 2)
    assert np.isnan(planes[0][0]).all()  # rows are known from the first step on
    assert (planes[0][1:] > 0).all()
    assert (planes[0][1:, :, 0] != planes[0][1:, :, 1]).all()
