"""A range test finds the rates that train, and curvature the rate from which gradient descent runs away."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evengrad.errors import InputError
from evengrad.range_test import rate_range, sharpness, stability_limit
from evengrad.rig import Rig
from evengrad.trace.batch import Batch
from evengrad.training import Experiment, train
from evengrad.types import Proposal

X = torch.randn(256, 6, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] + 0.5 * X[:, 1] > 0).long()


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 2))


def experiment(rate: float = 0.1, *, kind: Any = torch.optim.SGD, **changes: Any) -> Experiment:
    options: dict[str, Any] = {"epochs": 10, "batch_size": 32} | changes
    return Experiment(net, (X, Y), nn.CrossEntropyLoss(), lambda m: kind(m.parameters(), rate), **options)


# ---------------------------------------------------------------- rate_range


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_training_at_the_suggested_rate_gains_nearly_what_the_best_rate_does(kind: Any, seed: int) -> None:
    def gain(rate: float) -> float:
        losses = train(experiment(rate, kind=kind), seed=seed).losses
        return float(np.nan_to_num(losses[0] - losses[-16:].mean(), nan=-np.inf))

    seen = rate_range(experiment(kind=kind), seed=seed)
    assert gain(seen.suggested) > 0.8 * max(gain(float(rate)) for rate in np.geomspace(1e-4, 10, 11))
    assert seen.suggested <= seen.lowest < seen.limit


def test_rates_grow_by_a_constant_factor_and_the_test_ends_when_the_loss_blows_up() -> None:
    seen = rate_range(experiment(), low=1e-3, high=1e5, steps=80)
    assert len(seen.rates) == len(seen.losses) == len(seen.smoothed) < 80
    assert seen.rates[0] == pytest.approx(1e-3)
    np.testing.assert_allclose(seen.rates[1:] / seen.rates[:-1], (1e8) ** (1 / 79), rtol=1e-9)
    assert not seen.losses[-1] < 2 * seen.losses[0]
    assert seen.limit <= seen.rates[-1]


def test_the_steps_are_those_of_a_training_at_these_rates() -> None:
    class Growing:
        def __init__(self, optimizer: torch.optim.Optimizer) -> None:
            self.optimizer, self.rates = optimizer, iter(np.geomspace(1e-3, 0.1, 20))
            self.step()

        def step(self) -> None:
            self.optimizer.param_groups[0]["lr"] = float(next(self.rates, 0.0))

    seen = rate_range(experiment(), low=1e-3, high=0.1, steps=20)
    assert seen.losses.tolist() == train(experiment(scheduler=Growing), max_steps=20).losses.tolist()


def test_a_test_that_stays_below_any_limit_has_none() -> None:
    assert rate_range(experiment(), low=1e-7, high=1e-2).limit == math.inf


def test_where_the_loss_never_falls_nothing_is_suggested() -> None:
    assert math.isnan(rate_range(experiment(), low=1e-12, high=1e-9, steps=20).suggested)


def test_groups_keep_their_ratios_and_repairs_and_schedules_do_not_interfere() -> None:
    seen: list[list[float]] = []

    def step(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
        seen.append([g["lr"] for g in optimizer.param_groups])
        return torch.tensor(1.0)

    def groups(model: nn.Module) -> torch.optim.Optimizer:
        first, *rest = model.parameters()
        return torch.optim.SGD([{"params": [first], "lr": 0.2}, {"params": rest}], lr=0.1)

    given = Experiment(net, (X, Y), nn.CrossEntropyLoss(), groups, epochs=1, batch_size=128, train_step=step)
    given = given.repaired([Proposal(remedy="warmup", options={"steps": 5})])
    rate_range(given, low=1e-3, high=1.0, steps=10)
    np.testing.assert_allclose([rates[0] for rates in seen], np.geomspace(1e-3, 1.0, 10))
    np.testing.assert_allclose([rates[1] / rates[0] for rates in seen], 0.5)


@pytest.mark.parametrize("options", [{"low": 0.0}, {"low": 1.0, "high": 0.1}, {"high": math.inf}, {"steps": 9}])
def test_a_range_that_is_none_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="needs 0 < low < high and at least 10 steps"):
        rate_range(experiment(), **options)


def test_an_optimizer_without_a_rate_says_so() -> None:
    class Rateless(torch.optim.Optimizer):
        def __init__(self, parameters: Any) -> None:
            super().__init__(parameters, {})

        def step(self, closure: Any = None) -> None:
            """Does nothing."""

    with pytest.raises(InputError, match="Rateless has no learning rate"):
        rate_range(Experiment(net, (X, Y), nn.CrossEntropyLoss(), lambda m: Rateless(m.parameters())))


# ---------------------------------------------------------------- curvature


class Point(nn.Module):
    """A point in space, whatever the input."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.at = nn.Parameter(torch.ones(size, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.at


