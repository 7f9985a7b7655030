"""guard="warn": says that a step is bad, and changes nothing."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

from evengrad.monitor.guards.base import Guard, Situation
from evengrad.types import Event


@dataclass
class Warn(Guard):
    """Warns once (`warnings.warn`) when a gradient is not finite, and changes nothing."""

    name = "warn"

    def __post_init__(self) -> None:
        self._told = False

    def before(self, at: Situation) -> Event | None:
        if math.isfinite(at.norm) or self._told:
            return None
        self._told = True
        message = f"the gradients of step {at.step:,} are not finite; guard='skip' would leave such steps out"
        warnings.warn(message, RuntimeWarning, stacklevel=2)
        return Event(step=at.step, kind="warn", message=message)
