"""NRM001: a norm that subtracts the mean follows a layer with a bias."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule, names, place
from evengrad.types import Evidence, Finding, Trace

_CENTRES = {"batch_norm", "instance_norm"}  # a layer norm subtracts one mean from all units, and leaves what tells their biases apart


@dataclass(frozen=True, kw_only=True)
class BiasBeforeNorm(Rule):
    """The mean that the norm subtracts holds the bias, so the bias changes nothing and gets no gradient; the norm has its own.

    Harmless, a few parameters too many: always a note.

    Attributes:
        max_biased_layers: Largest number of such layers that is not worth a note.

    Reference: Ioffe & Szegedy 2015, sec. 3.2.
    """

    code: ClassVar[str] = "NRM001"
    symptom: ClassVar[str | None] = None
    title: ClassVar[str] = "a bias before a batch norm"
    causes: ClassVar[tuple[str, ...]] = ("bn_stats",)
    needs: ClassVar[tuple[str, ...]] = ("weight_norm",)
    signal: ClassVar[tuple[str, str]] = ("biased_layers", "layers")
    helps: ClassVar[str] = "bias=False in the layers before a batch norm"
    max_biased_layers: int = 0

    def check(self, trace: Trace) -> Iterator[Finding]:
        rows = _rows(trace)
        if len(rows) <= self.max_biased_layers:
            return
        norm = trace.layers[rows[0]].norm.replace("_", " ")
        more = f"; {len(rows)} layers are like this" if len(rows) > 1 else ""
        biases = sum(trace.layers[i].fan_out for i in rows)
        message = f"the bias of {place(trace, rows[0])} is subtracted again by the {norm} behind it: {biases:,} parameters do nothing{more}"
        evidence = Evidence(signal="biased_layers", value=len(rows), relation=">", threshold=self.max_biased_layers, unit="layers")
        yield self.finding(trace, "note", message, evidence=(evidence,), where=names(trace, rows), at=(0, len(trace.steps) - 1))

    def value(self, trace: Trace) -> float:
        return float(len(_rows(trace)))

    @classmethod
    def examples(cls) -> Examples:
        def net(**layer: Any) -> Trace:
            return synthetic.chain(3, layer=layer, weight_norm=1.0)

        return Examples(
            sick=(net(norm="batch_norm"), net(norm="instance_norm", kind="conv")),
            healthy=(net(norm="batch_norm", bias=None), net(norm="layer_norm"), net()),
        )


def _rows(trace: Trace) -> list[int]:
    return [i for i, x in enumerate(trace.layers) if x.depth is not None and x.norm in _CENTRES and x.bias is not None]
