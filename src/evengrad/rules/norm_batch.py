"""NRM002: batch norm takes its statistics over a handful of values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule
from evengrad.signals.curves import thrives
from evengrad.types import Evidence, Facts, Finding, Trace


@dataclass(frozen=True, kw_only=True)
class NormBatch(Rule):
    """Mean and deviation of a few values are mostly noise: of two values a batch norm leaves the sign alone, of one nothing.

    What evaluation then uses are averages of that noise, so training and evaluation see different networks.

    Attributes:
        min_values: Smallest healthy number of values that each channel's statistics are taken over.

    Reference: Wu & He 2018, Group normalization, fig. 1 (the error rises below batches of 8); Ioffe 2017, Batch renormalization.
    """

    code: ClassVar[str] = "NRM002"
    symptom: ClassVar[str | None] = "train_eval_gap"
    title: ClassVar[str] = "batch norm over very few values"
    causes: ClassVar[tuple[str, ...]] = ("batch_too_small",)
    needs: ClassVar[tuple[str, ...]] = ("facts.modules",)
    signal: ClassVar[tuple[str, str]] = ("norm_values", "values a channel")
    helps: ClassVar[str] = "larger batches, group or layer norm in place of batch norm, or running statistics that are frozen"
    min_values: int = 8

    def check(self, trace: Trace) -> Iterator[Finding]:
        few = [norm for norm in _normed(trace) if norm["values"] < self.min_values]
        if not few:
            return
        worst = min(few, key=lambda norm: norm["values"])
        count = int(worst["values"])
        more = f"; {len(few)} norms are like this" if len(few) > 1 else ""
        message = f"{worst['name']} takes the statistics of each channel over {count} value{'s' * (count != 1)}: mostly noise{more}"
        evidence = Evidence(signal="norm_values", value=count, relation="<", threshold=self.min_values, unit="values a channel")
        severity = "note" if thrives(trace) else "warning"
        known = {layer.name for layer in trace.layers}
        behind = {layer.norm_module: layer.name for layer in trace.layers if layer.norm_module is not None}
        where = tuple(dict.fromkeys(n["name"] if n["name"] in known else behind.get(n["name"], "inputs") for n in few))
        found = self.finding(trace, severity, message, evidence=(evidence,), where=where, at=(0, len(trace.steps) - 1))
        yield replace(found, cause="batch_too_small")

    def value(self, trace: Trace) -> float:
        return float(min((norm["values"] for norm in _normed(trace)), default=np.inf))

    @classmethod
    def examples(cls) -> Examples:
        def net(values: int, *, training: bool = True, **curves: Any) -> Trace:
            norm = {"name": "1", "kind": "BatchNorm1d", "training": training, "values": values}
            made = synthetic.chain(3, layer={"norm": "batch_norm", "norm_module": "1"}, facts=Facts(modules={"norms": [norm]}))
            return synthetic.run(made, **curves) if curves else made

        return Examples(sick=(net(2), net(7), net(2, loss=np.full(40, 1.0))), healthy=(net(8), net(128), net(2, training=False)))


def _normed(trace: Trace) -> list[dict[str, Any]]:
    """Batch norms that use the statistics of the batch."""
    norms = (trace.facts.modules or {}).get("norms", ())
    return [n for n in norms if n.get("values") and n.get("training", True) and "Batch" in str(n.get("kind"))]
