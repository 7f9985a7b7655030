"""ARC008: the forget gates of an LSTM are shut, so that it forgets within a few steps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule
from evengrad.signals.curves import thrives
from evengrad.signals.through_time import PLANE, along_time, looks
from evengrad.types import Evidence, Facts, Finding, Floats, Trace


@dataclass(frozen=True, kw_only=True)
class ForgetGate(Rule):
    """An LSTM keeps sigmoid(forget bias) of its memory at each step: at 0 a thousandth is left after ten steps, at -2 after five.

    torch's own initialiser leaves the bias near 0, which is enough for short memories; so that is told in a note, and only where the
    gradient is seen to vanish through time. A bias far below zero is told wherever it is seen.

    Attributes:
        min_bias: Smallest healthy bias, both of torch's bias vectors added.
        open_bias: Bias from which memories last.
        max_lost_decades: Loss of the gradient through time from which a bias below `open_bias` is worth a note, in decades.

    Reference: Gers, Schmidhuber & Cummins 2000; Jozefowicz, Zaremba & Sutskever 2015.
    """

    code: ClassVar[str] = "ARC008"
    symptom: ClassVar[str | None] = "vanishing_gradient"
    title: ClassVar[str] = "forget gates are shut"
    causes: ClassVar[tuple[str, ...]] = ("long_memory",)
    needs: ClassVar[tuple[str, ...]] = ("facts.modules",)
    signal: ClassVar[tuple[str, str]] = ("forget_bias", "")
    helps: ClassVar[str] = "a forget-gate bias of 1 or more before training: the second quarter of bias_ih and bias_hh, added"
    min_bias: float = -1.5
    open_bias: float = 0.5
    max_lost_decades: float = 3.0

    def check(self, trace: Trace) -> Iterator[Finding]:
        held = self._biases(trace)
        lost = self._lost(trace)
        shut = {name: b for name, b in held.items() if b < self.min_bias}
        weak = {name: b for name, b in held.items() if b < self.open_bias and lost.get(name, 0.0) > self.max_lost_decades}
        found, limit = (shut, self.min_bias) if shut else (weak, self.open_bias)
        if not found or (not shut and thrives(trace)):
            return
        name, bias = min(found.items(), key=lambda pair: pair[1])
        severity = "note" if not shut or thrives(trace) else "warning"
        message = f"the forget bias of {name} is {bias:.2g}: its gates keep {_sigmoid(bias):.2g} of a memory at each step"
        message += f", and the gradient loses {lost[name]:.1f} decades through time" if name in lost else ""
        evidence = Evidence(signal="forget_bias", value=bias, relation="<", threshold=limit, where=name)
        made = self.finding(trace, severity, message, evidence=(evidence,), where=(name,), at=(0, 0))
        yield replace(made, cause="long_memory")

    def value(self, trace: Trace) -> float:
        return min(self._biases(trace).values(), default=float("nan"))

    @staticmethod
    def _biases(trace: Trace) -> dict[str, float]:
        rows = {layer.name for layer in trace.layers}
        held = (trace.facts.modules or {}).get("forget_bias") or {}
        return {name: float(bias) for name, bias in held.items() if name in rows and math.isfinite(bias)}

    @staticmethod
    def _lost(trace: Trace) -> dict[str, float]:
        seen = looks(trace)
        return {trace.layers[x.row].name: x.lost for x in along_time(trace, int(seen[-1]))} if len(seen) else {}

    @classmethod
    def examples(cls) -> Examples:
        def net(bias: float, lost: float | None = None, *, loss: Floats | None = None) -> Trace:
            facts = Facts(modules={"forget_bias": {"0": bias}})
            plane = {} if lost is None else {PLANE: 10.0 ** np.linspace(-lost, 0, 32).reshape(1, 1, 32)}
            trace = synthetic.chain(1, layer={"kind": "lstm"}, facts=facts, out_spread=1.0)
            return synthetic.run(trace, plane, **({} if loss is None else {"loss": loss}))

        fallen = np.geomspace(1.8, 0.05, 200).astype(np.float32)
        return Examples(
            sick=(net(-4.0), net(-1.6), net(0.0, 8.0), net(-4.0, 8.0, loss=fallen)),
            healthy=(net(0.0), net(1.0, 8.0), net(0.02, 2.5), net(-1.4), net(0.0, 8.0, loss=fallen)),
        )


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x > -700 else 0.0
