"""ARC006: the scores of an attention are so large that each query sees a single key."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule, names
from evengrad.signals.curves import thrives
from evengrad.types import Finding, Series, Trace


@dataclass(frozen=True, kw_only=True)
class AttentionLogits(Rule):
    """Products of queries and keys are so large that their softmax puts all weight on one key, and passes no gradient.

    Networks that train have logits of about ten, and stay below a hundred; runs that diverge pass a hundred on their way to ten thousand.
    Size alone is no fault, since equal logits shift nothing: the weights must have collapsed as well.

    Attributes:
        max_logit: Largest healthy logit, scaled as the softmax gets it.
        min_entropy: Smallest healthy mean entropy of a query's weights, as a share of the largest possible one, in [0, 1].
        error_logit: Logit from which it is an error where the loss does not fall.

    Reference: Wortsman et al. 2023, https://arxiv.org/abs/2309.14322; Zhai et al. 2023, https://arxiv.org/abs/2303.06296.
    """

    code: ClassVar[str] = "ARC006"
    symptom: ClassVar[str | None] = "saturated_activation"
    title: ClassVar[str] = "attention has collapsed onto single keys"
    causes: ClassVar[tuple[str, ...]] = ("attention_logits", "lr_too_high", "bad_init_large")
    needs: ClassVar[tuple[str, ...]] = ("logit_abs_max",)
    signal: ClassVar[tuple[str, str]] = ("logit_abs_max", "")
    helps: ClassVar[str] = (
        "logits divided by the root of the width of a head; queries and keys normed before their product; smaller weights"
    )
    max_logit: float = 100.0
    min_entropy: float = 0.25
    error_logit: float = 1000.0

    def check(self, trace: Trace) -> Iterator[Finding]:
        logits, sick = trace.column("logit_abs_max").astype(np.float64), self._sick(trace)
        seen = np.flatnonzero(~np.isnan(logits).all(1))
        if not len(seen) or not sick[seen[-1]].any():
            return
        last, first = int(seen[-1]), int(seen[np.argmax(sick[seen].any(1))])
        values = np.where(sick[last], logits[last], -1.0)
        rows = [int(i) for i in np.argsort(-values) if values[i] > 0]
        from_the_start = first == seen[0]
        severity = "error" if values[rows[0]] >= self.error_logit else "warning"
        if thrives(trace):
            severity = "warning" if from_the_start else "note"
        message = self._message(trace, rows, last, since=int(trace.steps[first]))
        evidence = self.evidence_at(trace, rows, values, ">", self.max_logit)
        found = self.finding(trace, severity, message, evidence=evidence, where=names(trace, rows), at=(first, last))
        yield replace(found, cause="attention_logits") if from_the_start else found

    def value(self, trace: Trace) -> float:
        logits = trace.column("logit_abs_max").astype(np.float64)
        seen = np.flatnonzero(~np.isnan(logits).all(1))
        return float(np.nanmax(logits[seen[-1]])) if len(seen) else float("nan")

    def _sick(self, trace: Trace) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        entropy = trace.column("attention_entropy")
        collapsed = np.isnan(entropy) | (entropy < self.min_entropy)
        return (trace.column("logit_abs_max") > self.max_logit) & collapsed

    def _message(self, trace: Trace, rows: list[int], index: int, since: int) -> str:
        largest: float = trace.column("logit_abs_max")[index, rows[0]]
        entropy = float(trace.column("attention_entropy")[index, rows[0]])
        spread = "" if np.isnan(entropy) else f", and its weights keep {entropy:.0%} of their possible entropy"
        others = f"; {len(rows)} attentions are like this" if len(rows) > 1 else ""
        return f"attention logits reach {largest:.3g} at {trace.layers[rows[0]].name}{spread}, since step {since}{others}"

    @classmethod
    def examples(cls) -> Examples:
        def net(logits: Series | list[float], entropy: list[float], *, loss: Series | None = None) -> Trace:
            steps, kind = len(logits), {"kind": "attention"}
            sizes, spreads = np.reshape(logits, (-1, 1)), np.reshape(entropy, (-1, 1))
            trace = synthetic.chain(1, steps=steps, layer=kind, logit_abs_max=sizes, attention_entropy=spreads)
            return trace if loss is None else synthetic.run(trace, loss=loss)

        stuck = np.full(100, 2.3)
        return Examples(
            sick=(net([4.0, 140.0, 20000.0], [0.9, 0.2, 0.0], loss=stuck), net([1400.0], [0.01]), net([120.0], [0.2])),
            healthy=(
                net([3.0, 8.0, 14.0], [0.9, 0.6, 0.4]),
                net([80.0], [0.05]),  # near miss: sharp, as a copy task is once it is learnt
                net([150.0], [0.8]),  # large, but much the same for all keys
                net([1400.0, 5.0], [0.0, 0.9]),  # it came back
            ),
        )
