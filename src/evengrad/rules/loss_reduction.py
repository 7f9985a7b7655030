"""OPT016: the loss is a sum over the batch, not a mean."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule
from evengrad.signals.curves import loss_factor, unharmed
from evengrad.types import Evidence, Facts, Finding, Trace

_FEWEST = 6  # gradients that make a rule of it


@dataclass(frozen=True, kw_only=True)
class LossReduction(Rule):
    """A batch twice as large has twice the loss: gradients, and with them the rate, grow with the batch.

    The same shows in the loop, where gradients of parts are added and not divided. With a rate made for it, or an optimizer that
    divides by the gradient's size, training is none the worse: a note then.

    Attributes:
        min_growth: Smallest factor between the loss of a batch and that of its half that tells a sum (a mean has 1, a sum 2).
        max_factor: Largest healthy factor between the loss and the mean of its kind, either way, told where training is the worse for it.

    Reference: Goyal et al. 2017, Accurate, large minibatch SGD, sec. 3 (the loss's normalisation and the rate).
    """

    code: ClassVar[str] = "OPT016"
    symptom: ClassVar[str | None] = "huge_initial_loss"
    title: ClassVar[str] = "the loss is summed over the batch"
    causes: ClassVar[tuple[str, ...]] = ("loss_reduction",)
    needs: ClassVar[tuple[str, ...]] = ("facts.loss",)
    scale_dependent: ClassVar[bool] = True
    signal: ClassVar[tuple[str, str]] = ("batch_growth", "of the loss")
    helps: ClassVar[str] = "reduction='mean', or a rate divided by the batch's size"
    min_growth: float = 1.6
    max_factor: float = 8.0

    def check(self, trace: Trace) -> Iterator[Finding]:
        growth, samples, where = self.value(trace), trace.run.samples, "loss"
        scaled, factor = _scaled(trace), loss_factor(trace) if "loss" in trace.curves else None
        if growth > self.min_growth:
            limit, relation = self.min_growth, ">"
            message = f"twice the samples give ×{growth:.2f} the loss: it is summed over the {samples} of a batch, and so are its gradients"
        elif 0 < growth < 1 / self.min_growth:
            limit, relation = 1 / self.min_growth, "<"
            message = f"twice the samples give ×{growth:.2f} the loss: its mean is divided by the {samples} of a batch once more"
        elif scaled is not None and not 1 / self.min_growth <= scaled <= self.min_growth:
            growth, where = scaled, "loop"
            limit, relation = (self.min_growth, ">") if scaled > 1 else (1 / self.min_growth, "<")
            message = f"the optimizer uses ×{scaled:.3g} the gradient of the batch's loss, at every step and in every layer alike"
        elif factor is not None and not 1 / self.max_factor <= factor <= self.max_factor and not unharmed(trace):
            growth = factor
            limit, relation = (self.max_factor, ">") if factor > 1 else (1 / self.max_factor, "<")
            message = f"the loss is ×{factor:.3g} what the mean of its kind is for these targets, and so are its gradients"
        else:
            return
        evidence = Evidence(signal="batch_growth", value=growth, relation=relation, threshold=limit, unit="of the loss", where=where)
        severity = "note" if unharmed(trace) or "loss" not in trace.curves else "warning"
        found = self.finding(trace, severity, message, evidence=(evidence,), where=(where,), at=(0, len(trace.steps) - 1))
        yield replace(found, cause="loss_reduction")

    def value(self, trace: Trace) -> float:
        return float((trace.facts.loss or {}).get("batch_growth", np.nan))

    @classmethod
    def examples(cls) -> Examples:
        def net(growth: float, **curves: Any) -> Trace:
            return synthetic.run(synthetic.chain(3, facts=Facts(loss={"op": "mse", "batch_growth": growth})), **curves)

        def step(factor: Any, agreement: float = 1.0) -> Trace:
            facts = Facts(loss={"op": "mse", "batch_growth": 1.0})
            used = np.broadcast_to(np.asarray(factor, np.float32), (6, 3))
            made = synthetic.chain(3, steps=6, facts=facts, grad_norm=used, grad_raw_norm=1.0, grad_agreement=agreement)
            return synthetic.run(made, loss=stuck)

        def times(factor: float, left: float = 1.0) -> Trace:
            labels = {"shape": [128], "labels": {"0": 50, "1": 50}}
            loss: dict[str, Any] = {"op": "cross_entropy", "batch_growth": 1.0, "baseline": factor * np.log(2)}
            return synthetic.run(
                synthetic.chain(3, facts=Facts(loss=loss, targets=labels)), loss=np.geomspace(1, left, 40) * loss["baseline"]
            )

        stuck, falling = np.full(40, 1.0), np.geomspace(1.0, 0.1, 40)
        return Examples(
            sick=(
                net(2.0, loss=stuck),
                net(1.7, loss=stuck),
                net(2.0, loss=falling),
                net(0.5, loss=stuck),
                step(25.0),
                step(0.1),
                times(9.0),
                times(0.1),
            ),
            healthy=(
                net(1.0, loss=stuck),
                net(1.5, loss=stuck),
                net(0.7, loss=stuck),
                step(1.5),
                times(7.0),
                times(0.2),
                times(1 / 64, 0.1),
                step(25.0, 0.8),
                step(np.geomspace(0.1, 0.3, 6)[:, None]),
            ),
        )


def _scaled(trace: Trace) -> float | None:
    """What the used gradient is to the batch's own, where it is the same number at every step and in every layer; None where it is not.

    A gradient that is clipped has another factor at each step; one of several batches, or of another draw of dropout, another direction.
    """
    if abs((trace.facts.loop or {}).get("optimizer_steps", 1.0) - 1.0) > 0.05:
        return None
    with np.errstate(all="ignore"):
        factors = np.log(trace.column("grad_norm").astype(np.float64) / trace.column("grad_raw_norm"))
        alike = trace.column("grad_agreement") > 0.98
    seen = factors[np.isfinite(factors) & alike]
    if len(seen) < _FEWEST or len(seen) < 0.7 * np.isfinite(factors).sum() or np.median(np.abs(seen - np.median(seen))) > 0.01:
        return None
    return float(np.exp(np.median(seen)))
