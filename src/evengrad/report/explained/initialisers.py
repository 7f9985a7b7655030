"""An initialiser and an activation -> the signal and the gradient by depth, by mean-field theory; numpy only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from evengrad.report.explained.activations import ACTIVATIONS, derivative, gauss
from evengrad.types import Series

DEPTH, WIDTH = 30, 256
DRAWN = ("sigmoid", "tanh", "relu", "gelu", "selu")


@dataclass(frozen=True, kw_only=True)
class Initialiser:
    """A way to draw weights, in a network of equal widths.

    Attributes:
        name: Its name as `eg.initialize_` or the field has it.
        variance: Variance of a weight times fan_in.
        formula: Variance of a weight, in words.
        made_for: What it is made for, or who uses it.
    """

    name: str
    variance: float
    formula: str
    made_for: str


INITIALISERS = (
    Initialiser(name="glorot", variance=1.0, formula="2 / (fan_in + fan_out)", made_for="tanh, softsign (Glorot & Bengio 2010)"),
    Initialiser(name="he", variance=2.0, formula="2 / fan_in", made_for="ReLU and what resembles it (He et al. 2015)"),
    Initialiser(name="lecun", variance=1.0, formula="1 / fan_in", made_for="SELU (LeCun et al. 1998, Klambauer et al. 2017)"),
    Initialiser(
        name="orthogonal",
        variance=1.0,
        formula="1 / fan_in, rows at right angles",
        made_for="deep linear and tanh networks, of which each layer keeps every length (Saxe et al. 2014)",
    ),
    Initialiser(
        name="torch default",
        variance=1.0 / 3.0,
        formula="1 / (3 fan_in)",
        made_for="what nn.Linear does if nobody asks: kaiming_uniform_ with a = √5",
    ),
    Initialiser(name="normal, 0.01", variance=1e-4 * WIDTH, formula="0.0001", made_for="an old habit; too small for a deep network"),
    Initialiser(name="normal, 1", variance=float(WIDTH), formula="1", made_for="a usual mistake; far too large"),
)


@dataclass(frozen=True, kw_only=True)
class ByDepth:
    """What theory expects of one activation under one initialiser.

    Attributes:
        activation: Its name.
        spread: Standard deviation over the batch of what each layer puts out (depth,), relative to the first layer's.
        gradient: RMS of the gradient that reaches each layer (depth,), relative to the last.
    """

    activation: str
    spread: Series
    gradient: Series


def by_depth(initialiser: Initialiser, activation: str, depth: int = DEPTH) -> ByDepth:
    """Follows two inputs that are unrelated, and the gradient, through `depth` wide layers without biases.

    Poole et al. 2016 (the variance and the correlation from layer to layer), Schoenholz et al. 2017 (the gradient).
    """
    phi = ACTIVATIONS[activation]
    size, apart = initialiser.variance, 1.0  # unit inputs: variance of a unit, and one minus the correlation of two inputs
    spread, factors = [], []
    for _ in range(depth):
        spread.append(np.sqrt(size * apart))
        z, weight = gauss(801)
        factors.append(initialiser.variance * float((weight * derivative(phi, np.sqrt(size) * z) ** 2).sum()))
        size, apart = _next(phi, initialiser.variance, size, apart)
    gradient = np.concatenate([np.cumprod(np.array(factors[:-1][::-1]))[::-1], [1.0]]) ** 0.5
    return ByDepth(activation=activation, spread=np.array(spread) / spread[0], gradient=gradient)


def _next(phi: Callable[[Series], Series], variance: float, size: float, apart: float) -> tuple[float, float]:
    """The next layer's variance and one minus correlation: half the mean squared difference, which stays exact where the two come close."""
    z, weight = gauss(81, 5.0)
    common, own = np.sqrt(size * max(0.0, 1 - apart / 2)) * z, np.sqrt(size * apart / 2) * z  # u = common + own, v = common - own
    both = weight[:, None] * weight[None]
    up, down = phi(common[:, None] + own[None]), phi(common[:, None] - own[None])
    second, difference = float((both * (up**2 + down**2)).sum()) / 2, float((both * (up - down) ** 2).sum())
    return max(variance * second, 1e-300), min(1.0, max(difference / 2 / max(second, 1e-300), 1e-30))
