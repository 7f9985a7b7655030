"""ARC007: a deep post-norm network is trained with an adaptive optimizer at its full rate from the first step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule
from evengrad.signals.through_time import is_stuck
from evengrad.types import Evidence, Facts, Finding, Trace

_ADAPTIVE = {"Adam", "AdamW", "NAdam", "Adamax", "Adadelta", "Adagrad", "RMSprop", "Lion", "Lamb"}  # RAdam warms up by itself


@dataclass(frozen=True, kw_only=True)
class PostNormWarmup(Rule):
    """With the norms behind the skips, gradients near the output are large at first, and Adam's first steps have full size all the same.

    A rate that rises over the first steps is what such networks need; with the norms inside the branches it is not. A network of few
    blocks, or one whose loss falls far enough, gets a note.

    Attributes:
        max_first_rate: Largest healthy rate of the first steps, as a share of the largest rate of the run, in [0, 1].
        min_warmup: Share of the planned steps that are the first steps: a warm-up that is over by then was none.
        min_norms: Number of norms behind skips from which the network counts as deep; an encoder's block has two.
        min_rate: Largest rate at which no warm-up is needed.
        min_plain_rate: The same of an optimizer without adaptive steps, told only where the loss does not fall.
        max_learnt: Share of the loss that must be gone for a training to do without.

    Reference: Xiong et al. 2020, https://arxiv.org/abs/2002.04745; Liu et al. 2020, https://arxiv.org/abs/2004.08249.
    """

    code: ClassVar[str] = "ARC007"
    symptom: ClassVar[str | None] = None
    title: ClassVar[str] = "norms behind the skips, and no warm-up"
    causes: ClassVar[tuple[str, ...]] = ("no_warmup",)
    needs: ClassVar[tuple[str, ...]] = ("facts.modules", "facts.optimizer", "curves.lr")
    signal: ClassVar[tuple[str, str]] = ("first_rate", "of the largest rate")
    helps: ClassVar[str] = "a rate that rises over the first tenth of the steps; norms inside the branches (norm_first=True)"
    max_first_rate: float = 0.5
    min_warmup: float = 0.01
    min_norms: int = 8
    min_rate: float = 1e-3
    min_plain_rate: float = 0.1
    max_learnt: float = 0.8

    def check(self, trace: Trace) -> Iterator[Finding]:
        norms, share = self._norms(trace), self.value(trace)
        optimizer = (trace.facts.optimizer or {}).get("name")
        largest = float(trace.curves["lr"].values.max())
        adaptive = optimizer in _ADAPTIVE
        if not norms or not share > self.max_first_rate or largest < (self.min_rate if adaptive else self.min_plain_rate):
            return
        if not adaptive and (len(norms) < self.min_norms or not is_stuck(trace, self.max_learnt)):
            return
        severity = "note" if len(norms) < self.min_norms or not is_stuck(trace, self.max_learnt) else "warning"
        message = (
            f"{len(norms)} norms stand behind skips, and {optimizer} begins at {share:.0%} of its largest rate ({largest:.2g}): "
            f"its first steps are of full size"
        )
        evidence = Evidence(signal="first_rate", value=share, relation=">", threshold=self.max_first_rate, unit="of the largest rate")
        found = self.finding(trace, severity, message, evidence=(evidence,), where=("optimizer",), at=(0, 0))
        yield replace(found, cause="no_warmup")

    def value(self, trace: Trace) -> float:
        rate = trace.curves.get("lr")
        if not self._norms(trace) or rate is None or not len(rate.values) or not np.nanmax(rate.values) > 0:
            return float("nan")
        first = min(len(rate.values) - 1, int(self.min_warmup * max(len(rate.values), int((trace.facts.loop or {}).get("steps") or 0))))
        return float(rate.values[first] / np.nanmax(rate.values))

    @staticmethod
    def _norms(trace: Trace) -> list[str]:
        return list((trace.facts.modules or {}).get("post_norms") or ())

    @classmethod
    def examples(cls) -> Examples:
        steps, stuck = np.arange(100), np.full(100, 2.3)

        def net(rate: np.ndarray[tuple[int], np.dtype[np.float64]], *, norms: int = 12, optimizer: str = "Adam") -> Trace:
            facts = Facts(modules={"post_norms": [f"norm{i}" for i in range(norms)]}, optimizer={"name": optimizer})
            return synthetic.run(synthetic.chain(3, facts=facts, out_spread=1.0), lr=rate, loss=stuck)

        flat = np.full(100, 4e-3)
        short = net(flat * np.minimum(1.0, (steps + 1) / 3))  # counted in epochs, and stepped each batch
        return Examples(
            sick=(net(flat), net(flat * (1 - steps / 200)), net(flat, norms=4), net(100 * flat, optimizer="SGD"), short),
            healthy=(
                net(flat * (steps + 30) / 100),
                net(flat, optimizer="SGD"),
                net(100 * flat, optimizer="SGD", norms=4),
                net(flat, norms=0),
                net(flat / 10),
            ),
        )
