"""Networks as people write them; options turn a network into one with a mistake in its own code."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.faults.fourth.networks import he

Activation = Callable[[Tensor], Tensor]


class Dense(nn.Module):
    """Linear layers in a loop.

    Args:
        at: Where it is activated: `hidden` layers; by mistake what comes in, once (`first`), or `every` layer and so the head.
    """

    def __init__(
        self, inputs: int, outputs: int, widths: tuple[int, ...], *, act: Activation = F.relu, drop: float = 0.0, at: str = "hidden"
    ) -> None:
        super().__init__()
        sizes = (inputs, *widths, outputs)
        self.fcs = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.drop = nn.Dropout(drop)
        he(self)
        self.act, self.at = act, at

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(x) if self.at == "first" else x
        for i, fc in enumerate(self.fcs):
            x = fc(x)
            if self.at == "every" or (self.at == "hidden" and i < len(self.fcs) - 1):
                x = self.drop(self.act(x))
        return x


class Gated(nn.Module):
    """Hidden layers that are gated by layers beside them (Dauphin 2017); by mistake the gates are made and not used."""

    def __init__(self, inputs: int, outputs: int, width: int = 40, depth: int = 2, gate: bool = True) -> None:
        super().__init__()
        self.values = nn.ModuleList(nn.Linear(inputs if i == 0 else width, width) for i in range(depth))
        self.gates = nn.ModuleList(nn.Linear(inputs if i == 0 else width, width) for i in range(depth))
        self.head = nn.Linear(width, outputs)
        he(self)
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        for value, gate in zip(self.values, self.gates, strict=True):
            opened = torch.sigmoid(gate(x))
            x = value(x) * opened if self.gate else value(x)
        out: Tensor = self.head(x)
        return out


class FunctionalNorm(nn.Module):
    """Batch norm by the function, whose `training` is False by default: by mistake it stays so."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(features)), nn.Parameter(torch.zeros(features))
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("var", torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.mean, self.var, self.weight, self.bias)  # type: ignore[arg-type]


class Normed(nn.Module):
    """Layers of any kind with batch norm and ReLU behind each.

    Args:
        norms: `each` layer has its own; by mistake there is `one` for all, the `first` layer alone has it, it is in `eval` mode alone, or
            it is `functional`.
    """

    def __init__(self, layers: list[nn.Module], width: int, outputs: int, *, dims: int, norms: str) -> None:
        super().__init__()
        kind = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d}[dims]
        self.layers = nn.ModuleList(layers)
        if norms == "one":
            self.norm = kind(width)
        else:
            self.norms = nn.ModuleList(FunctionalNorm(width) if norms == "functional" else kind(width) for _ in layers)
        self.head = nn.Linear(width, outputs)
        he(self)
        self.dims, self.how = dims, norms

    def normed(self, x: Tensor, i: int) -> Tensor:
        """What is handed on behind layer i."""
        if self.how == "one":
            return self.norm(x)  # type: ignore[no-any-return]
        if (self.how == "first" and i > 0) or (self.how == "eval" and self.training):
            return x
        return self.norms[i](x)  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        for i, layer in enumerate(self.layers):
            x = F.relu(self.normed(layer(x), i))
        out: Tensor = self.head(x.flatten(2).mean(2) if self.dims else x)
        return out


class NormedDense(Normed):
    """Of linear layers."""

    def __init__(self, inputs: int, outputs: int, width: int = 48, depth: int = 8, norms: str = "each") -> None:
        super().__init__([nn.Linear(inputs if i == 0 else width, width) for i in range(depth)], width, outputs, dims=0, norms=norms)


class NormedSignals(Normed):
    """Of convolutions along time, the second of which halves it."""

    def __init__(self, inputs: int, outputs: int, width: int = 14, depth: int = 5, norms: str = "each") -> None:
        made: list[nn.Module] = [
            nn.Conv1d(inputs if i == 0 else width, width, 5, padding=2, stride=2 if i == 1 else 1) for i in range(depth)
        ]
        super().__init__(made, width, outputs, dims=1, norms=norms)


