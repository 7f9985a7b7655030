"""OPT010: gradients of earlier steps are still there when a step is taken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule
from evengrad.types import Evidence, Facts, Finding, Series, Trace


@dataclass(frozen=True, kw_only=True)
class AccumulatedGradients(Rule):
    """What a step uses beyond its batch's own gradient is exactly what the step before used: nothing clears the gradients.

    Each step then follows the sum of all gradients since the start, a momentum that never decays. A loop that adds up the batches of
    one step on purpose clears them after it, and leaves the weights where they are in between.

    Attributes:
        min_accumulated: Smallest cosine between the excess and the step before that tells it, in [-1, 1].
        max_waiting_fraction: Share of steps that move nothing above which gradients are added up on purpose, in [0, 1].

    Reference: Paszke et al. 2019, PyTorch: an imperative style (gradients are accumulated into .grad).
    """

    code: ClassVar[str] = "OPT010"
    symptom: ClassVar[str | None] = "loss_divergence"
    title: ClassVar[str] = "gradients are not zeroed"
    causes: ClassVar[tuple[str, ...]] = ("missing_zero_grad",)
    needs: ClassVar[tuple[str, ...]] = ("facts.loop", "grad_norm", "grad_raw_norm")
    signal: ClassVar[tuple[str, str]] = ("accumulated", "cosine")
    helps: ClassVar[str] = "optimizer.zero_grad() before each backward pass"
    min_accumulated: float = 0.9
    max_waiting_fraction: float = 0.2

    def check(self, trace: Trace) -> Iterator[Finding]:
        value = self.value(trace)
        moved = np.nansum(trace.column("update_norm"), axis=1)
        waiting = float((moved == 0).mean()) if "update_norm" in trace.columns and len(moved) else 0.0
        if not value >= self.min_accumulated or waiting > self.max_waiting_fraction:
            return
        ratio = _ratio(trace)
        usable = np.flatnonzero(np.isfinite(ratio))
        grown = f"; at step {trace.steps[usable[-1]]:,} they are ×{ratio[usable[-1]]:.3g} those of the batch" if len(usable) else ""
        message = f"gradients are never zeroed: each step uses those of all steps before it as well (cosine {value:.2f}){grown}"
        evidence = Evidence(signal="accumulated", value=value, relation=">=", threshold=self.min_accumulated, unit="cosine", where="loop")
        found = self.finding(trace, "error", message, evidence=(evidence,), where=("loop",), at=(0, len(trace.steps) - 1))
        yield replace(found, cause="missing_zero_grad")

    def value(self, trace: Trace) -> float:
        return float((trace.facts.loop or {}).get("accumulated", np.nan))

    @classmethod
    def examples(cls) -> Examples:
        def net(accumulated: float | None, *, moved: Any = 1e-2) -> Trace:
            loop: dict[str, Any] = {"standard": False} | ({} if accumulated is None else {"accumulated": accumulated})
            columns = {"grad_norm": [[1.0], [2.0], [3.0], [4.0]], "grad_raw_norm": 1.0, "update_norm": moved}
            return synthetic.chain(3, steps=4, facts=Facts(loop=loop), **columns)

        return Examples(
            sick=(net(1.0), net(0.92)),
            healthy=(net(0.0), net(0.85), net(None), net(1.0, moved=[[0.0], [0.0], [0.0], [1e-2]])),
        )


def _ratio(trace: Trace) -> Series:
    """Norm of what a step used over that of the batch's own gradient, over all layers, float64 (S,)."""
    used, own = (np.sqrt(np.nansum(np.square(trace.column(c).astype(np.float64)), axis=1)) for c in ("grad_norm", "grad_raw_norm"))
    with np.errstate(invalid="ignore"):
        out: Series = np.divide(used, own, out=np.full(used.shape, np.nan), where=(own > 0) & np.isfinite(own))
    return out
