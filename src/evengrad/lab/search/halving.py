"""Metrics of runs at a rung, beside all that were there before -> who goes on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from evengrad.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Halving:
    """Stops a run whose metric at a rung is not among the best `kept` of all that reached it so far.

    Attributes:
        kept: Share that goes on, in (0, 1].
        rungs: Shares of the training at which to compare, ascending, in (0, 1); each at the end of an epoch.
        least: Metrics a rung must have before anyone is stopped by it.

    Reference: Jamieson & Talwalkar 2016; Li et al. 2020 (asynchronous successive halving).
    """

    kept: float = 0.5
    rungs: tuple[float, ...] = (0.125, 0.25, 0.5)
    least: int = 5

    def __post_init__(self) -> None:
        if not 0 < self.kept <= 1 or not all(0 < r < 1 for r in self.rungs) or list(self.rungs) != sorted(set(self.rungs)):
            raise InputError(f"halving needs kept in (0, 1] and ascending rungs in (0, 1); got kept={self.kept}, rungs={self.rungs}")

    def epochs(self, epochs: int) -> tuple[int, ...]:
        """Returns after how many epochs of so many the rungs are."""
        return tuple(sorted({max(1, round(share * epochs)) for share in self.rungs} - {epochs}))

    def bar(self, metrics: Sequence[float], maximize: bool) -> float:
        """Returns the metric that a run must have to go on; what is not finite is the worst."""
        worst = -math.inf if maximize else math.inf
        if len(metrics) < self.least:
            return worst
        best_first = sorted((m if math.isfinite(m) else worst for m in metrics), reverse=maximize)
        return best_first[math.ceil(self.kept * len(best_first)) - 1]
