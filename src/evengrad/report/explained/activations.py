"""Name of an activation -> its curve, its derivative, where it is flat, and what it does to a signal; numpy only."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from evengrad.types import Series

FLAT = 0.05  # share of the largest |φ'| under which an element counts as saturated
_REACH, _POINTS, _STEP = 6.0, 241, 1e-5


def _sigmoid(x: Series) -> Series:
    out: Series = 0.5 * (1 + np.tanh(x / 2))  # overflows nowhere
    return out


def _softplus(x: Series) -> Series:
    out: Series = np.logaddexp(0.0, x)
    return out


def _erf(x: Series) -> Series:
    return np.array([math.erf(v) for v in x.ravel()]).reshape(x.shape)


def _elu(x: Series) -> Series:
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0.0)))


ACTIVATIONS: dict[str, Callable[[Series], Series]] = {
    "sigmoid": _sigmoid,
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0.0),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "elu": _elu,
    "selu": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(np.minimum(x, 0.0))),  # Klambauer et al. 2017
    "gelu": lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2))),
    "silu": lambda x: x * _sigmoid(x),
    "mish": lambda x: x * np.tanh(_softplus(x)),
    "softplus": _softplus,
    "softsign": lambda x: x / (1 + np.abs(x)),
    "erf": _erf,
    "hardtanh": lambda x: np.clip(x, -1.0, 1.0),
    "hardsigmoid": lambda x: np.clip(x / 6 + 0.5, 0.0, 1.0),
    "hardswish": lambda x: x * np.clip(x / 6 + 0.5, 0.0, 1.0),
    "relu6": lambda x: np.clip(x, 0.0, 6.0),
    "logsigmoid": lambda x: -_softplus(-x),
    "tanhshrink": lambda x: x - np.tanh(x),
    "softshrink": lambda x: np.sign(x) * np.maximum(np.abs(x) - 0.5, 0.0),
    "hardshrink": lambda x: np.where(np.abs(x) > 0.5, x, 0.0),
}


@dataclass(frozen=True, kw_only=True)
class Activation:
    """An activation as it is drawn.

    Attributes:
        name: Canonical name.
        x: Inputs (n,), evenly spaced from −6 to 6.
        value: φ(x) (n,).
        slope: φ'(x) (n,).
        flat: (from, to) of each stretch in which |φ'| is under 5% of its maximum.
        both: True if it is flat towards both sides: it saturates.
        gain: Factor of weights that keeps the variance of a signal of unit variance, 1 / RMS of φ.
        passes: By what one layer multiplies the gradient's RMS for inputs of unit variance and weights of that gain.
    """

    name: str
    x: Series
    value: Series
    slope: Series
    flat: tuple[tuple[float, float], ...]
    both: bool
    gain: float
    passes: float


def activation(name: str) -> Activation:
    """Works out what is drawn of an activation.

    Raises:
        KeyError: if it is not among `ACTIVATIONS`.
    """
    phi = ACTIVATIONS[name]
    x = np.linspace(-_REACH, _REACH, _POINTS)
    slope = derivative(phi, x)
    low = np.abs(slope) < FLAT * np.abs(slope).max()
    z, weight = gauss()
    gain = float((weight * phi(z) ** 2).sum() ** -0.5)
    passes = gain * float((weight * derivative(phi, z) ** 2).sum() ** 0.5)
    both = bool(low[0] and low[-1])
    return Activation(name=name, x=x, value=phi(x), slope=slope, flat=_stretches(x, low), both=both, gain=gain, passes=passes)


def derivative(phi: Callable[[Series], Series], x: Series) -> Series:
    """Returns φ' by central differences: to nine digits away from kinks."""
    step = _STEP * np.maximum(1.0, np.abs(x))
    out: Series = (phi(x + step) - phi(x - step)) / (2 * step)
    return out


def gauss(count: int = 2001, reach: float = 8.0) -> tuple[Series, Series]:
    """Returns points and weights of an average over a standard normal variable; even ones, since kinks spoil Gauss–Hermite."""
    z = np.linspace(-reach, reach, count)
    weight = np.exp(-(z**2) / 2)
    return z, weight / weight.sum()


def _stretches(x: Series, low: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> tuple[tuple[float, float], ...]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], low, [False]]).astype(np.int8)))
    return tuple((float(x[a]), float(x[b - 1])) for a, b in zip(edges[::2], edges[1::2], strict=True))