def bowl(curvatures: list[float]) -> Any:
    """The loss ½ Σ c x², rotated, whose Hessian has these eigenvalues."""
    basis, _ = torch.linalg.qr(torch.randn(len(curvatures), len(curvatures), generator=torch.Generator().manual_seed(0)).double())
    matrix = basis @ torch.diag(torch.tensor(curvatures).double()) @ basis.mT
    return lambda output, _targets: 0.5 * output @ matrix @ output


BATCH = Batch(torch.zeros(1, 1))


@pytest.mark.parametrize("curvatures", [[4.0, 1.0, 0.2], [0.5], [4.0, 4.0, 4.0, 4.0], [3.0, -50.0, 0.0], list(np.geomspace(1e-3, 7, 60))])
def test_sharpness_is_the_largest_curvature_of_a_quadratic(curvatures: list[float]) -> None:
    rig = Rig(Point(len(curvatures)), None, bowl(curvatures))
    assert sharpness(rig, BATCH) == pytest.approx(max(curvatures), rel=1e-8)
    assert stability_limit(rig, BATCH) == pytest.approx(2 / max(curvatures), rel=1e-8)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_gradient_descent_holds_below_the_limit_and_runs_away_above_it(momentum: float) -> None:
    for factor, holds in ((0.98, True), (1.02, False)):
        model = Point(3)
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=momentum)
        loss_fn = bowl([4.0, 1.0, 0.2])
        optimizer.param_groups[0]["lr"] = factor * stability_limit(Rig(model, optimizer, loss_fn), BATCH)
        for _ in range(600):
            optimizer.zero_grad()
            loss = loss_fn(model(None), None)
            loss.backward()
            optimizer.step()
        assert (float(loss.detach()) < 1e-3) == holds


def test_sharpness_is_that_of_the_full_hessian_of_a_network() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    x, y = torch.randn(20, 4, generator=torch.Generator().manual_seed(1)).double(), torch.arange(20) % 3
    names = [name for name, _ in model.named_parameters()]
    sizes = [p.numel() for p in model.parameters()]
    shapes = [p.shape for p in model.parameters()]

    def loss(flat: Tensor) -> Tensor:
        parts = {n: part.view(s) for n, part, s in zip(names, flat.split(sizes), shapes, strict=True)}
        return F.cross_entropy(torch.func.functional_call(model, parts, x), y)

    flat = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    hessian = torch.autograd.functional.hessian(loss, flat)
    assert isinstance(hessian, Tensor)
    expected = float(torch.linalg.eigvalsh(hessian)[-1])
    assert sharpness(Rig(model, None, F.cross_entropy), Batch(x, y)) == pytest.approx(expected, rel=1e-6)


def test_only_what_the_optimizer_trains_counts_and_the_model_stays_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Tanh(), nn.Linear(8, 2))
    batch, state = Batch(X[:32], Y[:32]), {k: v.clone() for k, v in model.state_dict().items()}
    numbers = torch.get_rng_state()
    every = sharpness(Rig(model, None, F.cross_entropy), batch)
    last = sharpness(Rig(model, torch.optim.SGD(model[4].parameters(), 0.1), F.cross_entropy), batch)
    assert 0 < last < every
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in state.items())
    assert torch.equal(torch.get_rng_state(), numbers)
    assert all(p.grad is None for p in model.parameters())


def test_a_loss_that_is_nowhere_curved_has_no_limit() -> None:
    rig = Rig(Point(3), None, lambda output, _targets: output.sum())
    assert stability_limit(rig, BATCH) == math.inf
    assert stability_limit(Rig(Point(2), None, bowl([-1.0, -2.0])), BATCH) == math.inf


def test_a_rig_that_trains_nothing_and_curvature_that_is_no_number_say_so() -> None:
    model = Point(2).requires_grad_(False)
    with pytest.raises(InputError, match="trains no parameter"):
        sharpness(Rig(model, None, bowl([1.0, 2.0])), BATCH)
    with pytest.raises(InputError, match="NaN or infinite"):
        sharpness(Rig(Point(2), None, lambda output, _targets: (output - 1).abs().pow(0.5).sum()), BATCH)
