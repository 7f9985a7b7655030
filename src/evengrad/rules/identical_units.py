"""INI002: units of a layer start with the same weights and stay copies of each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule, deep_rows, names, place
from evengrad.signals.curves import unharmed
from evengrad.signals.scale import units
from evengrad.types import Finding, Trace


@dataclass(frozen=True, kw_only=True)
class IdenticalUnits(Rule):
    """Units with equal weights compute the same and get the same gradient: the layer works as if it were one unit wide.

    A last layer, or the last layer of a residual branch, that starts at zero is a known recipe (Fixup) and not flagged.

    Attributes:
        min_distinct_fraction: Smallest healthy share of units whose weights differ from every other unit's, in [0, 1].

    Reference: Goodfellow, Bengio & Courville 2016, sec. 8.4 (symmetry breaking).
    """

    code: ClassVar[str] = "INI002"
    symptom: ClassVar[str | None] = "identical_units"
    title: ClassVar[str] = "units of a layer are copies of each other"
    causes: ClassVar[tuple[str, ...]] = ("constant_init",)
    needs: ClassVar[tuple[str, ...]] = ("distinct_unit_fraction", "weight_abs_max")
    signal: ClassVar[tuple[str, str]] = ("distinct_unit_fraction", "of units")
    helps: ClassVar[str] = "a random initialiser (Glorot, He, LeCun, orthogonal)"
    min_distinct_fraction: float = 0.5

    def check(self, trace: Trace) -> Iterator[Finding]:
        index = 0
        distinct = trace.column("distinct_unit_fraction")[index]
        rows = sorted((i for i in self._judged(trace, index) if self._copies(trace, i)), key=lambda i: distinct[i])
        if not rows:
            return
        layer = trace.layers[rows[0]]
        count = max(1, round(float(distinct[rows[0]]) * units(layer)))
        more = f"; {len(rows)} layers are like this" if len(rows) > 1 else ""
        sets = f"only {count} distinct set{'s' * (count > 1)} of weights"
        message = f"the {units(layer)} units of {place(trace, rows[0])} have {sets}: copies get the same gradient{more}"
        evidence = self.evidence_at(trace, rows, distinct.astype(np.float64), "<", self.min_distinct_fraction)
        severity = "note" if unharmed(trace) else "error"
        found = self.finding(trace, severity, message, evidence=evidence, where=names(trace, rows), at=(0, len(trace.steps) - 1))
        yield replace(found, cause="constant_init")

    def value(self, trace: Trace) -> float:
        return float(np.nanmin(trace.column("distinct_unit_fraction")[0][self._judged(trace, 0)], initial=1.0))

    def _copies(self, trace: Trace, row: int) -> bool:
        """True if units were copies when they were first seen: what training does to them later is another fault.

        Copies that small things (dropout, biases) tell apart later were copies all the same; zeros that learn are a known recipe.
        """
        few = trace.column("distinct_unit_fraction")[[0, -1], row] < self.min_distinct_fraction
        return bool(few[0] and (few[1] or trace.column("weight_abs_max")[0, row] > 0))

    def _judged(self, trace: Trace, index: int) -> list[int]:
        """Rows with at least two units; one that is all zero by design is left out."""
        deep = deep_rows(trace)
        zero = trace.column("weight_abs_max")[index] == 0
        wide = [i for i in deep if units(trace.layers[i]) > 1]
        return [i for i in wide if not (zero[i] and (i == deep[-1] or trace.layers[i].residual))]

    @classmethod
    def examples(cls) -> Examples:
        return Examples(
            sick=(
                synthetic.chain(3, distinct_unit_fraction=1 / 64, weight_abs_max=0.5),
                synthetic.chain(3, distinct_unit_fraction=[1.0, 1 / 64, 1.0], weight_abs_max=[1.0, 0.0, 1.0]),
                synthetic.chain(3, steps=2, distinct_unit_fraction=[[1 / 64], [1.0]], weight_abs_max=0.5),  # biases tell them apart later
            ),
            healthy=(
                synthetic.chain(3, distinct_unit_fraction=1.0, weight_abs_max=0.5),
                synthetic.chain(3, distinct_unit_fraction=[1.0, 1.0, 1 / 64], weight_abs_max=[1.0, 1.0, 0.0]),  # zero head
                synthetic.chain(3, steps=2, distinct_unit_fraction=[[1 / 64], [1.0]], weight_abs_max=[[0.0], [0.1]]),  # zeros that learn
                synthetic.chain(3, steps=2, distinct_unit_fraction=[[1.0], [1 / 64]], weight_abs_max=0.5),  # training made them alike
            ),
        )
