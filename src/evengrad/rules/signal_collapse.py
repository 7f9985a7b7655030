"""ACT003: later layers see the same thing for every sample."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule, deep_rows, names, place, sick_span
from evengrad.signals import Slope, slopes
from evengrad.types import Evidence, Finding, Trace


@dataclass(frozen=True, kw_only=True)
class SignalCollapse(Rule):
    """What tells samples apart shrinks from layer to layer until the output no longer depends on the input.

    Raw activations do not show it: biases and the mean of a sigmoid or ReLU keep them alive. The spread across samples does.

    Attributes:
        max_lost_decades: Largest healthy loss of spread between the first and the last comparable layer, in decades.
        error_decades: Loss from which it is an error.

    Reference: Poole et al. 2016; Schoenholz et al. 2017 (correlation depth scale).
    """

    code: ClassVar[str] = "ACT003"
    symptom: ClassVar[str | None] = "signal_collapse"
    title: ClassVar[str] = "the signal across samples collapses along depth"
    causes: ClassVar[tuple[str, ...]] = (
        "bad_hidden_activation",
        "bad_init_small",
        "bad_init_large",
        "constant_init",
        "input_not_normalized",
    )
    needs: ClassVar[tuple[str, ...]] = ("out_spread",)
    signal: ClassVar[tuple[str, str]] = ("spread_gain", "a layer")
    helps: ClassVar[str] = (
        "an initialiser that matches the activation; tanh, ReLU or SELU in place of the logistic; a norm before each activation"
    )
    max_lost_decades: float = 2.75
    error_decades: float = 2.75

    def check(self, trace: Trace) -> Iterator[Finding]:
        span = sick_span(trace, lambda i: self._lost(trace, i) >= self.max_lost_decades)
        if span is None:
            return
        index = span[1]
        lost = self._lost(trace, index)
        rows = self._rows(trace, index)
        spread = trace.column("out_spread")[index]
        zero = next((i for i in rows if spread[i] == 0), None)
        if zero is not None:
            message = f"from {place(trace, zero)} on, every sample looks the same: the spread across samples is exactly zero"
        else:
            share = f"{float(spread[rows[-1]]) / float(spread[rows[0]]):.1e} of what it is at {place(trace, rows[0])}"
            message = (
                f"the spread across samples falls to {share} by {place(trace, rows[-1])}: later layers see nearly the same for every input"
            )
        threshold = float(10 ** (-self.max_lost_decades / max(1, len(rows) - 1)))
        evidence = (
            Evidence(signal="spread_gain", value=self.value(trace), relation="<", threshold=threshold, unit="a layer"),
            Evidence(signal="lost_decades", value=lost, relation=">", threshold=self.max_lost_decades, unit="decades"),
        )
        severity = "error" if lost >= self.error_decades else "warning"
        yield self.finding(trace, severity, message, evidence=evidence, where=names(trace, reversed(rows)), at=span)

    def missing(self, trace: Trace) -> str | None:
        return super().missing(trace) or ("needs at least two samples" if trace.run.samples < 2 else None)

    def value(self, trace: Trace) -> float:
        worst = self._worst(trace, len(trace.steps) - 1)
        return float(10**-worst.decades) if worst else float("nan")

    def _worst(self, trace: Trace, index: int) -> Slope | None:
        """The steepest fall; slopes count from the output towards the input, so a falling spread has a positive slope."""
        return max(slopes(trace, "out_spread", index, whole=True), key=lambda s: s.total, default=None)

    def _rows(self, trace: Trace, index: int) -> list[int]:
        worst = self._worst(trace, index)
        return sorted({*worst.rows, *worst.zero_rows}) if worst else deep_rows(trace)

    def _lost(self, trace: Trace, index: int) -> float:
        """Decades lost; infinite where a layer's output is the same for every sample, to the bit."""
        worst = self._worst(trace, index)
        hidden = trace.column("out_spread")[index][deep_rows(trace)]
        if worst is None:
            return float("inf") if len(hidden) > 1 and bool(np.all(hidden[1:] == 0)) else 0.0
        return float("inf") if worst.zero_rows else worst.total

    @classmethod
    def examples(cls) -> Examples:
        falling = synthetic.geometric(20, 1 / 0.7)[::1]
        return Examples(
            sick=(synthetic.chain(20, out_spread=falling), synthetic.chain(8, out_spread=[1, 0.1, 0.01, 1e-3, 0, 0, 0, 0])),
            healthy=(
                synthetic.chain(20, out_spread=synthetic.geometric(20, 1 / 0.8)),  # near miss: 1.8 decades
                synthetic.chain(20, out_spread=1.0),
                synthetic.chain(20, out_spread=1e-6),  # small at every layer: nothing is lost on the way
            ),
        )
