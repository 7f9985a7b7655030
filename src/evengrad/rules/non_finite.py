"""NUM001: a value is NaN or infinite."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule, place
from evengrad.types import Curve, Event, Evidence, Facts, Finding, Trace

_ORDER = (("weight_abs_max", "weights"), ("out_abs_max", "output"), ("grad_out_abs_max", "gradient"), ("grad_abs_max", "weight gradient"))
_DATA = ("inputs", "targets")  # where the first bad operation is none: the data bring it


@dataclass(frozen=True, kw_only=True)
class NonFinite(Rule):
    """A NaN or an infinity appears; everything computed from it is lost.

    What comes first is named: the operation, where its step was run again; the inputs, else the first layer whose weights or output are
    not finite, else the last layer whose gradient is not (backward starts there), else the loss.

    Attributes:
        max_nonfinite: Largest healthy number of places with a value that is not finite.

    Reference: Goldberg 1991, What every computer scientist should know about floating-point arithmetic.
    """

    code: ClassVar[str] = "NUM001"
    symptom: ClassVar[str | None] = "nan_or_inf"
    title: ClassVar[str] = "a value is NaN or infinite"
    causes: ClassVar[tuple[str, ...]] = ("data_nan", "lr_too_high", "bad_init_large", "unstable_loss", "no_grad_clip")
    needs: ClassVar[tuple[str, ...]] = ("out_abs_max",)
    signal: ClassVar[tuple[str, str]] = ("nonfinite_places", "places")
    helps: ClassVar[str] = "clean the data; a smaller rate or clipping by norm; a smaller initialisation; losses that take logits"
    max_nonfinite: int = 0

    def check(self, trace: Trace) -> Iterator[Finding]:
        steps = [i for i in range(len(trace.steps)) if self._count(trace, i) > self.max_nonfinite]
        inputs = (trace.facts.inputs or {}).get("nonfinite_fraction", 0.0)
        bad_loss, told = _bad_loss(trace), _told(trace)
        if not len(trace.steps) or (not steps and not inputs and bad_loss is None and told is None):
            return
        since = told.step if told is not None else bad_loss or 0
        before = int(np.searchsorted(trace.steps, since, side="right")) - 1  # the last sampled step before
        index = steps[0] if steps else max(0, before)
        message, where = self._first(trace, index, inputs, bad_loss)
        count = self._count(trace, index) + _elsewhere(trace)
        evidence = Evidence(
            signal="nonfinite_places", value=count, relation=">", threshold=self.max_nonfinite, unit="places", step=int(trace.steps[index])
        )
        found = self.finding(trace, "error", message, evidence=(evidence,), where=where, at=(index, steps[-1] if steps else index))
        in_data = inputs or (told is not None and told.where in _DATA)
        cause = "data_nan" if in_data else "unstable_loss" if _made_by_the_loop(trace, told) else None
        yield replace(found, cause=cause)

    def value(self, trace: Trace) -> float:
        return float(self._count(trace, len(trace.steps) - 1) + _elsewhere(trace))

    def _count(self, trace: Trace, index: int) -> int:
        return sum(len(rows) for rows in self._bad(trace, index).values())

    def _bad(self, trace: Trace, index: int) -> dict[str, list[int]]:
        """Rows that are not finite, a column: a largest magnitude is recorded as infinite where any element is NaN or infinite."""
        return {name: [int(i) for i in np.flatnonzero(np.isinf(trace.column(name)[index]))] for name, _ in _ORDER}

    def _first(self, trace: Trace, index: int, inputs: float, bad_loss: int | None) -> tuple[str, tuple[str, ...]]:
        told = _told(trace)
        if told is not None and not (inputs and told.step == 0):
            return told.message, (told.where if told.where in {*_DATA, *(layer.name for layer in trace.layers)} else "loss",)
        at = f"at step {trace.steps[index]}"
        if inputs:
            share = f"{inputs:.1%} of the input values are NaN or infinite"
            return f"{share}: everything computed from them is lost. Clean the data first", ("inputs",)
        bad = self._bad(trace, index)
        for name, word in _ORDER:
            rows = bad.get(name, [])
            if rows:
                row = rows[0] if name in {"weight_abs_max", "out_abs_max"} else rows[-1]
                more = f"; {len(rows) - 1} more layers follow" if len(rows) > 1 else ""
                return f"the first NaN or infinity {at} is in the {word} of {place(trace, row)}{more}", tuple(
                    trace.layers[i].name for i in rows
                )
        if np.isnan(trace.column("out_abs_max")[index]).all():
            return f"the loss is NaN or infinite from step {bad_loss}; no layer was looked at then", ("loss",)
        return f"the loss is NaN or infinite from step {bad_loss}, after finite outputs: the loss itself makes it", ("loss",)

    @classmethod
    def examples(cls) -> Examples:
        nan, inf = float("nan"), float("inf")
        late = Curve(np.arange(2, dtype=np.int64), np.array([1.0, nan]))
        born = synthetic.chain(3, out_abs_max=1.0, grad_out_abs_max=1.0)
        return Examples(
            sick=(
                synthetic.chain(4, out_abs_max=[1.0, 2.0, inf, inf], grad_out_abs_max=inf),
                synthetic.chain(3, out_abs_max=1.0, grad_out_abs_max=[inf, 1e30, 1.0]),
                synthetic.chain(3, out_abs_max=1.0, facts=Facts(inputs={"nonfinite_fraction": 0.01})),
                type(born)(run=born.run, layers=born.layers, columns=born.columns, curves={"loss": late}),
                replace(born, events=(Event(step=0, kind="bad_operation", message="log in 2 made 1 of 64 values -inf"),)),
                replace(born, events=(Event(step=0, kind="bad_operation", message="3 of 64 values of input are nan", where="inputs"),)),
            ),
            healthy=(
                synthetic.chain(4, out_abs_max=3e38, grad_out_abs_max=1e-45),
                synthetic.chain(3, out_abs_max=1.0, grad_out_abs_max=[nan, 1.0, 1.0]),  # NaN: unseen (frozen)
            ),
        )


def _elsewhere(trace: Trace) -> int:
    """Counts the inputs and the loss, which are places too."""
    return bool((trace.facts.inputs or {}).get("nonfinite_fraction")) + (_bad_loss(trace) is not None or _told(trace) is not None)


def _told(trace: Trace) -> Event | None:
    """The first bad operation, where its step was run again."""
    return next((event for event in trace.events if event.kind == "bad_operation"), None)


def _bad_loss(trace: Trace) -> int | None:
    loss = trace.curves.get("loss")
    if loss is None:
        value = (trace.facts.loss or {}).get("value", 0.0)
        return None if np.isfinite(value) else int(trace.steps[0])
    bad = np.flatnonzero(~np.isfinite(loss.values))
    return int(loss.steps[bad[0]]) if len(bad) else None


def _made_by_the_loop(trace: Trace, told: Event | None) -> bool:
    """True if weights are not finite before any operation of a step, though the step before had a usual loss and finite gradients.

    What the user's own step adds to the loss (a penalty, a norm) then has made them.
    """
    loss, dtypes = trace.curves.get("loss"), (trace.facts.modules or {}).get("dtypes") or ["float32"]
    if told is None or loss is None or "before any operation" not in told.message or (trace.facts.loop or {}).get("standard", True):
        return False
    before, gradients = loss.values[: told.step], trace.column("grad_raw_abs_max")[trace.steps < told.step]
    facts = trace.facts.loop or {}
    if facts.get("overflown") and float(facts.get("rounded_gradients", 0.0)) > 0.98:  # by the step itself: OPT018
        return False
    if not len(before) or not len(gradients) or set(dtypes) & {"float16", "bfloat16"}:
        return False
    calm = bool(np.isfinite(before).all()) and before[-1] <= 3.0 * abs(before[0])
    seen = gradients[-1][~np.isnan(gradients[-1])]
    return bool(calm and len(seen) and np.isfinite(seen).all() and float(seen.max()) < 1e4)
