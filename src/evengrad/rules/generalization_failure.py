"""GEN002: training goes well and validation stays at chance."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
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
class GeneralizationFailure(Rule):
    """On data that it has not seen the network is no better than a constant answer, though it learns what it is trained on.

    Then labels belong to other inputs, or the two sets were prepared in different ways. Where the training batch itself loses as much in
    evaluation mode, the mode is at fault and not the data (GEN003, NRM003).

    Attributes:
        min_train_learnt: Share of the constant answer's loss that training took away, in [0, 1].
        min_val_learnt: Smallest healthy share that is gone on validation data at its lowest.
        max_chance_errors: Standard errors by which validation accuracy is above the commonest class's share and still counts as chance.

    Reference: Zhang et al. 2017, Understanding deep learning requires rethinking generalization.
    """

    code: ClassVar[str] = "GEN002"
    symptom: ClassVar[str | None] = "generalization_failure"
    title: ClassVar[str] = "what is learnt does not carry over to validation data"
    causes: ClassVar[tuple[str, ...]] = ("labels_corrupt", "bn_stats", "input_not_normalized")
    needs: ClassVar[tuple[str, ...]] = ("curves.loss", "curves.val_loss")
    signal: ClassVar[tuple[str, str]] = ("validation_learnt", "of the constant answer's loss")
    helps: ClassVar[str] = "look at twenty samples with their labels as the network gets them, of both sets; prepare both in one function"
    min_train_learnt: float = 0.15
    min_val_learnt: float = 0.05
    max_chance_errors: float = 3.0

    def check(self, trace: Trace) -> Iterator[Finding]:
        found, value = progress(trace), self.value(trace)
        curve, loss = trace.curves["val_loss"], trace.curves["loss"]
        if found is None or not np.isfinite(found.end) or not value < self.min_val_learnt or len(curve.values) < 2 * _LATE:
            return
        gained = (found.reference - float(smoothed(loss.values)[-1])) / abs(found.reference)
        if gained < self.min_train_learnt or not found.sound or mode_gap(trace) > 0.25 * gained or self._above_chance(trace):
            return
        lowest, name, unit = float(np.nanmin(curve.values)), *self.signal
        evidence = Evidence(signal=name, value=value, relation="<", threshold=self.min_val_learnt, unit=unit, where="validation")
        message = (
            f"training took {gained:.0%} of the loss away, but on validation data it is {lowest:.3g} at its lowest: "
            f"no better than the {found.reference:.3g} of a constant answer"
        )
        severity = "error" if gained >= 0.5 else "warning"
        swapped = gained >= 0.5 and self._below_chance(trace)
        message += "; and it gets fewer right than chance does: its labels mean something else" if swapped else ""
        cause = "labels_corrupt" if swapped else None
        yield seen_over(self, trace, severity, message, evidence, first=int(curve.steps[0]), where=("validation",), cause=cause)

    def value(self, trace: Trace) -> float:
        found, curve = progress(trace), trace.curves.get("val_loss")
        if found is None or curve is None or not np.isfinite(curve.values).all() or not found.reference:
            return np.nan
        return float((found.reference - curve.values.min()) / abs(found.reference))

    def _above_chance(self, trace: Trace) -> bool:
        """True if validation answers are right more often than the commonest class's share allows by chance (of 500 samples)."""
        right, chance, error = _answers(trace, lambda counts: max(counts) / sum(counts))
        return right > chance + self.max_chance_errors * error

    def _below_chance(self, trace: Trace) -> bool:
        """True if validation answers are right less often than guesses are: who knows nothing is not wrong each time."""
        right, chance, error = _answers(trace, lambda counts: 1 / len(counts))
        return right < chance - 2 * self.max_chance_errors * error

    @classmethod
    def examples(cls) -> Examples:
        steps, at = np.arange(320), np.arange(0, 320, 20)
        base = synthetic.chain(3, facts=Facts(loss={"baseline": 2.3, "value": 2.3}))
        loss = 0.01 + 2.29 * np.exp(-steps / 60)
        good = 0.5 + 1.8 * np.exp(-at / 20)
        return Examples(
            sick=(
                synthetic.run(base, loss=loss, val_loss=(at, 2.3 + at / 100)),
                synthetic.run(base, loss=loss, val_loss=(at, 2.25 + 0 * at), eval_loss=(at, loss[at])),
            ),
            healthy=(
                synthetic.run(base, loss=loss, val_loss=(at, good)),
                synthetic.run(base, loss=loss, val_loss=(at, good + at / 100)),  # overfits
                synthetic.run(base, loss=2.3 + 0 * loss, val_loss=(at, 2.3 + 0 * at)),  # stuck
                synthetic.run(base, loss=loss, val_loss=(at, 2.3 + at / 100), eval_loss=(at, 2.3 + at / 100)),  # mode
            ),
        )


def _answers(trace: Trace, chance: Callable[[list[int]], float]) -> tuple[float, float, float]:
    """Shares of validation answers that are right, and that are by chance, with its standard error of 500 samples; NaN where not known."""
    curve, counts = trace.curves.get("val_accuracy"), (trace.facts.targets or {}).get("labels")
    if curve is None or not len(curve.values) or not counts:
        return math.nan, math.nan, math.nan
    share = chance(list(counts.values()))
    return float(np.median(curve.values[-_LATE:])), share, math.sqrt(share * (1 - share) / 500)
