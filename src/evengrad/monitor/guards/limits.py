"""guard=result.guard: holds a training within what `fix` saw a repaired one do."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from evengrad.monitor.guards.base import Norms, Situation
from evengrad.monitor.guards.clip import Clip
from evengrad.types import Event, Series, Trace

_DEVIATIONS = 3.0


@dataclass
class Limits(Clip):
    """Clips the global L2 norm at a threshold, and holds the rate of every group under a limit.

    Attributes:
        max_lr: Largest rate that any group may have; None leaves rates alone.

    Reference: Pascanu, Mikolov & Bengio 2013.
    """

    name = "limits"
    max_lr: float | None = None

    def before(self, at: Situation) -> Event | None:
        event = super().before(at)
        groups = at.optimizer.param_groups
        if self.max_lr is None or all(group["lr"] <= self.max_lr for group in groups):
            return event
        largest = max(float(group["lr"]) for group in groups)
        for group in groups:
            group["lr"] = min(group["lr"], self.max_lr)
        return event or Event(step=at.step, kind="rate", message=f"rate {largest:.3g} held at {self.max_lr:.3g} at step {at.step:,}")


def learned(trace: Trace) -> Limits:
    """Returns the limits that a training kept to: the norm three robust deviations above its median, and its largest rate."""
    norms, rates = Norms(), trace.curves.get("lr")
    for norm in _norms(trace):
        norms.add(float(norm))
    limit = norms.limit(_DEVIATIONS)
    return Limits(
        threshold=limit if math.isfinite(limit) else None,
        max_lr=float(rates.values.max()) if rates is not None and len(rates.values) else None,
    )


def _norms(trace: Trace) -> Series:
    """The norm of all gradients before clipping at each sampled step."""
    curve = trace.curves.get("grad_norm")
    if curve is not None:
        return curve.values
    name = "grad_raw_norm" if "grad_raw_norm" in trace.columns else "grad_norm"
    values: Series = np.sqrt(np.nansum(np.square(trace.column(name), dtype=np.float64), axis=1))
    return values
