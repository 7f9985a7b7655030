"""VAN002: layers receive a gradient that is exactly zero."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule, deep_rows, names, place
from evengrad.signals.curves import thrives
from evengrad.types import Evidence, Finding, Trace


@dataclass(frozen=True, kw_only=True)
class ZeroGradient(Rule):
    """Nothing at all comes back: the gradient underflowed, or every path to the loss is cut.

    Exactly zero is a state of its own: no learning rate and no clipping threshold changes it. Layers without a gradient in a
    network that trains well are not needed: a note.

    Attributes:
        max_zero_layers: Largest healthy number of layers whose gradient is zero in every element.

    Reference: float32 holds nothing below 1.4e-45 (IEEE 754).
    """

    code: ClassVar[str] = "VAN002"
    symptom: ClassVar[str | None] = "zero_gradient"
    title: ClassVar[str] = "layers receive a gradient of exactly zero"
    causes: ClassVar[tuple[str, ...]] = (
        "bad_hidden_activation",
        "bad_init_small",
        "bad_init_large",
        "constant_init",
        "input_not_normalized",
    )
    needs: ClassVar[tuple[str, ...]] = ("grad_out_abs_max",)
    signal: ClassVar[tuple[str, str]] = ("zero_layers", "layers")
    helps: ClassVar[str] = "what helps against vanishing gradients; for dead ReLU units, leaky ReLU and a new initialisation"
    max_zero_layers: int = 0

    def check(self, trace: Trace) -> Iterator[Finding]:
        zero = self._zero(trace)
        if len(zero) <= self.max_zero_layers:
            return
        deep, last = deep_rows(trace), len(trace.steps) - 1
        what = (
            f"all {len(zero)} layers receive"
            if len(zero) == len(deep)
            else f"{len(zero)} of {len(deep)} layers, from {place(trace, zero[0])}, receive"
        )
        message = f"{what} a gradient of exactly zero: they learn nothing"
        evidence = Evidence(signal="zero_layers", value=len(zero), relation=">", threshold=self.max_zero_layers, unit="layers")
        always = set(zero) & set(self._zero(trace.at(int(trace.steps[0]))))  # never reached: cut off, however well the rest trains
        severity = "note" if thrives(trace) and not always else "error"
        found = self.finding(trace, severity, message, evidence=(evidence,), where=names(trace, zero), at=(0 if always else last, last))
        yield replace(found, cause="bad_hidden_activation") if always and self._passes_signal(trace, zero) else found

    def value(self, trace: Trace) -> float:
        return float(len(self._zero(trace)))

    def _passes_signal(self, trace: Trace, zero: list[int]) -> bool:
        """True if samples differ behind the last of these layers as before: only an activation without a slope lets nothing back."""
        rows = deep_rows(trace)
        behind = [i for i in rows if i > zero[-1]]
        if zero != rows[: len(zero)] or not behind:
            return False
        spread, rms = trace.column("out_spread")[0], trace.column("out_rms")[0]
        dead = trace.column("zero_fraction")[0, zero]
        return bool(min(spread[zero[-1]], spread[behind[0]]) > 0.05 * rms[behind[0]] > 0 and not (dead > 0.95).any())

    def _zero(self, trace: Trace) -> list[int]:
        """Rows that saw no gradient at the last three sampled steps (one batch alone can miss a rare path)."""
        column = trace.column("grad_out_abs_max")[-3:]
        return [i for i in deep_rows(trace) if bool(np.all(column[:, i] == 0))]

    @classmethod
    def examples(cls) -> Examples:
        values = np.r_[np.zeros(4), np.geomspace(1e-40, 1e-3, 16)]
        return Examples(
            sick=(synthetic.chain(20, grad_out_abs_max=values), synthetic.chain(5, grad_out_abs_max=0.0)),
            healthy=(synthetic.chain(20, grad_out_abs_max=1e-30), synthetic.chain(5, grad_out_abs_max=[1e-45, 1e-9, 1e-6, 1e-3, 1.0])),
        )
