"""GEN001: validation gets worse while training goes on improving."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule
from evengrad.rules.over_time import seen_over
from evengrad.signals.curves import mode_gap, progress, smoothed
from evengrad.types import Evidence, Facts, Finding, Trace

_LATE = 3  # evaluations at the end whose median counts


@dataclass(frozen=True, kw_only=True)
class Overfitting(Rule):
    """The network learns the training samples by heart: on others its loss has passed its lowest point and climbs.

    Cross-entropy climbs early because answers grow confident; as long as as many of them are right, that is told as a note.

    Attributes:
        max_rise: Largest healthy rise of the validation loss above its lowest, as a share of the constant answer's loss.
        max_growth: Largest healthy validation loss at the end, in its lowest.
        max_accuracy_gap: Largest healthy difference between training and validation accuracy, in [0, 1].
        min_evaluations: Evaluations on validation data before it is judged.

    Reference: Prechelt 1998, Early stopping: but when?; Guo et al. 2017, On calibration of modern neural networks.
    """

    code: ClassVar[str] = "GEN001"
    symptom: ClassVar[str | None] = "overfitting"
    title: ClassVar[str] = "validation gets worse while training improves"
    causes: ClassVar[tuple[str, ...]] = ("labels_corrupt",)
    needs: ClassVar[tuple[str, ...]] = ("curves.loss", "curves.val_loss")
    signal: ClassVar[tuple[str, str]] = ("validation_rise", "of the constant answer's loss")
    helps: ClassVar[str] = "stop at the lowest validation loss and keep those weights; weight decay, dropout, augmentation, more samples"
    max_rise: float = 0.25
    max_growth: float = 1.5
    max_accuracy_gap: float = 0.2
    min_evaluations: int = 8

    def check(self, trace: Trace) -> Iterator[Finding]:
        found, rise = progress(trace), self.value(trace)
        values, steps = trace.curves["val_loss"].values, trace.curves["val_loss"].steps
        if found is None or not np.isfinite(rise) or len(values) < self.min_evaluations or rise <= self.max_rise:
            return
        if mode_gap(trace) > self.max_rise:
            return  # evaluation mode is at fault (GEN003, NRM003)
        end, lowest = float(np.median(values[-_LATE:])), float(np.nanmin(values))
        at, train = int(np.nanargmin(values)), float(smoothed(trace.curves["loss"].values)[-1])
        if end < self.max_growth * lowest or train > 0.5 * end or at > len(values) - _LATE - 1:
            return
        name, unit = self.signal
        evidence = Evidence(
            signal=name, value=rise, relation=">", threshold=self.max_rise, unit=unit, where="validation", step=int(steps[-1])
        )
        gap = self._accuracy_gap(trace)
        answers = f"; {gap:.0%} fewer answers are right than in training" if np.isfinite(gap) else ""
        message = (
            f"the validation loss rises from {lowest:.3g} at step {int(steps[at]):,} to {end:.3g} "
            f"while the training loss falls to {train:.3g}{answers}"
        )
        severity = "note" if gap <= self.max_accuracy_gap else "warning"
        yield seen_over(self, trace, severity, message, evidence, first=int(steps[at]), where=("validation",))

    def value(self, trace: Trace) -> float:
        found, curve = progress(trace), trace.curves.get("val_loss")
        if found is None or curve is None or not np.isfinite(curve.values[-_LATE:]).all() or not found.reference:
            return np.nan
        return float((np.median(curve.values[-_LATE:]) - np.nanmin(curve.values)) / abs(found.reference))

    def _accuracy_gap(self, trace: Trace) -> float:
        """Training less validation accuracy at the end; NaN where there are no classes."""
        train, other = trace.curves.get("accuracy"), trace.curves.get("val_accuracy")
        if train is None or other is None or not len(train.values) or not len(other.values):
            return np.nan
        return float(np.mean(train.values[-10:]) - np.median(other.values[-_LATE:]))

    @classmethod
    def examples(cls) -> Examples:
        steps, at = np.arange(320), np.arange(0, 320, 20)
        loss = 0.01 + 2.29 * np.exp(-steps / 30)

        def net(rise: float, train: float, other: float) -> Trace:
            base = synthetic.chain(3, facts=Facts(loss={"baseline": 2.3, "value": 2.3}))
            validation = 0.5 + 1.8 * np.exp(-at / 20) + rise * np.linspace(0, 1, 16)
            return synthetic.run(
                base, loss=loss, val_loss=(at, validation), accuracy=(at, at * 0 + train), val_accuracy=(at, at * 0 + other)
            )

        return Examples(
            sick=(net(1.5, 1.0, 0.7), net(3.0, 1.0, 0.9)),
            healthy=(net(0.4, 1.0, 0.9), net(0.0, 1.0, 0.9)),
        )
