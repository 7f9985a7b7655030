"""OPT008: weights do not move."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule, deep_rows, names, place
from evengrad.signals import update_ratio
from evengrad.signals.curves import thrives
from evengrad.types import Evidence, Facts, Finding, Trace

_RARELY = 0.6  # steps of the optimizer a batch


@dataclass(frozen=True, kw_only=True)
class NoUpdate(Rule):
    """Weights stay where they are although a gradient is there for them, or would be.

    Why is read from the optimizer: it does not have them, they are frozen, it has another model's, or its rate is zero or next to it. A
    frozen part of a network that trains well is meant so and worth a note.

    Attributes:
        min_update_ratio: Smallest healthy relative change of a layer's weights in a step.
        min_still_fraction: Share of the sampled steps at which a layer has to stand still, in [0, 1].

    Reference: Karpathy 2022 (about 1e-3 a step is usual); Amazon SageMaker Debugger 2020, rule UnchangedTensor.
    """

    code: ClassVar[str] = "OPT008"
    symptom: ClassVar[str | None] = "no_parameter_update"
    title: ClassVar[str] = "weights do not move"
    causes: ClassVar[tuple[str, ...]] = ("frozen_params", "scheduler_bug", "low_precision", "lr_too_low")
    needs: ClassVar[tuple[str, ...]] = ("update_norm", "weight_norm")
    signal: ClassVar[tuple[str, str]] = ("still_layers", "layers")
    helps: ClassVar[str] = "give the optimizer model.parameters() after the model is complete; requires_grad_(True); a rate above zero"
    min_update_ratio: float = 1e-7
    min_still_fraction: float = 0.9

    def check(self, trace: Trace) -> Iterator[Finding]:
        rows = self._still(trace)
        if not rows:
            return
        cause, why = _reason(trace, rows)
        every = set(deep_rows(trace)) <= set(rows)
        ratio = float(np.nan_to_num(update_ratio(trace)[-1, rows]).max())
        which = f"all {len(trace.layers)} layers" if every else f"{place(trace, rows[0])}" + f" and {len(rows) - 1} more" * (len(rows) > 1)
        moved = "exactly nothing" if ratio == 0 else f"{ratio:.1e} of their size"
        message = f"the weights of {which} change by {moved} a step{why}"
        evidence = Evidence(signal="still_layers", value=len(rows), relation=">", threshold=0, unit="layers")
        intended = (thrives(trace) and not _by_mistake(trace, rows)) or cause is None
        severity = "note" if intended else "error" if every else "warning"
        found = self.finding(trace, severity, message, evidence=(evidence,), where=names(trace, rows), at=(0, len(trace.steps) - 1))
        yield replace(found, cause=cause)

    def value(self, trace: Trace) -> float:
        return float(len(self._still(trace)))

    def _still(self, trace: Trace) -> list[int]:
        """Rows that stand still at nearly all sampled steps, and not because their gradient is exactly zero."""
        if (trace.facts.loop or {}).get("optimizer_steps", 1.0) < _RARELY:
            return []  # gradients of several batches are gathered: OPT017
        ratio, moved, grad = update_ratio(trace), trace.column("update_norm"), trace.column("grad_norm")
        with np.errstate(invalid="ignore"):
            still = (ratio < self.min_update_ratio) | (moved == 0)
        seen = np.isfinite(moved)
        share = (still & seen).sum(0) / np.maximum(1, seen.sum(0))
        zero = (np.nan_to_num(grad) == 0).all(0) & np.isfinite(grad).any(0)
        cut = np.isnan(grad).all(0) & ~np.array([x.weight in _held(trace) for x in trace.layers], bool)
        return [int(i) for i in np.flatnonzero((share >= self.min_still_fraction) & seen.any(0) & ~zero & ~cut)]

    @classmethod
    def examples(cls) -> Examples:
        def net(moved: Any, *, lr: Any = 0.1, loss: Any = None, grad: Any = 1.0, **optimizer: Any) -> Trace:
            facts = Facts(optimizer={"name": "SGD", "lr": 0.1, "missing": [], "frozen": [], "foreign": 0, **optimizer})
            made = synthetic.chain(3, steps=4, update_norm=moved, weight_norm=1.0, grad_norm=grad, facts=facts)
            return synthetic.run(made, loss=np.full(40, 0.7) if loss is None else loss, lr=np.broadcast_to(lr, 40))

        def put_back() -> Trace:
            made = net(0.0)
            return replace(made, columns=made.columns | {"behind_ratio": np.full((4, 3), 0.01, np.float32)})

        first, fine = [0.0, 1e-3, 1e-3], np.geomspace(1.0, 0.1, 40)
        return Examples(
            sick=(
                net(first, missing=["0.weight"]),
                net(first, grad=[np.nan, 1.0, 1.0], frozen=["0.weight"]),
                net(0.0, lr=0.0),
                net(0.0, foreign=6),
                net(1e-9, lr=1e-9),
                put_back(),
                net(first, grad=[np.nan, 1.0, 1.0], frozen=["0.weight"], loss=fine),  # a note: meant so
            ),
            healthy=(
                net(1e-3),
                net(1e-6, lr=1e-6),
                net(first, grad=[0.0, 1.0, 1.0]),  # its gradient is zero: another fault
                net([[0.0], [0.0], [0.0], [1e-3]]),  # gradients of four batches are added up on purpose
            ),
        )


def _by_mistake(trace: Trace, rows: list[int]) -> bool:
    """True if nobody can have meant it: the optimizer has another model's parameters, or has early layers and lacks the head."""
    facts, deep = trace.facts.optimizer or {}, deep_rows(trace)
    head = deep[-1] if deep else -1
    missing = [i for i in rows if trace.layers[i].weight in facts.get("missing", ())]
    return bool(missing) and (bool(facts.get("foreign")) or (head in missing and len(rows) < len(deep)))


