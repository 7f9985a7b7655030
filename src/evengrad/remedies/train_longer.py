"""train_longer: more passes over the data, with the schedule stretched over them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from evengrad.remedies import base
from evengrad.remedies.base import Remedy, Undo
from evengrad.remedies.pacing import paced
from evengrad.rig import Rig
from evengrad.types import Finding, Proposal, Trace


@dataclass(frozen=True, kw_only=True)
class TrainLonger(Remedy):
    """Multiplies the number of epochs; a schedule takes as much longer, so that it ends where it did.

    Attributes:
        steps: Fewest steps that the first proposal comes to; a run of a dozen needs more than a few dozen.
        factor: Smallest factor of the first proposal, and that by which the second one is larger.
        most: Steps up to which there is a second one: sixteen times a long training is no repair.

    Reference: Hoffer, Hubara & Soudry 2017, Train longer, generalize better, https://arxiv.org/abs/1705.08741.
    """

    name: ClassVar[str] = "train_longer"
    title: ClassVar[str] = "more epochs"
    causes: ClassVar[tuple[str, ...]] = ("undertrained",)
    change: ClassVar[int] = base.LOOP
    diagnostic: ClassVar[bool] = False
    shows_at_once: ClassVar[bool] = False
    steps: int = 500
    factor: int = 4
    most: int = 3000

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        epochs, steps = (int((trace.facts.loop or {}).get(k) or 0) for k in ("epochs", "steps"))
        least = max(self.factor, math.ceil(self.steps / steps)) if steps else self.factor
        for factor in [f for f in (least, self.factor * least) if f == least or f * steps <= self.most] if epochs else ():
            yield Proposal(
                remedy=self.name,
                options={"factor": factor},
                cause="undertrained",
                summary=f"train_longer {epochs} -> {epochs * factor} epochs",
                code=f"-epochs={epochs}\n+epochs={epochs * factor}",
                risk=f"takes {factor} times as long",
            )

    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        factor, epochs = int(proposal.options["factor"]), rig.epochs
        undo_pace = paced(rig, 1 / factor)
        rig.epochs = epochs * factor

        def undo() -> None:
            rig.epochs = epochs
            undo_pace()

        return undo
