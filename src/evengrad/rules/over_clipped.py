"""OPT012: clipping leaves almost nothing of the gradient."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule
from evengrad.signals.curves import unharmed
from evengrad.types import Evidence, Facts, Finding, Series, Trace


@dataclass(frozen=True, kw_only=True)
class OverClipped(Rule):
    """Every step is clipped, to far below what its gradient is, and the run goes nowhere: the threshold is the learning rate now.

    Clipping often is no fault: much of language modelling is trained with nearly every step clipped, and an optimizer that divides by
    the gradient's size does not notice. That clipping did it, and not a smaller loss, shows in the norms: what is used is the same at
    every step, or differs from the batch's own gradient by a factor that is never the same.

    Attributes:
        max_kept: Largest share of the gradient's norm that an over-clipped step keeps, in [0, 1].
        min_clipped_fraction: Smallest share of the sampled steps that are clipped so far, in [0, 1].
        min_spread: Smallest relative spread of what is kept of the gradient: a constant factor is a scaled loss.

    Reference: Pascanu, Mikolov & Bengio 2013; Godbole et al. 2023, Deep learning tuning playbook (over half of the steps clipped).
    """

    code: ClassVar[str] = "OPT012"
    symptom: ClassVar[str | None] = "slow_convergence"
    title: ClassVar[str] = "gradients are clipped to almost nothing"
    causes: ClassVar[tuple[str, ...]] = ("over_clipped",)
    needs: ClassVar[tuple[str, ...]] = ("grad_norm", "grad_raw_norm", "facts.loop")
    signal: ClassVar[tuple[str, str]] = ("kept_share", "of the gradient")
    helps: ClassVar[str] = "a threshold at the 90th percentile of the gradients' own norms; clip_grad_norm_ in place of clip_grad_value_"
    max_kept: float = 0.1
    min_clipped_fraction: float = 0.9
    min_spread: float = 0.02

    def check(self, trace: Trace) -> Iterator[Finding]:
        yield from self._capped(trace)
        kept, used = _kept(trace)
        if abs((trace.facts.loop or {}).get("optimizer_steps", 1.0) - 1.0) > 0.05:
            return  # the optimizer's gradient is of another batch
        if len(kept) < 3 or float((kept <= self.max_kept).mean()) < self.min_clipped_fraction:
            return
        varies = float(np.std(np.log(kept)))
        if varies < self.min_spread:
            return
        share, threshold = float(np.median(kept)), float(np.median(used))
        clipped = float((kept <= self.max_kept).mean())
        message = f"clipping leaves {share:.2g} of the gradient's norm in {clipped:.0%} of the steps (a norm of {threshold:.2g} is used)"
        evidence = Evidence(signal="kept_share", value=share, relation="<=", threshold=self.max_kept, unit="of the gradient", where="loop")
        severity = "note" if unharmed(trace) else "warning"
        found = self.finding(trace, severity, message, evidence=(evidence,), where=("loop",), at=(0, len(trace.steps) - 1))
        yield replace(found, cause="over_clipped")

    def _capped(self, trace: Trace) -> Iterator[Finding]:
        """Gradients that are cut before anyone sees them: their largest magnitude is one number, in every layer and at every step."""
        top, mean = (trace.column(f"grad_raw_{x}").astype(np.float64) for x in ("abs_max", "abs_mean"))
        seen = np.isfinite(top) & (top > 0)
        values = top[seen]
        if len(values) < 10 or seen.any(1).sum() < 3 or np.ptp(values) > 1e-5 * values.max():
            return
        full, limit = float(np.median(mean[seen] / values)), float(values.max())
        if full < self.max_kept:
            return
        message = f"no gradient is beyond {limit:.3g}, in any layer at any step, and a weight's is {full:.0%} of that: all are cut at it"
        evidence = Evidence(signal="cut_share", value=full, relation=">=", threshold=self.max_kept, unit="of the limit", where="loop")
        severity = "note" if unharmed(trace) else "warning"
        found = self.finding(trace, severity, message, evidence=(evidence,), where=("loop",), at=(0, len(trace.steps) - 1))
        yield replace(found, cause="over_clipped")

    def value(self, trace: Trace) -> float:
        kept, _ = _kept(trace)
        return float(np.median(kept)) if len(kept) else float("nan")

    @classmethod
    def examples(cls) -> Examples:
        raw = np.array([[3.0], [2.0], [4.0], [2.5], [1.0]])

        def net(used: Any, **curves: Any) -> Trace:
            made = synthetic.chain(3, steps=5, grad_norm=used, grad_raw_norm=raw, facts=Facts(loop={"standard": False}))
            return synthetic.run(made, **curves)

        stuck = np.full(40, 1.0)
        return Examples(
            sick=(net(1e-3, loss=stuck), net(0.05), net(0.05, loss=np.geomspace(1.0, 0.1, 40))),
            healthy=(net(0.5, loss=stuck), net(raw), net(raw / 32), net(np.minimum(raw, 2.0))),
        )


def _kept(trace: Trace) -> tuple[Series, Series]:
    """Of each sampled step: used norm over the batch's own, and the used norm, over all layers."""
    used, own = (np.sqrt(np.nansum(np.square(trace.column(c).astype(np.float64)), axis=1)) for c in ("grad_norm", "grad_raw_norm"))
    usable = np.isfinite(used) & np.isfinite(own) & (own > 0) & (used > 0)
    return used[usable] / own[usable], used[usable]
