"""guard="stop": ends the training before a bad step is taken."""

from __future__ import annotations

import math
from dataclasses import dataclass

from evengrad.monitor.guards.base import Guard, Situation
from evengrad.types import Event


@dataclass
class Stop(Guard):
    """Ends the training at the first step whose gradients are not finite; the weights are those of the last good step.

    `optimizer.step()` raises `TrainingStoppedError`; inside `with eg.watch(...)` the block just ends.
    """

    name = "stop"

    def before(self, at: Situation) -> Event | None:
        if math.isfinite(at.norm):
            return None
        at.drop()
        return Event(step=at.step, kind="stop", message=f"training stopped before step {at.step:,}: its gradients are not finite")
