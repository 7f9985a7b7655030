"""GEN005: the network answers every input alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule
from evengrad.signals.curves import thrives
from evengrad.types import Evidence, Facts, Finding, Series, Trace


@dataclass(frozen=True, kw_only=True)
class ConstantOutput(Rule):
    """What the last layer makes hardly differs between samples: its size is bias or offset alone, and inputs play no part.

    A head that begins at zero (as many recipes want it) makes nothing yet, and is left alone.

    Attributes:
        min_relative_spread: Smallest healthy standard deviation over samples beside the RMS of the output, without dimension.
        error_relative_spread: The same, from which on it is an error.

    Reference: Schoenholz et al. 2017, Deep information propagation (inputs that become alike cannot be told apart).
    """

    code: ClassVar[str] = "GEN005"
    symptom: ClassVar[str | None] = "constant_output"
    title: ClassVar[str] = "the network answers every input alike"
    causes: ClassVar[tuple[str, ...]] = (
        *("wrong_output_activation", "redundant_output_activation", "bad_hidden_activation", "constant_init", "bad_init_small"),
        *("too_narrow_relu", "over_regularized", "lr_too_high", "missing_normalization_layer", "too_deep_no_skip", "input_not_normalized"),
    )
    needs: ClassVar[tuple[str, ...]] = ("out_spread", "out_rms", "facts.head")
    signal: ClassVar[tuple[str, str]] = ("relative_spread", "of the output's RMS")
    helps: ClassVar[str] = "look for dead or saturated layers before it; one output unit takes a sigmoid, never a softmax"
    min_relative_spread: float = 3e-3
    error_relative_spread: float = 1e-3

    def check(self, trace: Trace) -> Iterator[Finding]:
        value = self.value(trace)
        head, last = trace.facts.head or {}, len(trace.steps) - 1
        fixed = head.get("spread") == 0.0 and head.get("width") == 1 and head.get("activation") == "softmax"
        if fixed:
            value = 0.0
        if not value < self.min_relative_spread or thrives(trace):
            return
        name, unit = self.signal
        where = str(head.get("layer"))
        severity = "error" if value < self.error_relative_spread else "warning"
        evidence = Evidence(signal=name, value=value, relation="<", threshold=self.min_relative_spread, unit=unit, where=where)
        message = f"the output of {where} varies by {value:.1e} of its size over the samples of a batch: every input gets the same answer"
        yield self.finding(trace, severity, message, evidence=(evidence,), where=(where,), at=(self._since(trace), last))

    def value(self, trace: Trace) -> float:
        relative = self._relative(trace)
        seen = relative[np.isfinite(relative)]
        return float(np.median(seen[-3:])) if len(seen) else np.nan

    def _relative(self, trace: Trace) -> Series:
        """Spread over RMS of the head's row (S,); NaN where it makes nothing at all, or nothing finite."""
        names = [layer.name for layer in trace.layers]
        head = (trace.facts.head or {}).get("layer")
        if head not in names or trace.run.samples < 4:
            return np.full(1, np.nan)
        row = names.index(head)
        spread, size = (trace.column(name)[:, row].astype(np.float64) for name in ("out_spread", "out_rms"))
        seen = np.isfinite(size) & np.isfinite(spread) & (size > 0)
        out: Series = np.divide(spread, size, out=np.full(len(size), np.nan), where=seen)
        return out

    def _since(self, trace: Trace) -> int:
        """Number of the sampled step from which on it holds."""
        relative = self._relative(trace)
        varied = np.flatnonzero(relative >= self.min_relative_spread)
        return min(int(varied[-1]) + 1 if len(varied) else 0, len(trace.steps) - 1)

    @classmethod
    def examples(cls) -> Examples:
        def net(varies: float, size: float, **head: object) -> Trace:
            facts = Facts(head={"layer": "4", "activation": "none", "width": 10, **head})
            return synthetic.chain(3, out_spread=[1.0, 1.0, varies], out_rms=[1.0, 1.0, size], facts=facts)

        return Examples(
            sick=(net(1e-6, 1.0), net(2e-3, 1.0), net(0.5, 1.0, width=1, activation="softmax", spread=0.0)),
            healthy=(net(0.1, 1.0), net(5e-3, 1.0), net(0.0, 0.0), net(1e-9, 1e-8)),
        )
