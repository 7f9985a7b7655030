"""What lies between layers, asked with noise: neither how it is written nor the weights matter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import evengrad as eg
from evengrad.trace.batch import Batch
from evengrad.trace.between_probe import between


class Net(nn.Module):
    """Three layers with a function between them."""

    def __init__(self, between: Callable[[Tensor], Tensor], scale: float = 1.0) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(8, 40), nn.Linear(40, 40), nn.Linear(40, 4)
        self.dropout, self.between = nn.Dropout(0.5), between
        with torch.no_grad():
            for p in self.parameters():
                p.mul_(scale)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.first, self.second):
            x = self.dropout(self.between(layer(x)))
        last: Tensor = self.last(x)
        return last


def _ways(model: nn.Module) -> list[dict[str, Any]]:
    random = torch.Generator().manual_seed(0)
    x, y = torch.randn(64, 8, generator=random), torch.randint(4, (64,), generator=random)
    trace = eg.check(model, x, y, nn.CrossEntropyLoss(), causes=False).trace
    assert trace is not None
    return between(model, Batch(x, y), trace.layers, trace.facts.edges or ())


@pytest.mark.parametrize(
    ("way", "passes", "size"),
    [
        (F.relu_, 0.71, 0.71),
        (lambda z: z.clamp(min=0), 0.71, 0.71),
        (lambda z: z.sigmoid(), 0.21, 0.54),
        (lambda z: 1 / (1 + (-z).exp()), 0.21, 0.54),
        (lambda z: z.relu().sigmoid(), 0.15, 0.6),
        (lambda z: (30 * z).sin(), 21.0, 0.71),
        (lambda z: z.log_softmax(-1), 1.0, 4.2),
    ],
)
def test_noise_tells_what_an_activation_leaves_of_a_signal(way: Callable[[Tensor], Tensor], passes: float, size: float) -> None:
    found = _ways(Net(way))
    assert [f["name"] for f in found] == ["first", "second"]
    for one in found:
        assert one["passes"] == pytest.approx(passes, rel=0.1)  # 2,560 draws
        assert one["size"] == pytest.approx(size, rel=0.1)


@pytest.mark.parametrize("way", [lambda z: z, lambda z: z.clamp(-1e3, 1e3), lambda z: 2 * z + 1, lambda z: F.leaky_relu(z, 1.0)])
def test_what_is_linear_bends_nothing(way: Callable[[Tensor], Tensor]) -> None:
    assert all(one["bend"] < 1e-3 for one in _ways(Net(way)))


@pytest.mark.parametrize("way", [F.relu, F.elu, F.selu, torch.tanh, F.softplus, lambda z: F.leaky_relu(z, 0.5)])
def test_what_is_no_line_bends(way: Callable[[Tensor], Tensor]) -> None:
    assert all(one["bend"] > 0.2 for one in _ways(Net(way)))


def test_does_not_depend_on_the_weights() -> None:
    assert _ways(Net(torch.tanh, 100.0)) == _ways(Net(torch.tanh, 1e-3))


def test_leaves_the_model_as_it_was() -> None:
    model = Net(torch.relu)
    before = {name: p.clone() for name, p in model.state_dict().items()}
    state = torch.get_rng_state()
    _ways(model)
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_layer_that_is_called_twice_is_left_out() -> None:
    model = Net(torch.relu)
    model.second = model.first = nn.Linear(8, 8)
    model.last = nn.Linear(8, 4)
    assert _ways(model) == []


def test_a_clamp_that_nothing_meets_is_no_activation_to_check() -> None:
    random = torch.Generator().manual_seed(0)
    x, y = torch.randn(64, 8, generator=random), torch.randint(4, (64,), generator=random)
    model = Net(lambda z: z.clamp(-1e3, 1e3))
    with torch.no_grad():
        model.first.weight.mul_(100)  # so that something is wrong, and the network is looked into
    report = eg.check(model, x, y, nn.CrossEntropyLoss())
    assert any(f.code == "ARC001" and f.cause == "missing_activation" for f in report.findings)
