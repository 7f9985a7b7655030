"""Trace -> probability that some learning rate trains this network, from signals before the first step."""

from __future__ import annotations

import math

import numpy as np

from evengrad.signals.depth import slopes
from evengrad.types import Trace

FEATURES = ("gradient_decades", "spread_decades", "gradient_size", "log_depth", "sample_share", "flat")


def features(trace: Trace) -> dict[str, float] | None:
    """Returns what the prediction rests on, or None where a signal is missing.

    `gradient_decades` and `spread_decades` are the absolute total changes along depth; `gradient_size` is |log10| of the sum of
    squared weight gradients; `sample_share` is log10 of the share of the output that differs between samples, at most 0; `flat` is
    the largest share of saturated elements or dead units in a layer.
    """
    deep = [i for i, layer in enumerate(trace.layers) if layer.depth is not None]
    grad = trace.column("grad_norm" if "grad_raw_norm" not in trace.columns else "grad_raw_norm")[0][deep].astype(np.float64)
    spread, rms = (trace.column(name)[0][deep].astype(np.float64) for name in ("out_spread", "out_rms"))
    if len(deep) < 2 or np.isnan(spread).all():
        return None
    if any(np.isinf(trace.column(name)[0]).any() for name in ("out_abs_max", "grad_out_abs_max", "grad_abs_max")):
        return dict.fromkeys(FEATURES, _LIMIT) | {"log_depth": math.log10(len(deep) - 1), "sample_share": -_LIMIT, "flat": 1.0}
    total = float(np.nansum(grad[:-1] ** 2))
    share = spread[-1] / rms[-1] if rms[-1] > 0 else 0.0
    flat = [np.nanmax(trace.column(name)[0][deep], initial=0.0) for name in ("saturated_fraction", "dead_fraction")]
    return {
        "gradient_decades": _lost(trace, "grad_out_norm"),
        "spread_decades": _lost(trace, "out_spread"),
        "gradient_size": _clip(abs(math.log10(total))) if 0 < total < math.inf else _LIMIT,
        "log_depth": math.log10(len(deep) - 1),
        "sample_share": max(-_LIMIT, min(0.0, math.log10(share))) if 0 < share < math.inf else -_LIMIT,
        "flat": float(max(flat)),
    }


_LIMIT = 20.0  # decades; what lies beyond is as hopeless


def _lost(trace: Trace, column: str) -> float:
    found = slopes(trace, column)
    values = trace.column(column)[0]
    if any(s.zero_rows for s in found) or np.isinf(values).any() or (not found and len(trace.layers) > 3):
        return _LIMIT
    return _clip(max((abs(s.total) for s in found), default=0.0))


def _clip(value: float) -> float:
    return min(_LIMIT, value)


def trainability(trace: Trace) -> float | None:
    """Placeholder until calibrated."""
    return None
