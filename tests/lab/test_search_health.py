"""Sick gradients and metrics that fall behind -> runs that are stopped, and those that are not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import evengrad as eg
from evengrad import synthetic
from evengrad.lab.data import load
from evengrad.lab.engine.runs import Runs
from evengrad.lab.search import Halving, Health, SearchResult, search
from evengrad.lab.search.arms import layers_of
from evengrad.lab.search.health import Patient, traces
from evengrad.recording import trace_of
from evengrad.rig import Rig
from evengrad.trace.batch import Batch


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    split = load("digits")
    return split.x_train[:256], split.y_train[:256]


def deep() -> nn.Module:
    return nn.Sequential(*[m for i in range(10) for m in (nn.Linear(64 if i == 0 else 16, 16), nn.Tanh())], nn.Linear(16, 10))


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(64, 16)
        self.hidden = nn.ModuleList(nn.Linear(16, 16) for _ in range(6))
        self.leave = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = F.relu(self.enter(x))
        for layer in self.hidden:
            h = F.relu(layer(h))
        out: torch.Tensor = self.leave(h)
        return out


def convolutional() -> nn.Module:
    parts = [nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()]
    return nn.Sequential(nn.Unflatten(1, (1, 8, 8)), *parts, nn.Flatten(), nn.Dropout(0.0), nn.Linear(256, 10))


def experiment(model: Callable[[], nn.Module] = deep, **changes: Any) -> eg.Experiment:
    optimizer = changes.pop("optimizer", lambda m: torch.optim.SGD(m.parameters(), 0.05, momentum=0.9))
    return eg.Experiment(model, digits(), nn.CrossEntropyLoss(), optimizer, **({"epochs": 3, "batch_size": 32} | changes))


def by_scale(result: SearchResult) -> dict[float, set[str]]:
    found: dict[float, set[str]] = {}
    for one in result.trials:
        found.setdefault(one.numbers["init_scale"], set()).add(one.how)
    return found


@pytest.mark.parametrize("model", [deep, Functional, convolutional])
def test_many_runs_are_measured_together_as_check_measures_one(model: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    models = [model() for _ in range(3)]
    with torch.no_grad():
        next(iter(models[1].parameters())).mul_(30)  # dead units, other decades
    batch, loss = Batch(*(t[:24] for t in digits())), nn.CrossEntropyLoss()
    before = [p.detach().clone() for m in models for p in m.parameters()]
    runs = Runs(models)
    layers = layers_of(models[0], batch)
    for one, net in zip(traces(runs, layers, batch, loss, 7), models, strict=True):
        expected = trace_of(Rig(net, None, loss), batch)
        assert one.steps.tolist() == [7]
        assert [layer.name for layer in one.layers] == [layer.name for layer in expected.layers]
        for name in ("out_spread", "out_abs_max", "grad_out_norm", "grad_out_abs_max"):
            np.testing.assert_allclose(one.column(name), expected.column(name), rtol=1e-4)  # single precision, sums in another order
        known = np.isfinite(one.column("dead_fraction"))
        assert known.any() == any(layer.activation == "relu" for layer in layers)
        np.testing.assert_array_equal(one.column("dead_fraction")[known], expected.column("dead_fraction")[known])
    assert all(torch.equal(p, q) for p, q in zip(before, [p for m in models for p in m.parameters()], strict=True))


@pytest.mark.parametrize("model", [deep, Functional])
def test_a_vanishing_initialiser_is_stopped_and_a_healthy_one_is_not(model: Callable[[], nn.Module]) -> None:
    space = {"initialiser": ["orthogonal"], "init_scale": [1.0, 0.05], "lr": (0.01, 0.1, "log")}
    result = search(experiment(model), space, 8, batch=8, halving=None, storage="memory")
    assert by_scale(result) == {1.0: {"complete"}, 0.05: {"health"}}
    stopped = [t for t in result.trials if t.how == "health"]
    assert all(t.steps == 5 and "VAN001 before step 5: the gradient is multiplied by" in t.reason for t in stopped)
    assert result.reasons == {"VAN001": len(stopped)}
    taken, planned = result.steps
    assert planned - taken == len(stopped) * (24 - 5)


def test_an_exploding_initialiser_is_stopped() -> None:
    space = {"initialiser": ["orthogonal"], "init_scale": [1.0, 12.0], "lr": (0.001, 0.002)}
    linear = experiment(lambda: nn.Sequential(nn.Linear(64, 16), *(nn.Linear(16, 16, bias=False) for _ in range(8)), nn.Linear(16, 10)))
    result = search(linear, space, 6, batch=6, halving=None, storage="memory")
    assert by_scale(result)[12.0] == {"health"}
    assert set(result.reasons) <= {"EXP001", "NUM001"}
    assert by_scale(result)[1.0] == {"complete"}


def test_health_sees_nothing_where_it_is_turned_off() -> None:
    space = {"init_scale": [0.05], "lr": (0.01, 0.1, "log")}
    assert by_scale(search(experiment(), space, 4, halving=None, health=None, storage="memory")) == {0.05: {"complete"}}


def test_a_head_that_starts_at_zero_passes_nothing_back_at_first_and_is_not_stopped() -> None:
    def fixed() -> nn.Module:
        net = nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 10))
        nn.init.zeros_(net[-1].weight)
        return net

    result = search(experiment(fixed), {"lr": (0.01, 0.1, "log")}, 4, halving=None, storage="memory")
    assert result.ends == {"complete": 4}


def test_what_was_sick_once_and_healed_goes_on() -> None:
    sick, well = (synthetic.chain(20, grad_out_norm=synthetic.geometric(20, factor)) for factor in (0.2, 1.0))
    patient = Patient(Health())
    assert [patient.look(t, k) for k, t in enumerate((sick, well, sick))] == [None, None, None]
    assert (patient.look(sick, 50) or "").startswith("VAN001 before step 50: the gradient is multiplied by 0.2")


def test_what_is_not_finite_is_stopped_at_once() -> None:
    bad = synthetic.chain(4, out_abs_max=[1.0, math.inf, 1.0, 1.0])
    assert (Patient(Health()).look(bad, 0) or "").startswith("NUM001 before step 0")


def test_thresholds_are_the_users_to_set() -> None:
    space = {"initialiser": ["orthogonal"], "init_scale": [0.05], "lr": (0.01, 0.1, "log")}
    mild = Health(rules=(eg.rules.VanishingGradient(max_lost_decades=100, error_decades=100),))
    assert by_scale(search(experiment(), space, 3, halving=None, health=mild, storage="memory")) == {0.05: {"complete"}}


def test_networks_whose_gradients_cannot_be_mapped_train_on_unseen() -> None:
    class Odd(nn.Module):
        trailing_axes = True  # so that it is not mapped in training

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * float(x.numel() > 0 and x.detach().sum().item() < math.inf)

    result = search(experiment(lambda: nn.Sequential(deep(), Odd())), {"lr": (0.01, 0.1, "log")}, 3, halving=None, storage="memory")
    assert result.ends == {"complete": 3}
    assert "gradients by layer could not be seen" in result.notes[0]


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=40), st.floats(0.05, 1.0), st.booleans())
def test_at_least_the_kept_share_goes_on(metrics: list[float], kept: float, maximize: bool) -> None:
    bar = Halving(kept=kept).bar(metrics, maximize)
    on = [m for m in metrics if not (m < bar if maximize else m > bar)]
    assert len(on) >= kept * len(metrics)
    if len(metrics) < 5:
        assert on == metrics or any(map(math.isnan, metrics))


def test_those_that_are_equal_go_on_together() -> None:
    assert Halving().bar([0.1, 0.1, 0.1, 0.1, 0.9, 0.9], True) == 0.1
    assert Halving().bar([3.0, 1.0, 2.0, 4.0, 5.0, math.nan], False) == 3.0


def test_rungs_are_ends_of_epochs_before_the_last() -> None:
    assert Halving().epochs(16) == (2, 4, 8)
    assert Halving().epochs(2) == (1,)
    assert Halving().epochs(1) == ()
