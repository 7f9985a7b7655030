"""Curves -> how training went: the way that the loss made, and whether it still makes any."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evengrad.types import Series, Trace

MIN_STEPS = 20  # fewer losses are no curve


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a loss came, each number a mean over a twentieth of the run.

    Attributes:
        start: At the beginning.
        best: The lowest.
        end: At the end; infinite if the last losses are not finite.
        reference: What to beat: the loss of the best constant answer where it is known, or the start if that is lower.
        learnt: Share of the reference that is gone at the end: 0 has learnt nothing, 1 everything; negative is worse than at first.
    """

    start: float
    best: float
    end: float
    reference: float
    learnt: float

    @property
    def thrives(self) -> bool:
        """True if at least half of the loss is gone and it has not come back: what is odd about the network does it no harm."""
        return self.learnt >= 0.5


def progress(trace: Trace) -> Progress | None:
    """Returns how far the loss came, or None where it was not seen for long enough."""
    loss = trace.curves.get("loss")
    if loss is None or len(loss.values) < MIN_STEPS:
        return None
    means = smoothed(loss.values)
    finite = means[np.isfinite(means)]
    if not len(finite):
        return None
    start, best, end = float(finite[0]), float(finite.min()), float(means[-1])
    end = end if np.isfinite(end) else np.inf
    baseline = (trace.facts.loss or {}).get("baseline")
    reference = min(start, baseline) if baseline is not None and baseline > 0 else start
    learnt = 1.0 - end / reference if reference > 0 else float(np.sign(start - end))
    return Progress(start=start, best=best, end=end, reference=reference, learnt=learnt)


def thrives(trace: Trace) -> bool:
    """True if the loss was seen and training went well."""
    found = progress(trace)
    return found is not None and found.thrives


def smoothed(values: Series, parts: int = 20) -> Series:
    """Returns the means of equal parts of a curve, float64 (parts,)."""
    return np.array([part.mean() for part in np.array_split(values, min(parts, len(values)))])
