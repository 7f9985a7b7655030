"""A smaller rate calms whatever shakes: what does better tells the cause."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import evengrad as eg


def _data(wild: bool) -> tuple[Tensor, Tensor]:
    """Classes on a line through eight features; where it is wild, one sample in fifty is two thousand times as far out."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(1200, 8, generator=random)
    y = (x[:, 0] > 0).long() + 2 * (x[:, 1] > 0).long()
    if wild:
        x[::50] *= 2000
    return x, y


def _net() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))


def _relu_net() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))


def _experiment(rate: float, *, wild: bool = False) -> eg.Experiment:
    net = _relu_net if wild else _net
    return eg.Experiment(net, _data(wild), nn.CrossEntropyLoss(), lambda m: torch.optim.SGD(m.parameters(), rate), epochs=10, batch_size=32)


def test_a_rate_that_is_too_high_stays_the_cause_beside_clipping_and_norms() -> None:
    report = eg.diagnose(_experiment(30.0))
    assert report.causes[:1] == ("lr_too_high",)
    assert {i.cause for i in report.interventions if i.signal == "loss_of_the_first_steps"} >= {"lr_too_high", "no_grad_clip"}


def test_rare_wild_gradients_want_a_clip_and_no_smaller_rate() -> None:
    report = eg.diagnose(_experiment(0.2, wild=True), ignore=["DAT", "OPT007"])
    assert report.causes[:1] == ("no_grad_clip",)


def test_a_healthy_run_is_not_trained_again() -> None:
    assert not eg.diagnose(_experiment(0.3)).interventions