def _held(trace: Trace) -> set[str]:
    """Parameters that are frozen, or that the optimizer does not have."""
    facts = trace.facts.optimizer or {}
    return {*facts.get("frozen", ()), *facts.get("missing", ())}


def _reason(trace: Trace, rows: list[int]) -> tuple[str | None, str]:
    """The cause, and how the message goes on."""
    facts, weights = trace.facts.optimizer or {}, [trace.layers[i].weight for i in rows]
    missing = [w for w in weights if w in facts.get("missing", ())]
    frozen = [w for w in weights if w in facts.get("frozen", ())]
    if missing:
        foreign = f"; {facts['foreign']} of its parameters are not the model's" if facts.get("foreign") else ""
        return "frozen_params", f": the optimizer does not have {missing[0]}{foreign}"
    if frozen:
        return "frozen_params", f": {frozen[0]} is frozen (requires_grad is False)"
    if facts.get("foreign"):
        return "frozen_params", f": {facts['foreign']} parameters of the optimizer are not the model's"
    lr = trace.curves.get("lr")
    rates = lr.values if lr is not None else np.array([facts.get("lr", np.nan)], np.float64)
    rates = rates[np.isfinite(rates)]
    if len(rates) and rates.max() == 0:
        scheduled = facts.get("lr") or (trace.facts.loop or {}).get("scheduler")
        return ("scheduler_bug" if scheduled else "lr_too_low"), ": the learning rate is 0"
    if len(rates) and np.median(rates) < 1e-2 * rates.max():
        return "scheduler_bug", f": the learning rate falls from {rates.max():.1e} to {rates[-1]:.1e}"
    if not len(rates) or len(rows) < len(deep_rows(trace)):
        return None, ""
    behind = trace.column("behind_ratio")[:, rows]
    if np.isfinite(behind).any() and float(np.nanmedian(behind)) > 0:
        return "low_precision", f": the optimizer moves them, and the loop puts them back by {np.nanmedian(behind):.1e} of their size"
    return "lr_too_low", f": the learning rate is {rates.max():.1e}"
