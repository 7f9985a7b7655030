"""OPT015: half precision swallows updates or gradients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule, deep_rows, names, place
from evengrad.signals.curves import unharmed
from evengrad.types import Evidence, Facts, Finding, Series, Trace

_HALF = {"bfloat16": "8 bits", "float16": "11 bits"}  # of the significand


@dataclass(frozen=True, kw_only=True)
class LowPrecision(Rule):
    """Weights in half precision stay as they are because the change is under half of their last bit, or gradients underflow to zero.

    bfloat16 tells numbers apart that differ by 1 in 256, float16 by 1 in 2,048, so a step that changes weights by a thousandth is lost
    on most of them. Mixed precision keeps the weights in float32 and has neither fault.

    Attributes:
        max_unchanged_fraction: Largest healthy share of weights that a step leaves exactly as they were, in [0, 1].
        min_rounded: Share of a layer's weights in float32 with twelve bits or fewer from which on something rounds them, in [0, 1].
        max_returned: Largest healthy share of weights in float32 that something puts back behind the optimizer, in [0, 1].
        max_lost_fraction: Largest healthy share of gradients that are zero in the optimizer though the batch's own are not, in [0, 1].

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
    min_rounded: float = 0.98
    max_returned: float = 0.15
    max_lost_fraction: float = 0.3

    def check(self, trace: Trace) -> Iterator[Finding]:
        half = [name for name in (trace.facts.modules or {}).get("dtypes", ()) if name in _HALF]
        looks = (
            (self._unchanged(trace, half[0]), self._overflow(trace, half[0]))
            if half
            else (self._rounded(trace), self._put_back(trace), self._lost(trace))
        )
        found = next((look for look in looks if look is not None), None)
        if found is not None:
            message, evidence, where = found
            severity = "note" if unharmed(trace) and (half or self.value(trace) < self.max_unchanged_fraction) else "warning"
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

    def _rounded(self, trace: Trace) -> tuple[str, tuple[Evidence, ...], tuple[str, ...]] | None:
        """Weights in float32 of which nearly all need no more than twelve of their bits: something rounds them between the steps."""
        rounded, stayed = (trace.column(x).astype(np.float64) for x in ("rounded_fraction", "unchanged_fraction"))
        rows = [i for i in deep_rows(trace) if np.isfinite(rounded[:, i]).any() and np.nanmin(rounded[:, i]) > self.min_rounded]
        if 2 * len(rows) < len(deep_rows(trace)) or len(rounded) < 2:
            return None
        kept = float(np.nanmedian(stayed[:, rows])) if np.isfinite(stayed[:, rows]).any() else 0.0
        if not kept > 0:
            return None
        share = np.array([np.nanmin(column) if np.isfinite(column).any() else np.nan for column in rounded.T])
        message = (
            f"{len(rows)} of {len(deep_rows(trace))} layers hold numbers that need 12 of their 24 bits at every step: something rounds the "
            f"weights, and a step leaves {kept:.0%} of them as they were"
        )
        return message, _first(trace, rows, "rounded_fraction", share, self.min_rounded), names(trace, rows)

    def _put_back(self, trace: Trace) -> tuple[str, tuple[Evidence, ...], tuple[str, ...]] | None:
        """Weights that the optimizer moved, and that something behind it puts exactly where they were: on a grid, however it is spaced."""
        ratio, shrink, stayed = (trace.column(x).astype(np.float64) for x in ("behind_ratio", "behind_shrink", "unchanged_fraction"))
        rows = [i for i in deep_rows(trace) if np.isfinite(ratio[:, i]).any() and np.nanmedian(ratio[:, i]) > 0]
        rows = [i for i in rows if abs(np.nanmedian(shrink[:, i])) < 0.9 and np.nanmedian(stayed[:, i]) > self.max_returned]
        if not rows or 2 * len(rows) < len(deep_rows(trace)) or len(ratio) < 3:
            return None
        share = np.array([np.nanmedian(column) if np.isfinite(column).any() else np.nan for column in stayed.T])
        message = (
            f"{share[rows[0]]:.0%} of the weights of {place(trace, rows[0])} are exactly where they were after a step that moved them: "
            f"something behind the optimizer rounds them; {len(rows)} of {len(deep_rows(trace))} layers are like this"
        )
        return message, _first(trace, rows, "unchanged_fraction", share, self.max_returned), names(trace, rows)

    def _lost(self, trace: Trace) -> tuple[str, tuple[Evidence, ...], tuple[str, ...]] | None:
        """Gradients of which the small ones arrive at the optimizer as zero."""
        lost = trace.column("lost_fraction").astype(np.float64)
        if abs((trace.facts.loop or {}).get("optimizer_steps", 1.0) - 1.0) > 0.05 or not ((lost > 0.02) & (lost < 1)).any():
            return None  # gradients of other batches; or layers that are held still as a whole
        if float((trace.facts.loop or {}).get("model_calls", 1.0)) > 1.05:
            return None  # parts of a batch have gradients of their own
        if any((d.get("p") or 0.0) > 0.5 for d in (trace.facts.modules or {}).get("dropouts", ())):
            return None  # another draw of dropout has other zeros
        typical = np.array([np.nanmedian(column) if np.isfinite(column).any() else 0.0 for column in lost.T])
        rows = [int(i) for i in np.argsort(-typical) if typical[i] > self.max_lost_fraction]
        if not rows:
            return None
        message = (
            f"{typical[rows[0]]:.0%} of the gradients of {place(trace, rows[0])}, the small ones, are zero when the optimizer gets them"
        )
        evidence = Evidence(
            signal="lost_fraction", value=float(typical[rows[0]]), relation=">", threshold=self.max_lost_fraction, unit="of gradients",
            where=trace.layers[rows[0]].name,
        )  # fmt: skip
        return message, (evidence,), names(trace, rows)

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

        def by_hand(rounded: float, lost: Any = 0.0, unchanged: float = 0.8) -> Trace:
            columns = {"rounded_fraction": rounded, "lost_fraction": lost, "unchanged_fraction": unchanged}
            made = synthetic.chain(3, steps=4, facts=Facts(modules={"dtypes": ["float32"]}), **columns)
            return synthetic.run(made, loss=np.full(40, 1.0))

        def grid(stayed: float, behind: float = 0.01, shrink: float = 0.1) -> Trace:
            columns: dict[str, Any] = {"behind_ratio": behind, "behind_shrink": shrink, "unchanged_fraction": stayed}
            made = synthetic.chain(3, steps=4, facts=Facts(modules={"dtypes": ["float32"]}), **columns)
            return synthetic.run(made, loss=np.full(40, 1.0))

        stuck, broken = np.full(40, 1.0), np.r_[np.ones(30), np.full(10, np.nan)]
        return Examples(
            sick=(
                net(0.9, loss=stuck),
                net(0.55),
                net(0.1, dtype="float16", out=6e4, loss=broken),
                by_hand(1.0),
                by_hand(0.0, 0.4),
                grid(0.2),
            ),
            healthy=(
                net(0.45, loss=stuck),
                net(0.9, dtype="float32", loss=stuck),
                net(0.1, dtype="bfloat16", loss=broken),
                by_hand(0.97),
                by_hand(0.0, 0.2),
                grid(0.1),
                grid(0.5, behind=0.0),
                grid(0.5, shrink=1.0),
                by_hand(1.0, unchanged=0.0),
            ),
        )


def _shares(trace: Trace) -> Series:
    """Median over the sampled steps of each layer's share of weights that stayed, float64 (L,); NaN where unseen."""
    column = trace.column("unchanged_fraction").astype(np.float64)
    seen = np.isfinite(column).any(0)
    out = np.full(column.shape[1], np.nan)
    out[seen] = np.nanmedian(column[:, seen], axis=0)
    return out


def _first(trace: Trace, rows: list[int], signal: str, shares: Series, threshold: float) -> tuple[Evidence, ...]:
    """The first of these rows' share of weights, as evidence."""
    where = trace.layers[rows[0]].name
    return (Evidence(signal=signal, value=float(shares[rows[0]]), relation=">", threshold=threshold, unit="of weights", where=where),)
