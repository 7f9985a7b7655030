"""numbers -> a trace with them in it: what rules' examples and tests are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from evengrad.types import Curve, Facts, Floats, Layer, Run, Trace


def chain(
    depth: int,
    *,
    width: int = 64,
    steps: int = 1,
    facts: Facts | None = None,
    layer: dict[str, Any] | None = None,
    **columns: npt.ArrayLike,
) -> Trace:
    """Builds the trace of `depth` equal linear layers on one trunk.

    Args:
        depth: Number of layers L.
        width: Units a layer.
        steps: Number of sampled steps S.
        facts: Direct evidence.
        layer: Fields that every layer gets, such as `{"activation": "relu"}`.
        **columns: Values of a column: a number, (L,) or (S, L).
    """
    layers = tuple(_layer(i, width, layer or {}) for i in range(depth))
    filled = {name: _column(value, steps, depth) for name, value in columns.items()}
    run = Run(name="synthetic", model="Sequential", parameters=depth * width * (width + 1), samples=128)
    return Trace(run=run, layers=layers, facts=facts or Facts(mode="train"), steps=np.arange(steps, dtype=np.int64), columns=filled)


def run(trace: Trace, planes: Mapping[str, npt.ArrayLike] | None = None, /, **curves: npt.ArrayLike) -> Trace:
    """Returns the trace with curves, each with a value at steps 0, 1, 2 ... (a pair is steps and values), and with planes (S, L, K)."""
    made = {}
    for name, given in curves.items():
        steps, values = given if isinstance(given, tuple) else (np.arange(len(np.asarray(given))), given)
        made[name] = Curve(np.asarray(steps, np.int64), np.asarray(values, np.float64))
    return replace(trace, curves=trace.curves | made, planes={k: np.asarray(v, np.float32) for k, v in (planes or {}).items()})


def geometric(depth: int, gain: float, *, last: float = 1e-3) -> Floats:
    """Returns (L,) values that are multiplied by `gain` from each layer to the one below it, ending in `last` at the output."""
    return (last * np.float64(gain) ** np.arange(depth - 1, -1, -1)).astype(np.float32)


def _layer(i: int, width: int, fields: dict[str, Any]) -> Layer:
    base: dict[str, Any] = {"kind": "linear", "group": 0, "trunk": 0, "fan_in": width, "fan_out": width, "activation": "tanh"}
    base |= {"parameters": width * (width + 1), "activation_module": str(2 * i + 1), "bias": f"{2 * i}.bias"}
    return Layer(**{**base, "name": str(2 * i), "depth": i + 1, "weight": f"{2 * i}.weight", **fields})


def _column(value: npt.ArrayLike, steps: int, depth: int) -> Floats:
    return np.array(np.broadcast_to(np.asarray(value, np.float32), (steps, depth)))
