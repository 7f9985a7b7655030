"""name of an initialiser -> weights drawn in place from a generator."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import init

from evengrad.errors import InputError
from evengrad.lab.models.names import Option, parse
from evengrad.remedies.schemes import fill_, variance_scaling_

Fill = Callable[[Tensor, str, torch.Generator | None], object]  # weight, name of the activation behind it, generator


def initialiser(name: str) -> Fill:
    """Returns the function that draws weights by this name.

    Args:
        name: A key of `INITIALISERS`, or one of `normal(std)`, `uniform(low, high)`, `constant(value)`,
            `variance_scaling(scale, mode, distribution)` (mode fan_in, fan_out or fan_avg; distribution normal, truncated or uniform).

    Raises:
        UnknownNameError: for another name; the nearest one is offered.
        InputError: if its options do not fit.
    """
    base, options = parse("initialiser", name, [*INITIALISERS, *_FAMILIES])
    if base in INITIALISERS and not options:
        return INITIALISERS[base]
    try:
        fill = _FAMILIES[base](*options)
        fill(torch.empty(2, 2), "linear", torch.Generator())  # options are checked where they are used
    except (TypeError, ValueError, KeyError, LookupError, RuntimeError) as error:
        known = ", ".join(f"{family}({', '.join(_OPTIONS[family])})" for family in _FAMILIES)
        raise InputError(f"the options of the initialiser {name!r} do not fit: {error}. These take options: {known}") from error
    return fill


def fans(weight: Tensor) -> tuple[int, int]:
    """Returns (fan_in, fan_out) of a linear or ungrouped convolution weight (out, in, k...)."""
    field = math.prod(weight.shape[2:])
    return weight.shape[1] * field, weight.shape[0] * field


def _plain(fill: Callable[..., Tensor], *arguments: Option, **options: object) -> Fill:
    """Wraps a `torch.nn.init` function that does not care which activation follows."""
    return lambda weight, activation, generator: fill(weight, *arguments, generator=generator, **options)


def _orthogonal(weight: Tensor, activation: str, generator: torch.Generator | None) -> None:
    init.orthogonal_(weight, gain=_torch_gain(activation), generator=generator)


def _torch_gain(activation: str) -> float:
    """torch's recommended gain (5/3 tanh, sqrt(2) relu, 3/4 selu); 1 where torch names none."""
    name, _, option = activation.partition("(")
    try:
        return init.calculate_gain(name, float(option.rstrip(") ")) if option else None)  # type: ignore[arg-type]  # any name is tried
    except ValueError:
        return 1.0


def _scaling(scale: Option = 1.0, mode: Option = "fan_in", distribution: Option = "normal") -> Fill:
    def fill(weight: Tensor, activation: str, generator: torch.Generator | None) -> None:
        chosen = {"scale": float(scale), "mode": str(mode), "distribution": str(distribution)}
        variance_scaling_(weight, **chosen, fans=fans(weight), generator=generator)  # type: ignore[arg-type]

    return fill


def _delta_orthogonal(weight: Tensor, activation: str, generator: torch.Generator | None) -> None:
    """Xiao et al. 2018; a linear layer has no kernel to centre in and gets an orthogonal matrix."""
    fill_(weight, "orthogonal" if weight.dim() == 2 else "delta_orthogonal", fans=fans(weight), generator=generator)


def _constant(value: Option) -> Fill:
    return lambda weight, activation, generator: init.constant_(weight, float(value))


INITIALISERS: dict[str, Fill] = {
    "default": _plain(init.kaiming_uniform_, a=5**0.5),  # as nn.Linear.reset_parameters: U(+-1/sqrt(fan_in))
    "glorot_normal": _plain(init.xavier_normal_),  # Glorot & Bengio 2010, eq. 16
    "glorot_uniform": _plain(init.xavier_uniform_),
    "he_normal": _plain(init.kaiming_normal_, nonlinearity="relu"),  # He et al. 2015, eq. 10
    "he_uniform": _plain(init.kaiming_uniform_, nonlinearity="relu"),
    "lecun_normal": _plain(init.kaiming_normal_, nonlinearity="linear"),  # LeCun et al. 1998, sec. 4.6
    "lecun_uniform": _scaling(1.0, "fan_in", "uniform"),
    "orthogonal": _plain(init.orthogonal_),  # Saxe et al. 2014
    "orthogonal_gain": _orthogonal,
    "delta_orthogonal": _delta_orthogonal,
    "uniform_01": _plain(init.uniform_, 0.0, 1.0),
    "normal_001": _plain(init.normal_, 0.0, 0.01),
    "normal_1": _plain(init.normal_, 0.0, 1.0),
    "zeros": _constant(0.0),
}

_FAMILIES: dict[str, Callable[..., Fill]] = {
    "normal": lambda std: _plain(init.normal_, 0.0, std),
    "uniform": lambda low, high: _plain(init.uniform_, low, high),
    "constant": _constant,
    "variance_scaling": _scaling,
}
_OPTIONS = {
    "normal": ("std",),
    "uniform": ("low", "high"),
    "constant": ("value",),
    "variance_scaling": ("scale", "mode", "distribution"),
}
