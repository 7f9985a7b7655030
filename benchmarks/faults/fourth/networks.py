"""Networks as people write them; options turn a network into one with a mistake in its own code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.faults.base import Program
from evengrad.lab.models import Net

Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Custom(Net):
    """A network that a class of its own makes.

    Attributes:
        make: Makes it, from torch's seed.
    """

    kind: ClassVar[str] = "custom"
    make: partial[nn.Module]

    def build(self, seed: int) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return self.make()


def custom(kind: type[nn.Module], **options: Any) -> Custom:
    """Returns a network of this class."""
    return Custom(make=partial(kind, **options))


def is_of(*kinds: type[nn.Module]) -> Callable[[Program], bool]:
    """Returns a test whether a program's network is of these classes."""
    return lambda program: isinstance(program.net, Custom) and program.net.make.func in kinds


def with_options(program: Program, **options: Any) -> Program:
    """Returns the program with options of its network's class changed."""
    assert isinstance(program.net, Custom)
    return program.having(net=Custom(make=partial(program.net.make, **options)))


def he(model: nn.Module) -> None:
    """He's initialisation of every matrix and kernel, and biases of zero."""
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class Tower(nn.Module):
    """Linear layers in a loop, with dropout; by mistake what is handed on is not what was activated, or goes through numpy.

    Args:
        slips: True hands on the variable of before the activation.
        numpy: True turns the last hidden layer into an array and back.
    """

    def __init__(
        self, inputs: int, outputs: int, widths: tuple[int, ...], *, act: Activation = F.relu, drop: float = 0.0, slips: bool = False,
        numpy: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        sizes = (inputs, *widths)
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, widths, strict=False))
        self.drop = nn.Dropout(drop)
        self.head = nn.Linear(widths[-1], outputs)
        he(self)
        self.act, self.slips, self.numpy = act, slips, numpy

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.hidden:
            z = layer(x)
            h = self.drop(self.act(z))
            x = z if self.slips else h
        if self.numpy:
            x = torch.from_numpy(x.detach().numpy())
        out: Tensor = self.head(x)
        return out


class ByHand(nn.Module):
    """Matrices of one's own and no `nn.Linear`; by mistake the first ones are tensors and no parameters."""

    def __init__(self, inputs: int, outputs: int, width: int = 48, parameters: bool = True) -> None:
        super().__init__()
        keep: Callable[[Tensor], Any] = nn.Parameter if parameters else lambda tensor: tensor
        self.w1 = keep(torch.randn(inputs, width) * (2 / inputs) ** 0.5)
        self.b1 = keep(torch.zeros(width))
        self.w2 = keep(torch.randn(width, width) * (2 / width) ** 0.5)
        self.b2 = keep(torch.zeros(width))
        self.w3 = nn.Parameter(torch.randn(width, outputs) * (1 / width) ** 0.5)
        self.b3 = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(x @ self.w1 + self.b1)
        h = torch.relu(h @ self.w2 + self.b2)
        return h @ self.w3 + self.b3


class NormedTower(nn.Module):
    """Linear, batch norm, ReLU as blocks; `norm` is `on`, `off` (as a flag's default has it) or `lost` (its result is not used)."""

    def __init__(self, inputs: int, outputs: int, width: int = 64, depth: int = 9, norm: str = "on") -> None:
        super().__init__()
        self.linears = nn.ModuleList(nn.Linear(inputs if i == 0 else width, width) for i in range(depth))
        self.bns = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(depth if norm != "off" else 0))
        self.classifier = nn.Linear(width, outputs)
        he(self)
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        for i, linear in enumerate(self.linears):
            x = linear(x)
            x = F.relu(_normed(x, self.bns[i] if self.bns else None, self.norm))
        out: Tensor = self.classifier(x)
        return out


def _normed(x: Tensor, norm: nn.Module | None, how: str) -> Tensor:
    if norm is None:
        return x
    h: Tensor = norm(x)
    return x if how == "lost" else h


class Signals(nn.Module):
    """Convolutions along time with batch norm, halved twice, and a mean over time."""

    def __init__(self, outputs: int, channels: int = 16, depth: int = 5, norm: str = "on") -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv1d(1 if i == 0 else channels, channels, 5, padding=2, stride=2 if i in {1, 2} else 1) for i in range(depth)
        )
        self.bns = nn.ModuleList(nn.BatchNorm1d(channels) for _ in range(depth if norm != "off" else 0))
        self.out = nn.Linear(channels, outputs)
        he(self)
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        for i, conv in enumerate(self.convs):
            x = conv(x)
            x = F.relu(_normed(x, self.bns[i] if self.bns else None, self.norm))
        out: Tensor = self.out(x.mean(-1))
        return out


class Pictures(nn.Module):
    """Convolutions with batch norm, or with none, and pooling behind the second and the fourth.

    Args:
        norm: `on`, `off`, `lost`, or `none` for a network that is made without.
        pooled: Side of what the head gets.
    """

    def __init__(self, outputs: int, channels: int = 12, depth: int = 4, norm: str = "on", pooled: int = 2) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(1 if i == 0 else channels, channels, 3, padding=1) for i in range(depth))
        self.bns = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(depth if norm in {"on", "lost"} else 0))
        self.out = nn.Linear(channels * pooled**2, outputs)
        he(self)
        self.norm, self.pooled = norm, pooled

    def forward(self, x: Tensor) -> Tensor:
        for i, conv in enumerate(self.convs):
            x = conv(x)
            x = F.relu(_normed(x, self.bns[i] if self.bns else None, self.norm))
            x = F.max_pool2d(x, 2) if i in {1, 3} else x
        out: Tensor = self.out(F.adaptive_avg_pool2d(x, self.pooled).flatten(1))
        return out


class Branches(nn.Module):
    """Residual blocks without norms whose branches are scaled down.

    Args:
        skip: `all`; by a condition turned around `unequal`; or `gated` by factors that start from zero.
    """

    def __init__(self, inputs: int, outputs: int, width: int = 40, depth: int = 16, skip: str = "all") -> None:
        super().__init__()
        self.stem = nn.Linear(inputs, width)
        self.first = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.second = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.head = nn.Linear(width, outputs)
        he(self)
        if skip == "gated":
            self.gates = nn.Parameter(torch.zeros(depth))
        self.scale, self.skip = depth**-0.5, skip

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for i, (first, second) in enumerate(zip(self.first, self.second, strict=True)):
            h = self.scale * second(F.relu(first(x)))
            if self.skip == "gated":
                x = self.gates[i] * x + h
            elif self.skip == "all" or x.shape != h.shape:
                x = x + h
            else:
                x = h
        out: Tensor = self.head(F.relu(x))
        return out


class ResidualPictures(nn.Module):
    """Residual convolutions with group norm before the activation; `skip` as above."""

    def __init__(self, outputs: int, channels: int = 8, depth: int = 6, skip: str = "all") -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, channels, 3, padding=1, stride=2)
        self.norms = nn.ModuleList(nn.GroupNorm(2, channels) for _ in range(depth))
        self.first = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(depth))
        self.second = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(depth))
        self.head = nn.Linear(4 * channels, outputs)
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for norm, first, second in zip(self.norms, self.first, self.second, strict=True):
            h = second(F.relu(first(F.relu(norm(x)))))
            x = x + h if self.skip == "all" or x.shape != h.shape else h
        out: Tensor = self.head(F.adaptive_avg_pool2d(x, 2).flatten(1))
        return out
