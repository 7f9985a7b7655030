"""Trace -> probability that some learning rate trains this network, from signals before the first step."""

from __future__ import annotations

import json
import math
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from evengrad.signals.depth import slopes
from evengrad.types import Series, Trace

FEATURES = ("gradient_decades", "spread_decades", "gradient_size", "log_depth", "sample_share", "flat")
_LIMIT = 20.0  # decades; what lies beyond is as hopeless
_LOSSES = {"CrossEntropyLoss", "cross_entropy"}


def trainability(trace: Trace) -> float | None:
    """Returns the probability that some rate in {1e-1 ... 1e-4} reaches 90% of the best score on this data within the calibration budget.

    It judges the network before training, not the user's rate. A logistic regression (degree 2) on six signals, fitted to 1,600
    networks that were really trained and judged on others: see benchmarks/README.md.

    Returns:
        A number in [0, 1]; None outside what was calibrated: plain networks of linear layers with one hidden activation out of tanh,
        ReLU, SELU, GELU and logistic, 16 to 64 wide, up to 100 deep, without norm or skip, classified by cross-entropy, at step 0.
    """
    found = features(trace) if is_calibrated(trace) else None
    if found is None:
        return None
    fit = _fit()
    x = (np.array([found[name] for name in FEATURES]) - fit["mean"]) / fit["scale"]
    return float(1.0 / (1.0 + math.exp(-min(500.0, max(-500.0, float(expand(x) @ fit["weights"]) + fit["bias"])))))


def is_calibrated(trace: Trace) -> bool:
    """True if the network is of the kind that the prediction was fitted and tested on."""
    rows = [layer for layer in trace.layers if layer.depth is not None]
    limits = _fit()["limits"]
    return (
        len(trace.steps) > 0
        and int(trace.steps[0]) == 0
        and len(rows) == len(trace.layers)
        and 2 <= len(rows) <= limits["depth"] + 1
        and all(x.kind == "linear" and not x.residual and x.norm == "none" for x in rows)
        and len({x.activation for x in rows[:-1]}) == 1
        and rows[0].activation in limits["activations"]
        and all(limits["width"][0] <= x.fan_out <= limits["width"][1] for x in rows[:-1])
        and (trace.facts.loss or {}).get("name") in _LOSSES
    )


def features(trace: Trace) -> dict[str, float] | None:
    """Returns what the prediction rests on, or None where a signal is missing.

    `gradient_decades` and `spread_decades` are the absolute total changes along depth, `gradient_size` is |log10| of the sum of
    squared weight gradients, `sample_share` is log10 of the share of the output that differs between samples, negated: all four as
    log(1 + decades). `log_depth` is log10 of the number of hidden layers; `flat` is the largest share of saturated elements or dead
    units in a layer.
    """
    deep = [i for i, layer in enumerate(trace.layers) if layer.depth is not None]
    grad = trace.column("grad_norm" if "grad_raw_norm" not in trace.columns else "grad_raw_norm")[0][deep].astype(np.float64)
    spread, rms = (trace.column(name)[0][deep].astype(np.float64) for name in ("out_spread", "out_rms"))
    if len(deep) < 2 or np.isnan(spread).all():
        return None
    lost = [_changed(trace, column) for column in ("grad_out_norm", "out_spread")]
    total, share = float(np.nansum(grad[:-1] ** 2)), float(spread[-1] / rms[-1]) if 0 < rms[-1] < math.inf else 0.0
    sizes = [abs(math.log10(total)) if 0 < total < math.inf else _LIMIT, -math.log10(share) if 0 < share < math.inf else _LIMIT]
    flat = [float(np.nanmax(trace.column(name)[0][deep], initial=0.0)) for name in ("saturated_fraction", "dead_fraction")]
    if any(np.isinf(trace.column(name)[0]).any() for name in ("out_abs_max", "grad_out_abs_max", "grad_abs_max")):
        lost, sizes, flat = [_LIMIT, _LIMIT], [_LIMIT, _LIMIT], [1.0]
    gradient, signal, size, sample = (math.log1p(min(_LIMIT, max(0.0, v))) for v in (*lost, *sizes))
    return dict(zip(FEATURES, (gradient, signal, size, math.log10(len(deep) - 1), sample, max(flat)), strict=True))


def expand(x: Series) -> Series:
    """Returns (..., 27) for (..., 6): the features, and their products of degree 2."""
    pairs = [x[..., i] * x[..., j] for i in range(x.shape[-1]) for j in range(i, x.shape[-1])]
    return np.concatenate((x, np.stack(pairs, -1)), -1)


def _changed(trace: Trace, column: str) -> float:
    found = slopes(trace, column)
    if any(s.zero_rows for s in found) or (not found and len(trace.layers) > 3):
        return _LIMIT
    return max((abs(s.total) for s in found), default=0.0)


@cache
def _fit() -> dict[str, Any]:
    """What `benchmarks/trainability/calibrate.py` fitted."""
    raw: dict[str, Any] = json.loads(resources.files("evengrad.signals").joinpath("trainability.json").read_text())
    return raw | {name: np.array(raw[name]) for name in ("mean", "scale", "weights")}
