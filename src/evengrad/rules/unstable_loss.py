"""NUM002: the loss computes something that has no floor."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule
from evengrad.types import Event, Evidence, Facts, Finding, Trace

_LOGS = {"log", "log_", "log2", "log10"}
_RISKY = _LOGS | {"div", "__truediv__", "true_divide", "__rtruediv__", "reciprocal", "rsqrt", "sqrt", "exp", "exp_", "acos", "asin", "pow"}
_OF_NONE = {"mean", "std", "var", "median"}  # NaN of no value, or of a single one
_FLOORS = {"clamp", "clamp_", "clamp_min", "clip", "maximum", "where", "nan_to_num", "add", "__add__", "__radd__", "add_", "logsumexp"}
_OWN = {"log_softmax", "cross_entropy", "binary_cross_entropy", "binary_cross_entropy_with_logits", "logsigmoid"}
_IS_NAN = re.compile(r"made 1 of 1 (?:values|gradients) nan")
_BORN = re.compile(r"(?:^|: )(?:the backward of )?(\w+) in (the loss|\S+)")


@dataclass(frozen=True, kw_only=True)
class UnstableLoss(Rule):
    """A logarithm, a quotient, a root or an exponential of what the network says, without a floor: one sure answer makes it infinite.

    The logarithm of a softmax is -inf once a logit is 104 below the largest; functions that take logits never form the quotient. It is
    an error where the loss is where the first NaN or infinity was born, a note where it has not happened yet.

    Attributes:
        max_nonfinite: Largest healthy number of losses that are NaN or infinite.

    Reference: Blanchard, Higham & Higham 2021, Accurately computing the log-sum-exp and softmax functions.
    """

    code: ClassVar[str] = "NUM002"
    symptom: ClassVar[str | None] = "nan_or_inf"
    title: ClassVar[str] = "the loss is not numerically stable"
    causes: ClassVar[tuple[str, ...]] = ("unstable_loss",)
    needs: ClassVar[tuple[str, ...]] = ("facts.loss",)
    signal: ClassVar[tuple[str, str]] = ("unguarded_operations", "operations")
    helps: ClassVar[str] = (
        "losses that take logits (cross_entropy, binary_cross_entropy_with_logits, log_softmax); clamp before log, sqrt and /"
    )
    max_nonfinite: int = 0

    def check(self, trace: Trace) -> Iterator[Finding]:
        told, open_ended, bad = _born(trace), _open(trace), _nonfinite(trace)
        last = len(trace.steps) - 1
        if told is not None:
            message = f"the loss makes values that are not finite: {told.message}"
            evidence = Evidence(signal="nonfinite_losses", value=max(1, bad), relation=">", threshold=self.max_nonfinite, where="loss")
        elif open_ended and bad > self.max_nonfinite and _finite_outputs(trace):
            message = f"{bad} losses are NaN or infinite after finite outputs: the loss computes {_listed(open_ended)} without a floor"
            evidence = Evidence(signal="nonfinite_losses", value=bad, relation=">", threshold=self.max_nonfinite, where="loss")
        elif open_ended:
            message = (
                f"the loss computes {_listed(open_ended)} of the output without a floor: {len(open_ended)} operations can reach infinity"
            )
            evidence = Evidence(signal="unguarded_operations", value=len(open_ended), relation=">", threshold=0, where="loss")
        else:
            return
        sick = told is not None or bad > self.max_nonfinite
        found = self.finding(trace, "error" if sick else "note", message, evidence=(evidence,), where=("loss",), at=(0, last))
        yield replace(found, cause="unstable_loss")

    def value(self, trace: Trace) -> float:
        return float(len(_open(trace)))

    @classmethod
    def examples(cls) -> Examples:
        def net(*operations: str, activation: str = "softmax", broken: bool = False, event: str = "") -> Trace:
            facts = Facts(loss={"op": "other", "operations": list(operations)}, head={"activation": activation, "min": 0.0, "max": 1.0})
            loss = np.r_[np.ones(30), np.full(10, np.inf if broken else 1.0)]
            made = synthetic.run(synthetic.chain(3, facts=facts, out_abs_max=10.0), loss=loss)
            return replace(made, events=(Event(step=30, kind="bad_operation", message=event, where="loss"),)) if event else made

        empty = "first value that is not finite at step 30: mean in the loss made 1 of 1 values nan: born in the loss"
        log = "first value that is not finite at step 30: log in the loss made 3 of 64 values -inf: born in the loss"
        return Examples(
            sick=(
                net("log", "mul", "sum", broken=True),
                net("log", "gather"),
                net("log", broken=True, event=log),
                net("mean", broken=True, event=empty),
            ),
            healthy=(
                net("clamp", "log", "gather"),
                net("add", "log", "gather"),
                net("log_softmax", "gather", activation="none"),
                net("cross_entropy", activation="none", broken=True),
                net("mean", broken=True, event=empty.replace("nan", "inf")),  # of a network that diverges
                net("mse_loss", broken=True, event="first value that is not finite at step 30: linear in 2 made 4 of 64 values inf"),
            ),
        )


def _open(trace: Trace) -> list[str]:
    """Operations of the loss that have no floor: a logarithm of probabilities, where nothing keeps them from zero."""
    operations = list((trace.facts.loss or {}).get("operations", ()))
    head = trace.facts.head or {}
    if _FLOORS & set(operations) or _OWN & set(operations):
        return []
    squashed = head.get("activation") in {"softmax", "sigmoid"} or {"softmax", "sigmoid", "exp"} & set(operations)
    return [name for name in operations if name in _LOGS] if squashed else []


def _born(trace: Trace) -> Event | None:
    """The first bad operation, where it is one of the loss, or one that the loss's author wrote into the model."""
    told: Event | None = next((event for event in trace.events if event.kind == "bad_operation"), None)
    found = None if told is None else _BORN.search(told.message)
    if told is None or found is None or not (found[1] in _RISKY or (found[1] in _OF_NONE and _IS_NAN.search(told.message))):
        return None
    return told if told.where == "loss" or found[2] == "the loss" else None


def _nonfinite(trace: Trace) -> int:
    loss: Any = trace.curves.get("loss")
    values = np.array([(trace.facts.loss or {}).get("value", 0.0)], np.float64) if loss is None else loss.values
    return int((~np.isfinite(values)).sum())


def _finite_outputs(trace: Trace) -> bool:
    seen = trace.column("out_abs_max")
    return not bool(np.isinf(seen).any())


def _listed(operations: list[str]) -> str:
    return ", ".join(operations)
