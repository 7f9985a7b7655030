"""Trace -> how far a step moves each layer, relative to its weights."""

from __future__ import annotations

import numpy as np

from evengrad.types import Series, Trace


def update_ratio(trace: Trace) -> Series:
    """Returns L2 norm of the true change of a layer's weights over the norm of the weights, float64 (S, L), without dimension.

    NaN where no step was seen or the weights are exactly zero, since a ratio to zero says nothing of the step. About 1e-3 is usual
    (Karpathy 2022, the spelled-out intro to neural networks, part 3).
    """
    moved, size = (trace.column(name).astype(np.float64) for name in ("update_norm", "weight_norm"))
    with np.errstate(invalid="ignore"):  # infinity over infinity is NaN, and meant so
        out: Series = np.divide(moved, size, out=np.full(moved.shape, np.nan), where=size > 0)
    return out
