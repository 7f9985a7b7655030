"""Trace -> how the gradient changes along time: what the first steps of a sequence get of what the last ones get."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from evengrad.signals.curves import progress
from evengrad.types import Series, Steps, Trace

PLANE = "grad_through_time"
_SMALLEST = -45.0  # decades: what single precision holds ends there, and what is below is exactly zero


@dataclass(frozen=True, kw_only=True)
class ThroughTime:
    """The gradient along time of one row at one sampled step.

    Attributes:
        row: Index of the row.
        index: Number of the sampled step.
        lost: Decades from the largest gradient at any time down to that at the first steps; 0 if it is largest there.
        gained: Decades along a line from the last steps up to the first; 0 where no line fits.
        steps: Steps of a sequence: exact up to 32, at least 32 beyond.
        vanished: True if the first steps get exactly zero.
    """

    row: int
    index: int
    lost: float
    gained: float
    steps: int
    vanished: bool = False


def looks(trace: Trace) -> Steps:
    """Returns the numbers of the sampled steps at which gradients along time were measured."""
    plane = trace.planes.get(PLANE)
    return np.zeros(0, np.int64) if plane is None else np.flatnonzero(np.isfinite(plane).any((1, 2))).astype(np.int64)


def along_time(trace: Trace, index: int) -> Iterator[ThroughTime]:
    """Yields each recurrent row's change along time at sampled step number `index`; rows that get nothing at all are left out."""
    plane = trace.planes[PLANE][index].astype(np.float64)
    for row in np.flatnonzero(np.isfinite(plane).all(1) & (plane > 0).any(1)):
        yield _measured(plane[row], int(row), index)


def worst_lost(trace: Trace, index: int) -> ThroughTime | None:
    """Returns the row whose first steps get least."""
    return max(along_time(trace, index), key=lambda x: x.lost, default=None)


def worst_gained(trace: Trace, index: int) -> ThroughTime | None:
    """Returns the row whose first steps get most."""
    return max(along_time(trace, index), key=lambda x: x.gained, default=None)


def is_stuck(trace: Trace, share: float) -> bool | None:
    """True if less than `share` of what can be learnt is at the end; None where the loss was not seen for long enough."""
    found = progress(trace)
    return None if found is None else bool(found.learnt < share * max(found.learnable, 0.4))


def _measured(profile: Series, row: int, index: int) -> ThroughTime:
    with np.errstate(divide="ignore"):
        logs = np.maximum(np.log10(profile), _SMALLEST)
    return ThroughTime(
        row=row,
        index=index,
        lost=float(logs.max() - logs[0]),
        gained=_gained(profile, logs),
        steps=1 + int(np.count_nonzero(np.diff(profile))),
        vanished=bool(profile[0] == 0),
    )


def _gained(profile: Series, logs: Series) -> float:
    """Decades along a line through the stretches that get a gradient, if it explains most: padding and masks make steps, not lines."""
    seen = np.flatnonzero(profile > 0)
    if len(seen) < len(profile) // 2 or seen[0] != 0:
        return 0.0
    x, y = seen - seen.mean(), logs[seen] - logs[seen].mean()
    slope = float(x @ y) / float(x @ x)
    left, all_of_it = float(np.sum((y - slope * x) ** 2)), float(y @ y)
    fits = all_of_it > 0 and 1.0 - left / all_of_it >= 0.8
    return max(0.0, -slope * float(seen[-1] - seen[0])) if fits else 0.0
