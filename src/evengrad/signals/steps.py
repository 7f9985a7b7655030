"""Trace -> how large steps are over a run: updates beside weights, and what a schedule does to the rate."""

from __future__ import annotations

import warnings

import numpy as np

from evengrad.signals.updates import update_ratio
from evengrad.types import Curve, Series, Steps, Trace

TINY_RATE = 1e-3  # of the largest so far: a rate below it has stopped


def step_ratio(trace: Trace) -> tuple[Steps, Series]:
    """Returns sampled steps (S,) and the median over layers that moved of update over weight norm (S,); 0 where none moved."""
    ratio = update_ratio(trace)
    moved = np.where(ratio > 0, ratio, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a step that moved nothing has no median
        out: Series = np.where(np.isnan(moved).all(1), np.where(np.isnan(ratio).all(1), np.nan, 0.0), np.nanmedian(moved, 1))
    return trace.steps, out


def usual_ratio(trace: Trace, first: int = 0, last: int | None = None) -> float | None:
    """Returns the median of `step_ratio` from one step to another, or None where no step was seen."""
    steps, ratio = step_ratio(trace)
    inside = ratio[(steps >= first) & (steps <= (steps[-1] if last is None else last)) & np.isfinite(ratio)] if len(steps) else ratio
    return float(np.median(inside)) if len(inside) else None


def rates(trace: Trace) -> Curve | None:
    """Returns the learning rate where it was seen at two steps or more."""
    found = trace.curves.get("lr")
    return found if found is not None and len(found.values) > 1 and np.isfinite(found.values).all() else None


def stopped_at(trace: Trace) -> int | None:
    """Returns the step from which on the rate is below a thousandth of its largest, or None where it is not."""
    rate = rates(trace)
    if rate is None or rate.values.max() <= 0:
        return None
    late = rate.values[len(rate.values) // 2 :]
    if len(late) >= 5 and late.min() > 0:  # a rate that falls by the same factor at each step tells where it will be
        factors = np.diff(np.log(late)) / np.diff(rate.steps[-len(late) :])
        if factors.max() < 0 and np.ptp(factors) < 1e-3 * abs(factors[-1]):
            return int(rate.steps[-1] + np.log(TINY_RATE * rate.values.max() / late[-1]) / factors[-1])
    alive = np.flatnonzero(rate.values > TINY_RATE * rate.values.max())
    return int(rate.steps[alive[-1] + 1]) if alive[-1] + 1 < len(rate.values) else None


def rose_by(trace: Trace, step: int) -> float:
    """Returns how many times larger the rate is at a step than the largest within the first tenth of the run; 1 where it was not seen.

    A warm-up does not count: it rises in that tenth.
    """
    rate = rates(trace)
    if rate is None:
        return 1.0
    early = rate.values[: max(2, len(rate.values) // 10)].max()
    seen = rate.values[rate.steps <= step]
    return float(seen[-1] / early) if len(seen) and early > 0 else 1.0


def warmed_up_at(trace: Trace) -> int:
    """Returns the first step at which the rate has half of its largest value: what comes before says nothing of the training."""
    rate = rates(trace)
    return 0 if rate is None else int(rate.steps[int(np.argmax(rate.values >= 0.5 * rate.values.max()))])
