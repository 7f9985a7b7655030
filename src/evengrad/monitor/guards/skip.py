"""guard="skip": leaves bad steps out."""

from __future__ import annotations

import math
from dataclasses import dataclass

from evengrad.monitor.guards.base import Guard, Situation
from evengrad.types import Event


@dataclass
class Skip(Guard):
    """Leaves a step out whose gradients are not finite, or far beyond what is usual in this run.

    The optimizer sees no gradient at all at such a step: weights, momentum and counts of steps stay as they are. Finding out costs one
    synchronisation a step on a GPU. A level that lasts is no accident: after `patience` finite steps left out in a row the next is taken.

    Attributes:
        deviations: Robust standard deviations of log10 norms above the median from which a finite step is left out, too.
        patience: Finite steps left out in a row before one is taken all the same.
    """

    name = "skip"
    deviations: float = 8.0
    patience: int = 5

    def __post_init__(self) -> None:
        self._row = 0

    def before(self, at: Situation) -> Event | None:
        limit = at.norms.limit(self.deviations)
        if at.norm <= limit or (math.isfinite(at.norm) and self._row >= self.patience):
            if at.norm > limit:
                at.norms.values.clear()  # a new level: learn anew
            self._row = 0
            return None
        self._row += 1
        at.drop()
        why = f"gradient norm {at.norm:.3g} above {limit:.3g}" if math.isfinite(at.norm) else "gradients that are not finite"
        return Event(step=at.step, kind="skip", message=f"step {at.step:,} was left out: {why}")
