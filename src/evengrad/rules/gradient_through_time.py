"""ARC005: the gradient does not reach the first steps of a sequence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule, names
from evengrad.signals.through_time import PLANE, ThroughTime, is_stuck, looks, worst_lost
from evengrad.signals.updates import update_ratio
from evengrad.types import Evidence, Finding, Trace


@dataclass(frozen=True, kw_only=True)
class GradientThroughTime(Rule):
    """On its way back through a sequence the gradient loses decades, and the loss does not fall: what is long ago is not learnt.

    Before training this is usual and no fault: an LSTM as torch makes it loses a decade in six steps, and learns whatever needs no
    longer memory; while it learns, the gradient reaches further. So the last look of a training decides, and only where less than half
    of the loss is gone. Sequences of a few steps are not judged: what vanishes there has another cause than their length.

    Attributes:
        max_lost_decades: Largest healthy loss between the time that gets most and the first steps, in decades.
        error_decades: Loss from which it is an error.
        min_steps: Shortest sequence that is judged.
        max_learnt: Share of the loss that must be gone for a training to count as learning.
        note_decades: Loss before training from which it is worth a note.

    Reference: Hochreiter 1991; Bengio, Simard & Frasconi 1994; Pascanu, Mikolov & Bengio 2013, https://arxiv.org/abs/1211.5063.
    """

    code: ClassVar[str] = "ARC005"
    symptom: ClassVar[str | None] = "vanishing_gradient"
    title: ClassVar[str] = "the gradient vanishes through time"
    causes: ClassVar[tuple[str, ...]] = ("long_memory", "bad_init_small", "bad_hidden_activation", "input_not_normalized")
    needs: ClassVar[tuple[str, ...]] = (f"planes.{PLANE}",)
    signal: ClassVar[tuple[str, str]] = ("lost_decades", "decades through time")
    helps: ClassVar[str] = (
        "an LSTM or GRU in place of a plain RNN; a forget-gate bias of 1 or more; orthogonal hidden weights; shorter sequences; attention"
    )
    max_lost_decades: float = 3.0
    error_decades: float = 6.0
    min_steps: int = 20
    max_learnt: float = 0.5
    note_decades: float = 12.0

    def check(self, trace: Trace) -> Iterator[Finding]:
        seen = looks(trace)
        worst = self._worst(trace, int(seen[-1])) if len(seen) else None
        stuck = is_stuck(trace, self.max_learnt)
        limit = self.note_decades if stuck is None else self.max_lost_decades
        if worst is None or stuck is False or worst.lost <= limit:
            return
        severity = "note" if stuck is None else "error" if worst.lost >= self.error_decades else "warning"
        first = next(int(i) for i in seen if (look := self._worst(trace, int(i))) is not None and look.lost > limit)
        where = names(trace, [worst.row])
        unit = "decades through time"
        evidence = Evidence(signal="lost_decades", value=worst.lost, relation=">", threshold=limit, unit=unit, where=where[0])
        message = self._message(trace, worst)
        found = self.finding(trace, severity, message, evidence=(evidence,), where=where, at=(first, worst.index))
        yield replace(found, cause="long_memory") if stuck and self._only_too_long(trace, worst, int(seen[0])) else found

    def value(self, trace: Trace) -> float:
        seen = looks(trace)
        worst = self._worst(trace, int(seen[-1])) if len(seen) else None
        return float("nan") if worst is None else worst.lost

    def _worst(self, trace: Trace, index: int) -> ThroughTime | None:
        found = worst_lost(trace, index)
        return found if found is not None and found.steps >= self.min_steps else None

    def _only_too_long(self, trace: Trace, worst: ThroughTime, first: int) -> bool:
        """True if it was so from the start, and steps were neither too small to learn anything nor so large that they spoil weights."""
        begun = self._worst(trace, first)
        ratio = update_ratio(trace)[:, worst.row]
        ratio = ratio[np.isfinite(ratio)]
        sound = not len(ratio) or 1e-5 < float(np.median(ratio)) < 0.1
        return begun is not None and begun.lost > self.max_lost_decades and sound

    def _message(self, trace: Trace, worst: ThroughTime) -> str:
        name = trace.layers[worst.row].name
        steps = f"{worst.steps}" if worst.steps < 32 else "32 or more"
        share = "exactly zero" if worst.vanished else f"{10.0**-worst.lost:.1e}"
        text = f"the gradient loses {worst.lost:.1f} decades through time in {name}: of {steps} steps, the first"
        return f"{text} get {share}{'' if worst.vanished else ' of the largest'}"

    @classmethod
    def examples(cls) -> Examples:
        stuck, fallen = np.linspace(1.8, 1.75, 200), np.geomspace(1.8, 0.05, 200)

        def net(lost: float, loss: Any, *, steps: int = 32, update: float = 1e-3) -> Trace:
            trace = synthetic.chain(2, steps=2, layer={"kind": "rnn"}, update_norm=update, weight_norm=1.0)
            profile = np.repeat(10.0 ** np.linspace(-lost, 0, steps), 32 // steps)
            plane = np.stack([profile * 0.1, np.full(32, np.nan)])
            return synthetic.run(trace, {PLANE: np.stack([plane, plane])}, **({} if loss is None else {"loss": loss}))

        return Examples(
            sick=(net(9.0, stuck), net(3.5, stuck), net(13.0, None), net(45.0, stuck)),
            healthy=(
                net(2.5, stuck),  # near miss
                net(9.0, fallen),  # what it learns needs no long memory
                net(9.0, stuck, steps=16),  # too short for its length to be the cause
                net(8.0, None),  # an LSTM before training, over fifty steps
            ),
        )
