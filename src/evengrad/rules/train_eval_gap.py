"""GEN003: the same batch and weights lose otherwise in training mode than in evaluation mode."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule
from evengrad.rules.over_time import seen_over
from evengrad.signals.curves import progress
from evengrad.types import Evidence, Facts, Finding, Series, Trace

_LATE = 6  # evaluations at the end whose median counts: running statistics need the first steps to settle


@dataclass(frozen=True, kw_only=True)
class TrainEvalGap(Rule):
    """Training and evaluation run two different networks: dropout takes most units away, or a layer acts otherwise in each mode.

    Dropout makes the loss in training larger by design; past `max_dropout_gap` it takes more than the network can learn with. Batch norms
    whose statistics are off have a rule of their own (NRM003).

    Attributes:
        max_gap: Largest healthy extra loss in evaluation mode, as a share of the constant answer's loss.
        max_dropout_gap: Largest healthy extra loss in training mode, as a share of the constant answer's loss.

    Reference: Srivastava et al. 2014, Dropout, fig. 9; Ben Braiek & Khomh 2022, TheDeepChecker (switch of modes).
    """

    code: ClassVar[str] = "GEN003"
    symptom: ClassVar[str | None] = "train_eval_gap"
    title: ClassVar[str] = "training and evaluation mode differ"
    causes: ClassVar[tuple[str, ...]] = ("over_regularized", "bn_stats")
    needs: ClassVar[tuple[str, ...]] = ("curves.loss", "curves.eval_loss")
    signal: ClassVar[tuple[str, str]] = ("mode_gap", "of the constant answer's loss")
    helps: ClassVar[str] = (
        "dropout of 0.5 or less, none before the head; nothing that draws random numbers or depends on the batch in eval()"
    )
    max_gap: float = 0.25
    max_dropout_gap: float = 0.2

    def check(self, trace: Trace) -> Iterator[Finding]:
        gaps, found = self._gaps(trace), progress(trace)
        if found is None or len(gaps) < _LATE:
            return
        gap = float(np.median(gaps[-_LATE:]))
        norms = any("BatchNorm" in str(n.get("kind")) for n in (trace.facts.modules or {}).get("norms", ()))
        name, unit = self.signal
        if gap > self.max_gap and not norms and (gaps[-_LATE:] > 0).all():
            evidence = Evidence(signal=name, value=gap, relation=">", threshold=self.max_gap, unit=unit, where="loss")
            message = f"the same batch loses {gap:.0%} of a constant answer's loss more in evaluation mode than in training mode"
            severity, cause = "warning", None
        elif -gap > self.max_dropout_gap and (gaps[-_LATE:] < 0).all():
            evidence = Evidence(signal=name, value=gap, relation="<", threshold=-self.max_dropout_gap, unit=unit, where="loss")
            most = max((float(d.get("p") or 0) for d in (trace.facts.modules or {}).get("dropouts", ())), default=0.0)
            what = f": dropout takes {most:.0%} of the units away" if most else ""
            message = f"the same batch loses {-gap:.0%} of a constant answer's loss more in training mode than in evaluation mode{what}"
            severity, cause = "note" if found.thrives and most <= 0.5 else "warning", "over_regularized" if most > 0.5 else None
        else:
            return
        first = int(trace.curves["eval_loss"].steps[-_LATE])
        yield seen_over(self, trace, severity, message, evidence, first=first, cause=cause)

    def value(self, trace: Trace) -> float:
        gaps = self._gaps(trace)
        return float(np.median(gaps[-_LATE:])) if len(gaps) else np.nan

    def _gaps(self, trace: Trace) -> Series:
        """Evaluation less training loss of the same batch at each evaluation, as a share of the loss to beat."""
        found, loss, evaluated = progress(trace), trace.curves.get("loss"), trace.curves.get("eval_loss")
        if found is None or loss is None or evaluated is None or not found.reference:
            return np.zeros(0)
        _, mine, theirs = np.intersect1d(loss.steps, evaluated.steps, return_indices=True)
        gaps = (evaluated.values[theirs] - loss.values[mine]) / abs(found.reference)
        out: Series = gaps[np.isfinite(gaps)]
        return out

    @classmethod
    def examples(cls) -> Examples:
        steps, at = np.arange(320), np.arange(0, 320, 20)
        loss = 0.6 + 1.7 * np.exp(-steps / 40)

        def net(gap: float, p: float = 0.0, level: float = 0.0) -> Trace:
            modules = {"norms": [], "dropouts": [{"name": "1", "p": p, "training": True}]}
            base = synthetic.chain(3, facts=Facts(loss={"baseline": 2.3, "value": 2.3}, modules=modules))
            return synthetic.run(base, loss=loss + level, eval_loss=(at, loss[at] + level + gap))

        return Examples(sick=(net(1.0), net(-0.6, 0.9, 1.0)), healthy=(net(0.3), net(-0.3, 0.5), net(0.0)))
