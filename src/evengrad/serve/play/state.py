"""What a page asks for -> a checked state: data, network, training; every state is a link."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from evengrad.errors import InputError, unknown

CHOICES: dict[str, tuple[str, ...]] = {
    "data": ("two_circles", "moons", "spirals", "blobs"),
    "activation": ("tanh", "relu", "sigmoid", "leaky_relu", "elu", "selu", "gelu", "silu", "mish", "linear"),
    "initialiser": (
        *("glorot_normal", "glorot_uniform", "he_normal", "he_uniform", "lecun_normal", "orthogonal", "default"),
        *("uniform_01", "normal_001", "normal_1", "constant(0.1)", "zeros"),
    ),
    "norm": ("none", "batch", "layer", "rms"),
    "optimizer": ("sgd", "momentum", "rmsprop", "adam", "adamw"),
}
RANGES: dict[str, tuple[float, float]] = {
    "depth": (1, 60),
    "width": (1, 256),
    "scale": (0.01, 100.0),
    "rate": (1e-9, 1000.0),
    "clip": (0.0, 100.0),
    "batch": (1, 500),
    "samples": (4, 500),
    "seed": (0, 9999),
}


@dataclass(frozen=True, kw_only=True)
class State:
    """A network and its training, as chosen on the page.

    Attributes:
        data: Points in the plane.
        samples: Points to train on.
        depth: Hidden layers.
        width: Units of each.
        activation: Behind each hidden layer.
        initialiser: Of the weights.
        scale: Factor on the hidden layers' weights.
        norm: Before each activation.
        residual: Each hidden layer that keeps the width is added to its input.
        optimizer: How a step is made of the gradient.
        rate: Learning rate.
        clip: Largest norm of the whole gradient; 0 does not clip.
        batch: Samples a batch.
        seed: Of weights, data order and repairs.
        fix: Summary of the change that was applied, or "".
    """

    data: str = "two_circles"
    samples: int = 500
    depth: int = 10
    width: int = 16
    activation: str = "tanh"
    initialiser: str = "glorot_normal"
    scale: float = 1.0
    norm: str = "none"
    residual: bool = False
    optimizer: str = "momentum"
    rate: float = 0.05
    clip: float = 0.0
    batch: int = 32
    seed: int = 0
    fix: str = ""

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """Checks what a page sent; what it left out has its default.

        Raises:
            InputError: for a name that there is not, or a number out of its range.
        """
        checked: dict[str, Any] = {f.name: _checked(f.name, f.default, given[f.name]) for f in fields(cls) if f.name in given}
        return cls(**checked)


def _checked(name: str, default: object, value: object) -> object:
    if name in CHOICES:
        if value not in CHOICES[name]:
            raise unknown(name, str(value)[:60], CHOICES[name])
        return value
    if isinstance(default, bool):
        return bool(value)
    if isinstance(default, str):
        return str(value)[:200]
    low, high = RANGES[name]
    if not isinstance(value, int | float) or not math.isfinite(value) or not low <= value <= high:
        raise InputError(f"{name} must be a number from {low:g} to {high:g}; got {str(value)[:60]}")
    return int(value) if isinstance(default, int) else float(value)
