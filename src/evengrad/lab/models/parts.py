"""name -> activation, norm, dropout; the containers that networks are made of.

Every container here reads trailing axes only, so that its forward serves one network (batch, *sample) and many (runs, batch, *sample).
`trailing_axes = True` says so: without it, a container is run for each network apart (`evengrad.lab.engine.stack`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from evengrad.errors import InputError, unknown
from evengrad.lab.models.axes import lift, scale
from evengrad.lab.models.hashing import HashAlphaDropout, HashDropout, HashRReLU, Keyed, set_step
from evengrad.lab.models.names import parse

__all__ = [
    "ACTIVATIONS", "NORMS", "Hardmax", "HashAlphaDropout", "HashDropout", "HashRReLU", "Keyed", "Last", "Mean", "Skip",
    "activation", "dropout", "lift", "norm", "scale", "set_step",
]  # fmt: skip


class Hardmax(nn.Module):
    """1 for the largest on the last axis, 0 for the others: no gradient passes, so it serves as a reference only."""

    trailing_axes: ClassVar[bool] = True

    def forward(self, x: Tensor) -> Tensor:
        return F.one_hot(x.argmax(-1), x.shape[-1]).to(x.dtype)


class Skip(nn.Module):
    """h + branch(h) (He et al. 2015b); `shortcut` fits h where the branch changes its shape."""

    trailing_axes: ClassVar[bool] = True

    def __init__(self, branch: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut = shortcut

    def forward(self, h: Tensor) -> Tensor:
        straight = h if self.shortcut is None else self.shortcut(h)
        return straight + self.branch(h)  # type: ignore[no-any-return]


class Last(nn.Module):
    """The last time step: (..., time, features) -> (..., features)."""

    trailing_axes: ClassVar[bool] = True

    def forward(self, h: Tensor) -> Tensor:
        return h[..., -1, :]


class Mean(nn.Module):
    """The mean over time: (..., time, features) -> (..., features)."""

    trailing_axes: ClassVar[bool] = True

    def forward(self, h: Tensor) -> Tensor:
        return h.mean(-2)


ACTIVATIONS: dict[str, Callable[..., nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "sigmoid": nn.Sigmoid,
    "leaky_relu": nn.LeakyReLU,
    "rrelu": HashRReLU,
    "prelu": lambda slope=0.25: nn.PReLU(init=slope),
    "elu": nn.ELU,
    "gelu_tanh": lambda: nn.GELU(approximate="tanh"),
    "softmax": lambda: nn.Softmax(-1),
    "hardmax": Hardmax,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "linear": nn.Identity,
}

NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm1d,
    "layer": nn.LayerNorm,
    "rms": nn.RMSNorm,
}
IMAGE_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "layer": lambda channels: nn.GroupNorm(1, channels),  # over channels and places
}


def activation(name: str) -> nn.Module:
    """Returns the activation of this name; one option may follow, as in `leaky_relu(0.2)` or `elu(0.5)`.

    Raises:
        UnknownNameError: for another name; the nearest one is offered.
        InputError: for an option that it does not take.
    """
    base, options = parse("activation", name, ACTIVATIONS)
    if options and (base not in {"leaky_relu", "prelu", "elu"} or len(options) > 1 or not isinstance(options[0], float)):
        raise InputError(f"the activation {name!r} does not take these options; one number may follow leaky_relu, prelu and elu")
    return ACTIVATIONS[base](*options)


def norm(name: str, features: int, *, image: bool = False) -> list[nn.Module]:
    """Returns the norm of this name over so many features or channels, or nothing for `none`.

    Raises:
        UnknownNameError: for another name; the nearest one is offered.
    """
    known = IMAGE_NORMS if image else NORMS
    if name == "none":
        return []
    if name not in known:
        raise unknown("norm", name, ("none", *known))
    return [known[name](features)]


def dropout(p: float, activation: str) -> list[nn.Module]:
    """Returns dropout, alpha dropout behind SELU, or nothing for p = 0."""
    if p == 0:
        return []
    return [HashAlphaDropout(p) if activation == "selu" else HashDropout(p)]
