"""nothing -> networks of every shape that a remedy may meet, as experiments."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evengrad.training import Experiment


def loud_loss(output: Tensor, targets: Tensor) -> Tensor:
    """A loss whose gradients are so large that clipping cuts them."""
    return 1000 * F.cross_entropy(output, targets)


class Functional(nn.Module):
    """Calls activations in every way but as a module."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.out = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        x = self.b(x).relu()
        x = F.relu(self.c(x), inplace=True)
        return self.out(x)


class Convolutional(nn.Module):
    """Convolutions, one of them behind a batch norm, and functional ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3)
        self.out = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.first(x)))
        x = F.relu(self.second(x), inplace=True)
        return self.out(x.mean((2, 3)))


class Transformer(nn.Module):
    """Tokens' features through an encoder with dropout."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.encoder(x).mean(1))


class Tied(nn.Module):
    """An embedding whose weight is the output's weight, too."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.hidden, self.out = nn.Embedding(11, 8), nn.Linear(8, 8), nn.Linear(8, 11, bias=False)
        self.out.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.hidden(self.embedding(x).mean(1))))


class Keywords(nn.Module):
    """Takes its inputs by name."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 8), nn.Sigmoid(), nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, 3))

    def forward(self, *, features: Tensor, weight: Tensor) -> Tensor:
        return self.net(features) * weight


class Sequence(nn.Module):
    """Linear layers on (samples, time, features)."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh())
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.net(x).mean(1))


def shared() -> nn.Module:
    """One activation instance in several places."""
    act = nn.ReLU(inplace=True)
    return nn.Sequential(nn.Linear(6, 8), act, nn.Linear(8, 8), act, nn.Linear(8, 3))


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.Sigmoid(), nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, 3))


class ByName(torch.utils.data.Dataset[object]):
    """Samples whose inputs are a dictionary."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> object:
        return {"features": self.x[i], "weight": torch.ones(1)}, self.y[i]


def optimizer(model: nn.Module) -> torch.optim.Optimizer:
    """Two groups and a momentum: what a remedy must not disturb."""
    parameters = list(model.parameters())
    groups = [{"params": parameters[:1], "lr": 2e-4}, {"params": parameters[1:]}]
    return torch.optim.SGD(groups, lr=1e-4, momentum=0.9)


def _decaying(step: int) -> float:
    return 0.9**step


def scheduler(held: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    return torch.optim.lr_scheduler.LambdaLR(held, _decaying)


def _experiment(model: Callable[[], nn.Module], x: Tensor, classes: int = 3) -> Experiment:
    y = torch.arange(len(x)) % classes
    data = ByName(x, y) if model is Keywords else (x, y)
    return Experiment(model, data, loud_loss, optimizer, scheduler=scheduler, batch_size=8, epochs=1)


def experiments() -> dict[str, Experiment]:
    """Small networks on inputs that are far from standardised."""
    draw = torch.Generator().manual_seed(0)

    def inputs(*shape: int) -> Tensor:
        return torch.randn(24, *shape, generator=draw) * 20 + 5

    return {
        "perceptron": _experiment(perceptron, inputs(6)),
        "functional": _experiment(Functional, inputs(6)),
        "convolutional": _experiment(Convolutional, inputs(2, 6, 6)),
        "shared": _experiment(shared, inputs(6)),
        "transformer": _experiment(Transformer, inputs(5, 8)),
        "tied": _experiment(Tied, torch.randint(11, (24, 5), generator=draw), 11),
        "keywords": _experiment(Keywords, inputs(6)),
        "sequence": _experiment(Sequence, inputs(5, 6)),
    }


@pytest.fixture(scope="session")
def zoo() -> dict[str, Experiment]:
    return experiments()
