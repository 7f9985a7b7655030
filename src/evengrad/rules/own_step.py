"""OPT018: a step of one's own gives the loss something else than the batch, or loses what it has learnt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule
from evengrad.signals.curves import thrives
from evengrad.types import Evidence, Facts, Finding, Trace


@dataclass(frozen=True, kw_only=True)
class OwnStep(Rule):
    """A step in place of the standard one pairs samples with others' targets, asks about one of them, or rounds what it keeps.

    Two of its steps run again, looked at from outside (`trace.step_probe`): what the loss is called with, and what numbers the gradients
    and the optimizer hold. It is looked at where training goes badly.

    Attributes:
        max_mismatched: Largest healthy share of samples that get another one's target, in [0, 1].
        min_asked: Smallest healthy share of the batch that the loss is asked about.
        max_rounded: Largest healthy share of the optimizer's numbers that need no more bits than float16 has, in [0, 1].

    Reference: Zhang et al. 2017, Understanding deep learning requires rethinking generalization (labels of others); Micikevicius et al.
    2018, Mixed precision training, sec. 3.1 and 3.2.
    """

    code: ClassVar[str] = "OPT018"
    symptom: ClassVar[str | None] = None
    title: ClassVar[str] = "a step of one's own does something else than it seems"
    causes: ClassVar[tuple[str, ...]] = ("labels_corrupt", "frozen_params", "low_precision", "batch_too_small")
    needs: ClassVar[tuple[str, ...]] = ("facts.loop",)
    signal: ClassVar[tuple[str, str]] = ("faults", "of the step")
    helps: ClassVar[str] = (
        "reorder inputs and targets together; the whole batch in one loss; state and weights in float32; load weights once"
    )
    max_mismatched: float = 0.3
    min_asked: float = 0.1
    max_rounded: float = 0.98

    def check(self, trace: Trace) -> Iterator[Finding]:
        if thrives(trace):
            return
        for cause, message, evidence, where in self._faults(trace):
            found = self.finding(trace, "error", message, evidence=(evidence,), where=(where,), at=(0, len(trace.steps) - 1))
            yield replace(found, cause=cause)

    def value(self, trace: Trace) -> float:
        return float(len(list(self._faults(trace))))

    def _faults(self, trace: Trace) -> Iterator[tuple[str, str, Evidence, str]]:
        facts = trace.facts.loop or {}
        state, gradients = float(facts.get("rounded_state", 0.0)), float(facts.get("rounded_gradients", 0.0))
        mismatched, asked = float(facts.get("mismatched", 0.0)), float(facts.get("asked", 1.0))
        if mismatched > self.max_mismatched:
            message = f"the step compares {mismatched:.0%} of the samples with the target of another sample"
            yield "labels_corrupt", message, _above("mismatched", mismatched, self.max_mismatched, "of the samples", "targets"), "targets"
        if facts.get("set_back"):
            message = "the 2nd step begins with the weights that the 1st began with: what was learnt between is lost"
            yield "frozen_params", message, _above("set_back", 1.0, 0.0, "of 1 step", "optimizer"), "optimizer"
        if state > self.max_rounded:
            message = f"{state:.0%} of the numbers that the optimizer keeps need 11 of their 24 bits at most: something rounds them"
            yield "low_precision", message, _above("rounded_state", state, self.max_rounded, "of its numbers", "optimizer"), "optimizer"
        elif facts.get("overflown") and gradients > self.max_rounded:
            message = (
                f"gradients are not finite though the loss is, and {gradients:.0%} of the finite ones need 11 of their 24 bits at most: "
                f"float16 ends at 65,504"
            )
            evidence = _above("rounded_gradients", gradients, self.max_rounded, "of the gradients", "optimizer")
            yield "low_precision", message, evidence, "optimizer"
        if asked < self.min_asked:
            message = f"the loss is asked about {asked:.0%} of each batch: a step is as noisy as that few samples"
            evidence = Evidence(signal="asked", value=asked, relation="<", threshold=self.min_asked, unit="of the batch", where="loss")
            yield "batch_too_small", message, evidence, "loss"

    @classmethod
    def examples(cls) -> Examples:
        def net(end: float = 2.3, **loop: Any) -> Trace:
            made = synthetic.chain(3, facts=Facts(loss={"baseline": 2.3}, loop={"standard": False, **loop}))
            return synthetic.run(made, loss=np.linspace(2.3, end, 100))

        return Examples(
            sick=(
                net(mismatched=0.31),
                net(set_back=1.0),
                net(rounded_state=1.0),
                net(overflown=1.0, rounded_gradients=1.0),
                net(asked=0.05),
            ),
            healthy=(
                net(mismatched=0.29),
                net(mismatched=0.8, end=0.1),
                net(set_back=0.0),
                net(rounded_state=0.97),
                net(rounded_gradients=1.0),  # mixed precision
                net(overflown=1.0, rounded_gradients=0.5),
                net(asked=0.11),
                net(),
            ),
        )


def _above(signal: str, value: float, threshold: float, unit: str, where: str) -> Evidence:
    return Evidence(signal=signal, value=value, relation=">", threshold=threshold, unit=unit, where=where)