class NormedImages(Normed):
    """Of convolutions of images, two of which halve them."""

    def __init__(self, outputs: int, width: int = 12, depth: int = 5, norms: str = "each") -> None:
        made: list[nn.Module] = [
            nn.Conv2d(1 if i == 0 else width, width, 3, padding=1, stride=2 if i in {1, 3} else 1) for i in range(depth)
        ]
        super().__init__(made, width, outputs, dims=2, norms=norms)


class Images(nn.Module):
    """Convolutions of images without norms, two of which halve them, and a dense head."""

    def __init__(self, outputs: int, channels: int = 10, depth: int = 4, act: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.features = nn.Sequential()
        for i in range(depth):
            self.features.append(nn.Conv2d(1 if i == 0 else channels, channels, 3, padding=1, stride=2 if i in {1, 3} else 1))
            self.features.append(act())
        self.out = nn.Linear(9 * channels, outputs)
        he(self)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.features(x).flatten(1))
        return out


class Skips(nn.Module):
    """Residual blocks without norms.

    Args:
        skip: What is `added`; by mistake the factor of the branch stands at the input (`scaled`), or the input's name is given to the
            branch first (`overwritten`).
    """

    def __init__(
        self, inputs: int, outputs: int, *, width: int = 36, depth: int = 14, act: Activation = F.relu, skip: str = "added"
    ) -> None:  # fmt: skip
        super().__init__()
        self.enter = nn.Linear(inputs, width)
        self.into = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.back = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.leave = nn.Linear(width, outputs)
        he(self)
        self.act, self.factor, self.skip = act, 0.2, skip

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        for into, back in zip(self.into, self.back, strict=True):
            h = back(self.act(into(x)))
            if self.skip == "overwritten":
                residual = h
                x = residual + h
            elif self.skip == "scaled":
                x = self.factor * x + h
            else:
                x = x + self.factor * h
        out: Tensor = self.leave(self.act(x))
        return out


class Twins(nn.Module):
    """One encoder for two images; the head gets how far apart their codes are."""

    def __init__(self, inputs: int, width: int = 48, code: int = 16) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, code))
        self.head = nn.Linear(code, 1)
        he(self)

    def codes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The codes of both, (samples, code)."""
        return self.encoder(x[:, 0]), self.encoder(x[:, 1])

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.codes(x)
        out: Tensor = self.head((first - second).abs())
        return out


class TwoTasks(nn.Module):
    """A trunk of convolutions with a head for which letter it is, and one for a number."""

    def __init__(self, classes: int, channels: int = 8) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1, stride=2), nn.ReLU(), nn.Flatten(),
            nn.Linear(25 * channels, 48), nn.ReLU(),
        )  # fmt: skip
        self.which, self.where = nn.Linear(48, classes), nn.Linear(48, 1)
        he(self)

    def forward(self, x: Tensor) -> Tensor:
        h = self.trunk(x)
        return torch.cat([self.which(h), self.where(h)], 1)


class Retold(nn.Module):
    """An auto-encoder that drops some of what comes in."""

    def __init__(self, features: int, width: int = 56, code: int = 10, drop: float = 0.1, act: type[nn.Module] = nn.SiLU) -> None:
        super().__init__()
        self.drop = nn.Dropout(drop)
        self.down = nn.Sequential(nn.Linear(features, width), act(), nn.Linear(width, code))
        self.up = nn.Sequential(nn.Linear(code, width), act(), nn.Linear(width, features))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.up(self.down(self.drop(x)))
        return out


class Rides(nn.Module):
    """Embedded zone, hour and day beside two numbers."""

    def __init__(self, width: int = 48, size: int = 5) -> None:
        super().__init__()
        self.zone, self.hour, self.day = nn.Embedding(12, size), nn.Embedding(24, size), nn.Embedding(7, size)
        self.mix = nn.Sequential(nn.Linear(3 * size + 2, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.out = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        kinds = x[:, :3].long()
        found = [table(kinds[:, i]) for i, table in enumerate((self.zone, self.hour, self.day))]
        out: Tensor = self.out(self.mix(torch.cat([*found, x[:, 3:]], 1)))
        return out
