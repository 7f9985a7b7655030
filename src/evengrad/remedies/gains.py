"""An activation -> the factor on the weights in front of it that keeps the signal's second moment."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from evengrad.errors import InputError, unknown

_REACH, _PANEL, _NODES = 12.0, 0.5, 20  # beyond 12 standard deviations lie 1e-33; kinks at multiples of a half fall between panels
_KNOWN = ("elu", "gelu", "leaky_relu", "mish", "relu", "selu", "sigmoid", "silu", "softplus", "softsign", "tanh")


def gain(activation: str | Callable[[Tensor], Tensor], **options: float) -> float:
    """Returns 1 / sqrt(E[phi(z)^2]) for z ~ N(0, 1): the factor on the weights that keeps the forward variance, for any activation.

    torch's `calculate_gain` knows five activations and gives tanh 5/3; this is the integral (tanh 1.5925, GELU 1.5335). It keeps the
    variance, it is not critical: for very deep tanh networks the gain is 1.

    Args:
        activation: A function of a tensor, a module, or its name in torch (`"gelu"`, `"tanh"`).
        **options: Options of the function, such as `negative_slope=0.2`.

    Raises:
        UnknownNameError: if torch has no such function.
        InputError: if the integral is zero or not finite.

    Example:
        >>> round(gain("relu"), 4)
        1.4142

    Reference: He et al. 2015, generalised; Gauss-Legendre quadrature in panels of half a standard deviation.
    """
    function = _function(activation) if isinstance(activation, str) else activation
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    starts = np.arange(-_REACH, _REACH, _PANEL)[:, None]
    points = (starts + (nodes + 1) * _PANEL / 2).ravel()
    density = np.tile(weights * _PANEL / 2, len(starts)) * np.exp(-(points**2) / 2) / math.sqrt(2 * math.pi)
    with torch.no_grad():
        values = function(torch.from_numpy(points).to(_dtype(function)), **options).double().numpy()
    second_moment = float(values**2 @ density)
    if not 0 < second_moment < math.inf:
        raise InputError(f"the activation has no second moment under a unit normal: E[phi(z)^2] = {second_moment}")
    return float(second_moment**-0.5)


def _dtype(function: object) -> torch.dtype:
    """A module computes in the precision of its parameters."""
    first = next(function.parameters(), None) if isinstance(function, nn.Module) else None
    return torch.float64 if first is None else first.dtype


def _function(name: str) -> Callable[..., Tensor]:
    for home in (nn.functional, torch, torch.special):
        found = getattr(home, name, None)
        if callable(found):
            return found  # type: ignore[no-any-return]
    raise unknown("activation", name, _KNOWN)
