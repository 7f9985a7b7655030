"""NRM002: batch norm takes its statistics over a handful of values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule
from evengrad.signals.curves import progress
from evengrad.types import Evidence, Facts, Finding, Trace


@dataclass(frozen=True, kw_only=True)
class NormBatch(Rule):
    """Mean and deviation of a few values are mostly noise: of two values a batch norm leaves the sign alone, of one nothing.

    What evaluation then uses are averages of that noise, so training and evaluation see different networks. Positions of one image are
    alike: a few images are few values, however large they are.

    Attributes:
        min_values: Smallest healthy number of values that each channel's statistics are taken over.
        min_samples: Smallest healthy number of samples that they come from.
        min_learnt: Share of the loss that is gone in a run that suffers no harm.

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
    min_samples: int = 5
    min_learnt: float = 0.6

    def check(self, trace: Trace) -> Iterator[Finding]:
        normed, ran = _normed(trace), progress(trace)
        samples = trace.run.samples
        few = [n for n in normed if n["values"] < self.min_values or (samples < self.min_samples and ran is not None)]
        if not few:
            return
        worst = min(few, key=lambda norm: norm["values"])
        count = int(worst["values"])
        more = f"; {len(few)} norms are like this" if len(few) > 1 else ""
        span = f"{count} value{'s' * (count != 1)} of {samples} sample{'s' * (samples != 1)}"
        message = f"{worst['name']} takes the statistics of each channel over {span}: mostly noise{more}"
        values = Evidence(signal="norm_values", value=count, relation="<", threshold=self.min_values, unit="values a channel")
        images = Evidence(signal="samples", value=samples, relation="<", threshold=self.min_samples, unit="samples")
        evidence = values if count < self.min_values else images
        severity = "note" if ran is not None and ran.learnt >= self.min_learnt else "warning"
        known = {layer.name for layer in trace.layers}
        behind = {layer.norm_module: layer.name for layer in trace.layers if layer.norm_module is not None}
        where = tuple(dict.fromkeys(n["name"] if n["name"] in known else behind.get(n["name"], "inputs") for n in few))
        found = self.finding(trace, severity, message, evidence=(evidence,), where=where, at=(0, len(trace.steps) - 1))
        yield replace(found, cause="batch_too_small")

    def value(self, trace: Trace) -> float:
        return float(min((norm["values"] for norm in _normed(trace)), default=np.inf))

    @classmethod
    def examples(cls) -> Examples:
        def net(values: int, *, samples: int = 128, training: bool = True, **curves: Any) -> Trace:
            norm = {"name": "1", "kind": "BatchNorm1d", "training": training, "values": values}
            made = synthetic.chain(3, layer={"norm": "batch_norm", "norm_module": "1"}, facts=Facts(modules={"norms": [norm]}))
            return synthetic.run(replace(made, run=replace(made.run, samples=samples)), **curves)

        stuck = np.full(40, 1.0)
        return Examples(
            sick=(net(2), net(7), net(2, loss=stuck), net(128, samples=4, loss=stuck)),
            healthy=(net(8), net(128), net(2, training=False), net(320, samples=5, loss=stuck)),
        )


def _normed(trace: Trace) -> list[dict[str, Any]]:
    """Batch norms that use the statistics of the batch."""
    norms = (trace.facts.modules or {}).get("norms", ())
    return [n for n in norms if n.get("values") and n.get("training", True) and "Batch" in str(n.get("kind"))]
