"""ACT002: units of a layer sit where their activation is flat."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule, names, place, sick_span
from evengrad.signals.curves import thrives
from evengrad.types import Finding, Series, Trace


@dataclass(frozen=True, kw_only=True)
class SaturatedActivation(Rule):
    """Most units of a bounded activation sit on its flat parts, so they pass no gradient.

    The layers that make the model's output are not judged: a confident gate or probability at the end is no fault. Where
    training thrives in spite of it, it is a note.

    Attributes:
        max_saturated_fraction: Largest healthy share of elements with |phi'| < 5% of its maximum, in [0, 1].
        error_fraction: Share from which it is an error.

    Reference: Glorot & Bengio 2010, sec. 3.1.
    """

    code: ClassVar[str] = "ACT002"
    symptom: ClassVar[str | None] = "saturated_activation"
    title: ClassVar[str] = "a bounded activation is saturated"
    causes: ClassVar[tuple[str, ...]] = ("bad_init_large", "input_not_normalized", "bad_hidden_activation", "lr_too_high")
    needs: ClassVar[tuple[str, ...]] = ("saturated_fraction",)
    signal: ClassVar[tuple[str, str]] = ("saturated_fraction", "of elements")
    helps: ClassVar[str] = (
        "standardised inputs; Glorot initialisation; a norm before the activation; an activation that is not flat on both sides"
    )
    max_saturated_fraction: float = 0.85
    error_fraction: float = 0.95

    def check(self, trace: Trace) -> Iterator[Finding]:
        span = sick_span(trace, lambda i: bool(np.nanmax(self._flat(trace, i), initial=0) > self.max_saturated_fraction))
        if span is None:
            return
        flat = self._flat(trace, span[1])
        rows = sorted(map(int, np.flatnonzero(flat > self.max_saturated_fraction)), key=lambda i: -flat[i])
        worst = float(flat[rows[0]])
        more = f"; {len(rows)} layers are above {self.max_saturated_fraction:.0%}" if len(rows) > 1 else ""
        into = f"{place(trace, rows[0])} feeds into {trace.layers[rows[0]].activation}"
        message = f"{worst:.0%} of what {into} lies where it is flat and passes almost no gradient{more}"
        evidence = self.evidence_at(trace, rows, flat, ">", self.max_saturated_fraction)
        severity = "note" if thrives(trace) else "error" if worst >= self.error_fraction else "warning"
        yield self.finding(trace, severity, message, evidence=evidence, where=names(trace, rows), at=span)

    def value(self, trace: Trace) -> float:
        return float(np.nanmax(self._flat(trace, len(trace.steps) - 1), initial=0))

    def _flat(self, trace: Trace, index: int) -> Series:
        head = (trace.facts.head or {}).get("layer")
        hidden = np.array([x.name != head for x in trace.layers], bool)
        out: Series = np.where(hidden, trace.column("saturated_fraction")[index], np.nan).astype(np.float64)
        return out

    @classmethod
    def examples(cls) -> Examples:
        return Examples(
            sick=(synthetic.chain(5, saturated_fraction=[0.1, 0.3, 0.9, 0.2, 0.1]), synthetic.chain(5, saturated_fraction=0.99)),
            healthy=(synthetic.chain(5, saturated_fraction=[0.1, 0.3, 0.8, 0.2, 0.1]), synthetic.chain(5, saturated_fraction=0.0)),
        )
