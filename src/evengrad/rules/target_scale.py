"""DAT002: targets of a regression are far from the scale on which networks start."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule
from evengrad.signals.curves import progress
from evengrad.types import Evidence, Facts, Finding, Trace

_HUGE = 100.0  # deviations or offsets from which little is left to luck
_LIGHT = 0.01  # a term that counts less is scaled down already
_NUMBERS = {"mse", "l1", "smooth_l1"}


@dataclass(frozen=True, kw_only=True)
class TargetScale(Rule):
    """Targets are so large, so small or so far from zero that the output has to travel, or the loss's gradient is huge or tiny.

    A fresh network answers within about one of zero. Targets of deviation s make the gradient of a squared error s times as large, and
    a mean far from zero is learnt by the last bias first, one rate at a time.

    Attributes:
        max_scale: Largest healthy standard deviation of the targets, in their own unit.
        min_scale: Smallest healthy standard deviation of the targets.
        max_offset: Largest healthy |mean| of the targets, in their own unit.
        min_learnt: Share of the best constant answer's loss that is gone in a run that suffers no harm.
        min_learnt_huge: The same for targets in the hundreds and thousands.

    Reference: LeCun, Bottou, Orr & Müller 1998, Efficient BackProp, sec. 4.5.
    """

    code: ClassVar[str] = "DAT002"
    symptom: ClassVar[str | None] = None
    title: ClassVar[str] = "targets are not scaled"
    causes: ClassVar[tuple[str, ...]] = ("target_not_scaled",)
    needs: ClassVar[tuple[str, ...]] = ("facts.targets", "facts.loss")
    signal: ClassVar[tuple[str, str]] = ("target_scale", "in the target's unit")
    helps: ClassVar[str] = "subtract the targets' mean and divide by their standard deviation; undo it on the predictions"
    max_scale: float = 10.0
    min_scale: float = 0.02
    max_offset: float = 10.0
    min_learnt: float = 0.9
    min_learnt_huge: float = 0.97

    def check(self, trace: Trace) -> Iterator[Finding]:
        found = next(((part, seen) for part in _parts(trace) if (seen := self._evidence(*part)) is not None), None)
        if found is None:
            return
        (targets, _), evidence = found
        mean, std = float(targets["mean"]), float(targets["std"])
        span = f"from {float(targets['min']):.4g} to {float(targets['max']):.4g}"
        message = f"targets are not scaled: mean {mean:.3g}, standard deviation {std:.3g}, {span}"
        ran = progress(trace)
        huge = evidence.value >= _HUGE
        drowns = huge and len((trace.facts.loss or {}).get("terms") or ()) > 1  # the other tasks, of which the loss then says nothing
        well = ran is not None and ran.learnt >= (self.min_learnt_huge if huge else self.min_learnt)
        severity = "note" if well and not drowns else "warning"
        made = self.finding(trace, severity, message, evidence=(evidence,), where=("targets",), at=(0, len(trace.steps) - 1))
        yield replace(made, cause="target_not_scaled")

    def value(self, trace: Trace) -> float:
        return float((trace.facts.targets or {}).get("std", np.nan))

    def _evidence(self, targets: dict[str, Any], op: str) -> Evidence | None:
        """The number that is out of range."""
        mean, std = float(targets.get("mean", np.nan)), float(targets.get("std", np.nan))
        numbers = op in _NUMBERS or (op == "other" and "float" in str(targets.get("dtype")))
        if not numbers or not std > 0:
            return None
        if std > self.max_scale:
            return Evidence(signal="target_scale", value=std, relation=">", threshold=self.max_scale, where="targets")
        if abs(mean) > self.max_offset:
            return Evidence(signal="target_offset", value=abs(mean), relation=">", threshold=self.max_offset, where="targets")
        if std < self.min_scale:
            return Evidence(signal="target_scale", value=std, relation="<", threshold=self.min_scale, where="targets")
        return None

    @classmethod
    def examples(cls) -> Examples:
        def targets(mean: float, std: float, *, op: str = "mse", dtype: str = "float32", **curves: Any) -> Trace:
            facts = {"dtype": dtype, "shape": [128, 1], "mean": mean, "std": std, "min": mean - 2 * std, "max": mean + 2 * std}
            return synthetic.run(synthetic.chain(3, facts=Facts(targets=facts, loss={"op": op})), **curves)

        def tasks(std: float, weight: float = 1.0) -> Trace:
            made = targets(2000.0, 1500.0, op="cross_entropy", loss=1e6 * np.exp(-np.arange(40.0)))
            label = {"op": "cross_entropy", "weight": 1.0, "dtype": "int64", "min": 0.0, "max": 5.0, "mean": 2.5, "std": 1.7}
            number = {"op": "mse", "weight": weight, "dtype": "float32", "min": -std, "max": std, "mean": 0.0, "std": std}
            return replace(made, facts=replace(made.facts, loss={"op": "cross_entropy", "terms": [label, number]}))

        stuck = np.full(40, 1.0)
        return Examples(
            sick=(
                *(targets(152.0, 77.0), targets(0.0, 11.0, loss=stuck), targets(-300.0, 1.0), targets(0.0, 0.01)),  # diabetes as it is
                tasks(1500.0),
            ),
            healthy=(
                *(targets(2.1, 1.15), targets(0.0, 9.0), targets(9.0, 1.0), targets(0.5, 0.03), targets(50.0, 30.0, op="cross_entropy")),
                *(tasks(1.0), tasks(1500.0, 1e-3)),
            ),
        )


def _parts(trace: Trace) -> list[tuple[dict[str, Any], str]]:
    """Targets and the loss that takes them; of several tasks each by itself, where that is known."""
    loss = trace.facts.loss or {}
    terms = [(term, str(term["op"])) for term in loss.get("terms") or () if abs(float(term["weight"])) > _LIGHT]
    return terms or [(trace.facts.targets or {}, str(loss.get("op", "other")))]
