"""OPT011: the step goes up the loss, or the loss pulls away from the targets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule
from evengrad.signals.curves import progress, thrives
from evengrad.types import Evidence, Facts, Finding, Trace

_NEVER_NEGATIVE = {"cross_entropy", "mse", "l1", "smooth_l1"}
_FEW = 5  # sampled steps at the beginning that have to agree


@dataclass(frozen=True, kw_only=True)
class ReversedStep(Rule):
    """A sign is wrong: less loss means answers further from the targets, or steps follow the gradient up.

    Three measurements tell it: which way the loss pulls answers, whether the gradient that the optimizer uses is the loss's own or its
    reverse, and whether the weights go down or up that gradient.

    Attributes:
        max_pull: Pull towards the targets, in [-1, 1], at which the loss is reversed.
        max_agreement: Cosine of used and own gradient, or of change and minus gradient, at which a step is reversed.
        max_growth: Cosine of what a loop adds to the gradient with what shrinks the weights, at which it makes them grow.
        min_extra: Smallest such addition that counts, in gradients of the loss.

    Reference: Robbins & Monro 1951; LeCun, Bottou, Orr & Müller 1998, sec. 3.
    """

    code: ClassVar[str] = "OPT011"
    symptom: ClassVar[str | None] = "loss_divergence"
    title: ClassVar[str] = "a sign is wrong"
    causes: ClassVar[tuple[str, ...]] = ("sign_error",)
    needs: ClassVar[tuple[str, ...]] = ("facts.loss",)
    signal: ClassVar[tuple[str, str]] = ("direction", "cosine")
    helps: ClassVar[str] = "minimise the loss itself: no minus before it, maximize=False, p -= lr * gradient"
    max_pull: float = -0.5
    max_agreement: float = -0.3
    max_growth: float = -0.6
    min_extra: float = 0.3

    def check(self, trace: Trace) -> Iterator[Finding]:
        found = (
            self._loss(trace)
            or self._term(trace)
            or self._descent(trace)
            or self._gradient(trace)
            or self._update(trace)
            or self._grows(trace)
            or self._negative(trace)
        )
        if found is not None:
            message, evidence, where = found
            made = self.finding(trace, "error", message, evidence=(evidence,), where=(where,), at=(0, len(trace.steps) - 1))
            yield replace(made, cause="sign_error")

    def value(self, trace: Trace) -> float:
        """The most reversed of the directions; the loss itself, where that alone tells it."""
        seen = [x for x in (self._pull(trace), _early(trace, "grad_agreement"), _early(trace, "update_agreement")) if np.isfinite(x)]
        return float(min(seen, default=1.0))

    def _loss(self, trace: Trace) -> tuple[str, Evidence, str] | None:
        loss, pull = trace.facts.loss or {}, self._pull(trace)
        if not pull < self.max_pull or (loss.get("op") == "other" and not loss.get("reversed")):
            return None
        message = f"less loss takes answers away from their targets (direction {pull:+.2f}; 1 is towards them): the loss has the wrong sign"
        return message, Evidence(signal="direction", value=pull, relation="<", threshold=self.max_pull, unit="cosine", where="loss"), "loss"

    def _term(self, trace: Trace) -> tuple[str, Evidence, str] | None:
        """One of several losses that is subtracted from the others."""
        terms = (trace.facts.loss or {}).get("terms") or []
        turned = next((term for term in terms if float(term["weight"]) < 0), None)
        if turned is None or progress(trace) is None or thrives(trace):
            return None
        weight = float(turned["weight"])
        message = f"the loss falls by {-weight:.3g} for each 1 that its {turned['op']} rises: one of {len(terms)} losses has the wrong sign"
        return message, Evidence(signal="weight", value=weight, relation="<", threshold=0.0, unit="of the term", where="loss"), "loss"

    def _pull(self, trace: Trace) -> float:
        loss = trace.facts.loss or {}
        return -1.0 if loss.get("reversed") else float(loss.get("toward_targets", np.nan))

    def _descent(self, trace: Trace) -> tuple[str, Evidence, str] | None:
        """The loss measured on both sides of the first layer's weights, beside what their gradient says."""
        falls = float((trace.facts.loss or {}).get("descent", np.nan))
        if not falls < self.max_agreement:
            return None
        message = f"along minus its gradient the loss changes by {-falls:+.2f} of what is foretold: something turns the gradient around"
        return message, self._cosine(falls, "loss"), "loss"

    def _gradient(self, trace: Trace) -> tuple[str, Evidence, str] | None:
        cosine = _early(trace, "grad_agreement")
        if not cosine < self.max_agreement:
            return None
        message = f"the gradient that the optimizer uses points against the loss's own (cosine {cosine:+.2f}): each step walks uphill"
        return message, self._cosine(cosine, "loop"), "loop"

    def _update(self, trace: Trace) -> tuple[str, Evidence, str] | None:
        cosine = _early(trace, "update_agreement")
        if not cosine < self.max_agreement:
            return None
        maximize = " (maximize=True)" if (trace.facts.optimizer or {}).get("maximize") else ""
        message = f"weights move up the gradient, not down (cosine {cosine:+.2f}){maximize}: each step walks uphill"
        return message, self._cosine(cosine, "optimizer"), "optimizer"

    def _grows(self, trace: Trace) -> tuple[str, Evidence, str] | None:
        """A gradient that the user's own step adds, and that makes weights larger: a penalty with the wrong sign."""
        shrinks, ratio = _early(trace, "extra_shrink"), _early(trace, "extra_ratio")
        if not (shrinks < self.max_growth and ratio > self.min_extra):
            return None
        message = (
            f"the loop adds a gradient ×{ratio:.2g} as large as the loss's that makes weights grow (cosine {-shrinks:+.2f}): a penalty's "
            f"sign is wrong"
        )
        limit = self.max_growth
        return message, Evidence(signal="direction", value=shrinks, relation="<", threshold=limit, unit="cosine", where="loop"), "loop"

    def _negative(self, trace: Trace) -> tuple[str, Evidence, str] | None:
        """A loss that has no business below zero, far below it."""
        loss, targets = trace.curves.get("loss"), trace.facts.targets or {}
        op = (trace.facts.loss or {}).get("op")
        labelled = op != "cross_entropy" or "int" in str(targets.get("dtype"))
        if loss is None or op not in _NEVER_NEGATIVE or not labelled or not len(loss.values):
            return None
        end = float(np.median(loss.values[-10:]))
        if not end < -1e-3:
            return None
        message = f"the loss ends at {end:.3g}, but {op} is never below 0: something turns its sign"
        return message, Evidence(signal="last_loss", value=end, relation="<", threshold=0.0, where="loss"), "loss"

    def _cosine(self, value: float, where: str) -> Evidence:
        return Evidence(signal="direction", value=value, relation="<", threshold=self.max_agreement, unit="cosine", where=where)

    @classmethod
    def examples(cls) -> Examples:
        def net(
            pull: float = 1.0, grad: float = 1.0, update: float = 0.6, *, op: str = "mse", falls: float = 1.0, loss: Any = None
        ) -> Trace:
            facts = Facts(loss={"op": op, "toward_targets": pull, "descent": falls}, targets={"dtype": "float32"})
            made = synthetic.chain(3, steps=6, facts=facts, grad_agreement=grad, update_agreement=update)
            return made if loss is None else synthetic.run(made, loss=loss)

        def adds(shrinks: float, ratio: float = 0.5) -> Trace:
            return synthetic.chain(3, steps=6, facts=Facts(loss={"op": "mse"}), extra_shrink=shrinks, extra_ratio=ratio)

        def two(weight: float, end: float = -5.0) -> Trace:
            made = net(op="other", loss=np.linspace(2.0, end, 40))
            terms = [{"op": "cross_entropy", "weight": 1.0}, {"op": "mse", "weight": weight}]
            return replace(made, facts=replace(made.facts, loss={"op": "cross_entropy", "terms": terms}, targets={"dtype": "float32"}))

        return Examples(
            sick=(
                two(-0.5),
                net(-1.0),
                net(grad=-1.0),
                net(update=-0.9),
                net(update=-0.4),
                net(falls=-0.9),
                net(loss=np.linspace(1.0, -5.0, 40)),
                adds(-0.8),
            ),
            healthy=(
                two(0.5),
                two(-0.5, end=0.1),  # a loss that is worked against, as of an adversary
                net(),
                net(-0.4),
                net(grad=0.1),
                net(update=-0.2),
                net(falls=0.0),
                adds(-0.5),
                adds(-0.8, 0.2),
                adds(1.0),
                net(loss=np.linspace(1.0, 0.0, 40)),
                net(np.nan, np.nan, np.nan),
            ),
        )


def _early(trace: Trace, column: str) -> float:
    """Median over layers of the first few sampled steps, the largest of these steps; NaN where unseen."""
    values = trace.column(column)[:_FEW].astype(np.float64)
    steps = [float(np.median(row[np.isfinite(row)])) for row in values if np.isfinite(row).any()]
    return max(steps, default=float("nan"))
