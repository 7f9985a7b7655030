"""DAT003: labels are constant, out of range, or belong to other inputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule
from evengrad.signals.curves import baseline, progress
from evengrad.types import Evidence, Facts, Finding, Trace

_IGNORED = -100  # torch's default ignore_index


@dataclass(frozen=True, kw_only=True)
class Labels(Rule):
    """Targets say nothing of the inputs: one value for all, values that no output stands for, or those of other samples.

    Labels that were shuffled, or shifted by a row, are told by near inputs: in nearly every task a sample's nearest neighbour has its
    label more often than chance. Some tasks are not like that (parity, long sequences), so it is told only where validation does not
    improve either, or, without validation, where nothing is learnt.

    Attributes:
        min_samples: Fewest samples that tell anything.
        max_deviations: Largest distance from chance, in standard errors, at which near inputs have unlike labels.
        min_improvement: Share of the best constant answer's loss by which validation improves on it in a run that is well.
        max_learnt: Share of the training loss that is gone in a run that learns nothing.

    Reference: Cover & Hart 1967; Zhang, Bengio, Hardt, Recht & Vinyals 2017 (random labels are learnt by heart).
    """

    code: ClassVar[str] = "DAT003"
    symptom: ClassVar[str | None] = None
    title: ClassVar[str] = "labels do not belong to the inputs"
    causes: ClassVar[tuple[str, ...]] = ("labels_corrupt",)
    needs: ClassVar[tuple[str, ...]] = ("facts.targets",)
    signal: ClassVar[tuple[str, str]] = ("neighbour_deviations", "standard errors")
    helps: ClassVar[str] = "look at a few inputs beside their labels; shuffle both in one order; count the classes"
    min_samples: int = 128
    max_deviations: float = 3.0
    min_improvement: float = 0.1
    max_learnt: float = 0.1

    def check(self, trace: Trace) -> Iterator[Finding]:
        found = self._constant(trace) or self._outside(trace) or self._unrelated(trace)
        if found is not None:
            severity, message, evidence = found
            made = self.finding(trace, severity, message, evidence=(evidence,), where=("targets",), at=(0, len(trace.steps) - 1))
            yield replace(made, cause="labels_corrupt")

    def value(self, trace: Trace) -> float:
        """Standard errors between the agreement of near inputs and chance; how many distinct targets, where that was not looked at."""
        targets = trace.facts.targets or {}
        if "neighbour_error" in targets:
            return float((targets["neighbour_agreement"] - targets["neighbour_chance"]) / targets["neighbour_error"])
        return float(len(targets.get("labels", ())))

    def _constant(self, trace: Trace) -> tuple[str, str, Evidence] | None:
        targets = trace.facts.targets or {}
        count, labels = int(targets.get("samples", 0)), targets.get("labels")
        same = len(labels) == 1 if labels is not None else targets.get("std") == 0.0
        if count < self.min_samples or not same:
            return None
        message = f"all {count:,} targets that were looked at are {float(targets['min']):.4g}: there is nothing to learn"
        return "error", message, Evidence(signal="distinct_targets", value=1, relation="<", threshold=2, unit="values", where="targets")

    def _outside(self, trace: Trace) -> tuple[str, str, Evidence] | None:
        """Labels that no output stands for."""
        width, labels = int((trace.facts.head or {}).get("width", 0)), (trace.facts.targets or {}).get("labels")
        shape = (trace.facts.head or {}).get("shape", ())
        if (trace.facts.loss or {}).get("op") not in {"cross_entropy", "nll"} or not labels or width < 2 or len(shape) != 2:
            return None
        odd = [int(k) for k in labels if int(k) != _IGNORED and not 0 <= int(k) < width]
        if not odd:
            return None
        worst = max(odd, key=abs)
        message = (
            f"label {worst} is none of the {width} classes 0 to {width - 1} ({sum(labels[str(k)] for k in odd)} samples are like this)"
        )
        return "error", message, Evidence(signal="odd_labels", value=len(odd), relation=">", threshold=0, unit="labels", where="targets")

    def _unrelated(self, trace: Trace) -> tuple[str, str, Evidence] | None:
        """Labels that are no more like those of near inputs than chance has it."""
        targets, ran = trace.facts.targets or {}, progress(trace)
        if "neighbour_error" not in targets or int(targets.get("samples", 0)) < self.min_samples or ran is None:
            return None
        deviations = self.value(trace)
        improved = _improvement(trace)
        if deviations > self.max_deviations or not np.isfinite(ran.end):
            return None
        if ran.learnt > self.max_learnt if improved is None else improved > self.min_improvement:
            return None
        sequence = len((trace.facts.inputs or {}).get("shape", (0, 0))) == 3
        sure = ran.learnt > 0.3 or not sequence
        agreement, chance = targets["neighbour_agreement"], targets["neighbour_chance"]
        seen = "nothing is learnt" if improved is None else f"validation is {improved:.0%} better than the best constant answer"
        message = f"nearest inputs agree in their targets by {agreement:.2f}, chance gives {chance:.2f}: they are unrelated; {seen}"
        evidence = Evidence(
            signal="neighbour_deviations",
            value=deviations,
            relation="<=",
            threshold=self.max_deviations,
            unit="standard errors",
            where="targets",
        )
        return "warning" if sure else "note", message, evidence

    @classmethod
    def examples(cls) -> Examples:
        def net(agreement: float, *, val: float | None = 1.1, learnt: float = 0.0, **facts: Any) -> Trace:
            targets = {"dtype": "int64", "shape": [64], "samples": 1024, "min": 0.0, "max": 2.0, "labels": {"0": 340, "1": 340, "2": 344}}
            targets |= {"neighbour_agreement": agreement, "neighbour_chance": 0.33, "neighbour_error": 0.015, **facts}
            head = {"width": 3, "shape": [64, 3]}
            made = synthetic.chain(3, facts=Facts(targets=targets, head=head, loss={"op": "cross_entropy", "baseline": 1.1}))
            seen = {} if val is None else {"val_loss": (np.arange(0, 40, 5), np.linspace(1.1, val, 8))}
            return synthetic.run(made, loss=np.linspace(1.1, 1.1 * (1 - learnt), 40), **seen)

        return Examples(
            sick=(
                net(0.34),
                net(0.36, val=3.0, learnt=0.9),  # learnt by heart
                net(0.34, val=None),
                net(1.0, labels={"1": 1024}, min=1.0, max=1.0),
                net(0.9, labels={"1": 500, "3": 524}, min=1.0, max=3.0),
            ),
            healthy=(net(0.4), net(0.34, val=0.9), net(0.34, val=None, learnt=0.2), net(0.9, labels={"1": 500, "-100": 524})),
        )


def _improvement(trace: Trace) -> float | None:
    """Share of the best constant answer's loss that validation comes below it at its best; None without validation."""
    seen, constant = trace.curves.get("val_loss"), baseline(trace)
    if seen is None or not len(seen.values):
        return None
    finite = seen.values[np.isfinite(seen.values)]
    if not len(finite):
        return None
    reference = float(seen.values[0]) if constant is None else constant
    return float(1.0 - finite.min() / reference) if reference > 0 else None
