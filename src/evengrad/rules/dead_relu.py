"""ACT001: units of a layer are off for every sample."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule, names, place, sick_span
from evengrad.signals.curves import thrives
from evengrad.types import Finding, Series, Trace

_CUT_OFF = {"relu", "relu6"}


@dataclass(frozen=True, kw_only=True)
class DeadRelu(Rule):
    """Most units of a rectifier output zero for all samples, so no gradient passes them and they stay as they are.

    Some dead units are ordinary: in deep healthy ReLU networks samples grow alike, and up to half of a layer's units agree on
    being off. A layer is flagged when hardly anything is left of it; where training thrives in spite of it, that is a note.

    Attributes:
        max_dead_fraction: Largest healthy share of dead units in a layer, in [0, 1].
        error_fraction: Share from which it is an error.

    Reference: Lu, Shin, Su & Karniadakis 2020, Dying ReLU and initialization.
    """

    code: ClassVar[str] = "ACT001"
    symptom: ClassVar[str | None] = "dead_relu"
    title: ClassVar[str] = "ReLU units are dead"
    causes: ClassVar[tuple[str, ...]] = (
        "bad_hidden_activation",
        "lr_too_high",
        "bad_init_large",
        "too_narrow_relu",
        "input_not_normalized",
    )
    needs: ClassVar[tuple[str, ...]] = ("dead_fraction",)
    signal: ClassVar[tuple[str, str]] = ("dead_fraction", "of units")
    helps: ClassVar[str] = (
        "a smaller rate and a new initialisation; leaky ReLU, ELU or GELU; a norm before the activation; standardised inputs"
    )
    max_dead_fraction: float = 0.8
    error_fraction: float = 0.8

    def check(self, trace: Trace) -> Iterator[Finding]:
        span = sick_span(trace, lambda i: bool(np.nanmax(self._dead(trace, i), initial=0) > self.max_dead_fraction))
        if span is None:
            return
        dead = self._dead(trace, span[1])
        rows = sorted(map(int, np.flatnonzero(dead > self.max_dead_fraction)), key=lambda i: -dead[i])
        worst = float(dead[rows[0]])
        more = f"; {len(rows)} layers are above {self.max_dead_fraction:.0%}" if len(rows) > 1 else ""
        message = f"{worst:.0%} of the ReLU units of {place(trace, rows[0])} are off for every sample and pass no gradient{more}"
        evidence = self.evidence_at(trace, rows, dead, ">", self.max_dead_fraction)
        severity = "note" if thrives(trace) else "error" if worst >= self.error_fraction else "warning"
        yield self.finding(trace, severity, message, evidence=evidence, where=names(trace, rows), at=span)

    def value(self, trace: Trace) -> float:
        return float(np.nanmax(self._dead(trace, len(trace.steps) - 1), initial=0))

    def _dead(self, trace: Trace, index: int) -> Series:
        rectified = np.array([x.activation in _CUT_OFF and x.depth is not None for x in trace.layers], bool)
        out: Series = np.where(rectified, trace.column("dead_fraction")[index], np.nan).astype(np.float64)
        return out

    @classmethod
    def examples(cls) -> Examples:
        relu, tanh = {"activation": "relu"}, {"activation": "tanh"}
        return Examples(
            sick=(synthetic.chain(3, dead_fraction=[0.0, 0.85, 0.2], layer=relu), synthetic.chain(3, dead_fraction=1.0, layer=relu)),
            healthy=(synthetic.chain(20, dead_fraction=0.5, layer=relu), synthetic.chain(3, dead_fraction=1.0, layer=tanh)),
        )
