"""declaration -> nn.Module."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import init

from evengrad.errors import InputError, unknown

_Fill = Callable[[Tensor, str, torch.Generator | None], object]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "sigmoid": nn.Sigmoid,
}

NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm1d,
    "layer": nn.LayerNorm,
}


def mlp(
    sizes: Sequence[int],
    activation: str = "relu",
    initialiser: str = "default",
    *,
    norm: str = "none",
    seed: int | None = None,
) -> nn.Sequential:
    """Builds a plain multilayer perceptron: Linear, (norm,) activation, ..., Linear.

    The weights are drawn layer by layer from one generator, so that a seed names a network and two
    initialisers of one family differ only by scale under one seed. Biases are zero, except under
    `default`, which is torch's own draw for `nn.Linear`, number for number.

    Args:
        sizes: Widths from the input to the output; n + 2 of them make n hidden layers.
        activation: A key of `ACTIVATIONS`, placed after every layer but the last.
        initialiser: A key of `INITIALISERS`.
        norm: `none`, `batch` or `layer`, placed before each activation.
        seed: Seeds a generator of its own and leaves the global one alone; None draws from the global one.

    Raises:
        InputError: `sizes` has fewer than two members, or one below 1.
        UnknownNameError: A name is not known; the nearest one is offered.

    Example:
        >>> mlp([2, 16, 16, 2], "tanh", "glorot_normal", seed=0)(torch.zeros(8, 2)).shape
        torch.Size([8, 2])
    """
    if len(sizes) < 2 or min(sizes) < 1:
        raise InputError(f"sizes must be two or more widths of at least 1, got {list(sizes)}; write [inputs, hidden..., outputs]")
    _require("activation", activation, ACTIVATIONS)
    _require("initialiser", initialiser, INITIALISERS)
    _require("norm", norm, ("none", *NORMS))
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    modules: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        modules.append(_linear(fan_in, fan_out, activation, initialiser, generator))
        modules += [NORMS[norm](fan_out)] if norm != "none" else []
        modules.append(ACTIVATIONS[activation]())
    trunk = len(modules) - (1 if norm == "none" else 2)  # the head has neither norm nor activation
    return nn.Sequential(*modules[:trunk])


def _require(kind: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        raise unknown(kind, name, known)


def _linear(fan_in: int, fan_out: int, activation: str, initialiser: str, generator: torch.Generator | None) -> nn.Linear:
    layer = nn.Linear(fan_in, fan_out, device="meta").to_empty(device="cpu")  # "meta" draws nothing from the global RNG
    INITIALISERS[initialiser](layer.weight, activation, generator)
    if initialiser == "default":
        init.uniform_(layer.bias, -(fan_in**-0.5), fan_in**-0.5, generator=generator)
    else:
        init.zeros_(layer.bias)
    return layer


def _orthogonal(weight: Tensor, activation: str, generator: torch.Generator | None) -> None:
    init.orthogonal_(weight, gain=_torch_gain(activation), generator=generator)


def _torch_gain(activation: str) -> float:
    """torch's recommended gain (5/3 tanh, sqrt(2) relu, 3/4 selu); 1 where torch names none."""
    try:
        return init.calculate_gain(activation)  # type: ignore[arg-type]  # any name is tried
    except ValueError:
        return 1.0


def _plain(fill: Callable[..., Tensor], *arguments: float, **options: object) -> _Fill:
    """Wraps a `torch.nn.init` function that does not care which activation follows."""
    return lambda weight, activation, generator: fill(weight, *arguments, generator=generator, **options)


INITIALISERS: dict[str, _Fill] = {
    "default": _plain(init.kaiming_uniform_, a=5**0.5),  # as nn.Linear.reset_parameters: U(+-1/sqrt(fan_in))
    "glorot_normal": _plain(init.xavier_normal_),  # Glorot & Bengio 2010, eq. 16
    "glorot_uniform": _plain(init.xavier_uniform_),
    "he_normal": _plain(init.kaiming_normal_, nonlinearity="relu"),  # He et al. 2015, eq. 10
    "he_uniform": _plain(init.kaiming_uniform_, nonlinearity="relu"),
    "lecun_normal": _plain(init.kaiming_normal_, nonlinearity="linear"),  # LeCun et al. 1998, sec. 4.6
    "orthogonal": _plain(init.orthogonal_),  # Saxe et al. 2014
    "orthogonal_gain": _orthogonal,
    "uniform_01": _plain(init.uniform_, 0.0, 1.0),
    "normal_001": _plain(init.normal_, 0.0, 0.01),
    "normal_1": _plain(init.normal_, 0.0, 1.0),
}
