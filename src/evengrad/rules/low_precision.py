"""OPT015: half precision swallows updates or gradients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule, names, place
from evengrad.signals.curves import thrives
from evengrad.types import Evidence, Facts, Finding, Series, Trace

_HALF = {"bfloat16": "8 bits", "float16": "11 bits"}  # of the significand


@dataclass(frozen=True, kw_only=True)
class LowPrecision(Rule):
    """Weights in half precision stay as they are because the change is under half of their last bit, or gradients underflow to zero.

    bfloat16 tells numbers apart that differ by 1 in 256, float16 by 1 in 2,048, so a step that changes weights by a thousandth is lost
    on most of them. Mixed precision keeps the weights in float32 and has neither fault.

    Attributes:
        max_unchanged_fraction: Largest healthy share of weights that a step leaves exactly as they were, in [0, 1].

    Reference: Micikevicius et al. 2018, Mixed precision training, sec. 3.1 and 3.2; IEEE 754.
    """

    code: ClassVar[str] = "OPT015"
    symptom: ClassVar[str | None] = "no_parameter_update"
    title: ClassVar[str] = "half precision swallows the step"
    causes: ClassVar[tuple[str, ...]] = ("low_precision",)
    needs: ClassVar[tuple[str, ...]] = ("unchanged_fraction", "facts.modules")
    signal: ClassVar[tuple[str, str]] = ("unchanged_fraction", "of weights")
    helps: ClassVar[str] = "float32 weights with torch.autocast around the forward pass, and a GradScaler for float16"
    max_unchanged_fraction: float = 0.5

    def check(self, trace: Trace) -> Iterator[Finding]:
        half = [name for name in (trace.facts.modules or {}).get("dtypes", ()) if name in _HALF]
        if not half:
            return
        found = self._unchanged(trace, half[0]) or self._overflow(trace, half[0])
        if found is not None:
            message, evidence, where = found
            severity = "note" if thrives(trace) else "warning"
            made = self.finding(trace, severity, message, evidence=evidence, where=where, at=(0, len(trace.steps) - 1))
            yield replace(made, cause="low_precision")

    def value(self, trace: Trace) -> float:
        shares = _shares(trace)
        return float(np.nanmedian(shares)) if np.isfinite(shares).any() else float("nan")

    def _unchanged(self, trace: Trace, half: str) -> tuple[str, tuple[Evidence, ...], tuple[str, ...]] | None:
        shares = _shares(trace)
        typical = self.value(trace)
        if not typical > self.max_unchanged_fraction:
            return None
        rows = [int(i) for i in np.argsort(-np.nan_to_num(shares)) if shares[i] > self.max_unchanged_fraction]
        worst = f"{shares[rows[0]]:.0%} of {place(trace, rows[0])}"
        message = (
            f"a step leaves {typical:.0%} of the weights that have a gradient exactly as they were ({worst}): {half} holds {_HALF[half]}"
        )
        evidence = self.evidence_at(trace, rows, shares, ">", self.max_unchanged_fraction)
        return message, evidence, names(trace, rows)

    def _overflow(self, trace: Trace, half: str) -> tuple[str, tuple[Evidence, ...], tuple[str, ...]] | None:
        """float16 ends at 65,504."""
        loss, largest = trace.curves.get("loss"), trace.column("out_abs_max").astype(np.float64)
        if half != "float16" or loss is None or bool(np.isfinite(loss.values).all()) or not np.isfinite(largest).any():
            return None
        reached = float(largest[np.isfinite(largest)].max())
        step = int(loss.steps[int(np.argmin(np.isfinite(loss.values)))])
        message = f"the loss is not finite from step {step:,}; weights are float16, which ends at 65,504 (outputs reached {reached:.3g})"
        evidence = Evidence(
            signal="nonfinite_losses", value=int((~np.isfinite(loss.values)).sum()), relation=">", threshold=0, where="loss"
        )
        return message, (evidence,), ("loss",)

    @classmethod
    def examples(cls) -> Examples:
        def net(unchanged: float, *, dtype: str = "bfloat16", out: float = 1.0, **curves: Any) -> Trace:
            facts = Facts(modules={"dtypes": [dtype]})
            made = synthetic.chain(3, steps=4, unchanged_fraction=unchanged, out_abs_max=out, facts=facts)
            return synthetic.run(made, **curves)

        stuck, broken = np.full(40, 1.0), np.r_[np.ones(30), np.full(10, np.nan)]
        return Examples(
            sick=(net(0.9, loss=stuck), net(0.55), net(0.1, dtype="float16", out=6e4, loss=broken)),
            healthy=(net(0.45, loss=stuck), net(0.9, dtype="float32", loss=stuck), net(0.1, dtype="bfloat16", loss=broken)),
        )


def _shares(trace: Trace) -> Series:
    """Median over the sampled steps of each layer's share of weights that stayed, float64 (L,); NaN where unseen."""
    column = trace.column("unchanged_fraction").astype(np.float64)
    seen = np.isfinite(column).any(0)
    out = np.full(column.shape[1], np.nan)
    out[seen] = np.nanmedian(column[:, seen], axis=0)
    return out
