"""INI003: the weights of a layer lean to one side."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule, deep_rows, names, place
from evengrad.signals.curves import thrives
from evengrad.signals.scale import weight_rms
from evengrad.types import Finding, Series, Trace

_CHANCE = 3.5  # standard errors of a mean: a few weights have one by chance, this far off once in 2,000 layers


@dataclass(frozen=True, kw_only=True)
class ShiftedWeights(Rule):
    """Weights have a mean far from zero, as after uniform(0, 1), so every unit is driven the same way by what its inputs share.

    The common part grows with the fan-in, the differences between units only with its root: units saturate, or repeat each other.

    Attributes:
        max_mean_ratio: Largest healthy |mean| / RMS of a layer's weights, in [0, 1].
        constant_ratio: Ratio from which the weights are all but equal, and not only of one sign, in [0, 1].

    Reference: LeCun, Bottou, Orr & Müller 1998, Efficient BackProp, sec. 4.6.
    """

    code: ClassVar[str] = "INI003"
    symptom: ClassVar[str | None] = None
    title: ClassVar[str] = "weights lean to one side"
    causes: ClassVar[tuple[str, ...]] = ("bad_init_large", "constant_init")
    needs: ClassVar[tuple[str, ...]] = ("weight_norm", "weight_mean")
    signal: ClassVar[tuple[str, str]] = ("mean_ratio", "of the RMS")
    helps: ClassVar[str] = "an initialiser with mean zero: evengrad.initialize_(model)"
    max_mean_ratio: float = 0.5
    constant_ratio: float = 0.98

    def check(self, trace: Trace) -> Iterator[Finding]:
        if trace.steps[0] != 0:
            return
        means = self._means(trace)
        rows = [int(i) for i in np.argsort(-np.nan_to_num(means)) if means[i] > self.max_mean_ratio]
        if not rows:
            return
        row = rows[0]
        share = f"mean {trace.column('weight_mean')[0, row]:+.2g}, {means[row]:.0%} of their RMS"
        more = f"; {len(rows)} layers are like this" if len(rows) > 1 else ""
        message = f"the weights of {place(trace, row)} have {share}: every unit is driven the same way{more}"
        evidence = self.evidence_at(trace, rows, means, ">", self.max_mean_ratio)
        severity = "note" if thrives(trace) else "warning"
        found = self.finding(trace, severity, message, evidence=evidence, where=names(trace, rows), at=(0, 0))
        yield replace(found, cause="constant_init" if means[row] > self.constant_ratio else "bad_init_large")

    def value(self, trace: Trace) -> float:
        return float(np.nanmax(self._means(trace), initial=0.0))

    def _means(self, trace: Trace) -> Series:
        """|mean| / RMS of the weights of each linear row (L,); zero where it is within what chance gives."""
        out = np.full(len(trace.layers), np.nan)
        for i in deep_rows(trace):
            layer, rms = trace.layers[i], weight_rms(trace, i)
            if layer.kind == "linear" and 0 < rms < math.inf:
                ratio = abs(float(trace.column("weight_mean")[0, i])) / rms
                out[i] = ratio if ratio * math.sqrt(layer.fan_in * layer.fan_out) > _CHANCE else 0.0
        return out

    @classmethod
    def examples(cls) -> Examples:
        def net(rms: float, mean: float) -> Trace:
            return synthetic.chain(3, weight_norm=rms * 64, weight_mean=mean)

        return Examples(
            sick=(net(0.577, 0.5), net(0.1, -0.1), net(1.0, 0.55)),  # uniform(0, 1), all equal, near miss
            healthy=(net(0.577, 0.0), net(1.0, 0.45), synthetic.chain(3, width=2, weight_norm=1.0, weight_mean=0.4)),
        )
