"""A rig at some of its sampled steps -> what recurrent and attention rows do along a sequence."""

from __future__ import annotations

import numpy as np

from evengrad.errors import EvengradError
from evengrad.rig import Rig
from evengrad.trace.attention import attention
from evengrad.trace.batch import Batch
from evengrad.trace.through_time import BINS, through_time
from evengrad.types import Floats, Layer

_EVERY = 4  # sampled steps; each look is a pass of its own


class Sequences:
    """Measures gradients along time and attention's logits at every fourth sampled step; costs nothing where there is neither."""

    def __init__(self) -> None:
        self._looks: list[Floats | None] = []

    def see(self, rig: Rig, batch: Batch, layers: tuple[Layer, ...]) -> dict[str, Floats]:
        """Looks at one sampled step, and returns the columns (1, L) that attention has."""
        due = len(self._looks) % _EVERY == 0
        self._looks.append(None)
        if not due:
            return {}
        try:
            self._looks[-1] = through_time(rig.model, batch, rig.loss_fn, layers, rig.seed)
            return {name: column[None] for name, column in attention(rig.model, batch, layers, rig.seed).items()}
        except EvengradError:
            return {}  # a model that the pass of a step can run with, and one more cannot: nothing is said of it

    def planes(self, steps: int, rows: int) -> dict[str, Floats]:
        """Returns the plane `grad_through_time` (S, L, 32), NaN where it was not measured; empty where nothing is recurrent."""
        if all(look is None for look in self._looks):
            return {}
        plane = np.full((steps, rows, BINS), np.nan, np.float32)
        for index, look in enumerate(self._looks):
            if look is not None:
                plane[index] = look
        return {"grad_through_time": plane}
