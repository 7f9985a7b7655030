"""NRM004: norms are made and never run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule, deep_rows, names
from evengrad.signals.curves import thrives
from evengrad.types import Evidence, Facts, Finding, Trace


@dataclass(frozen=True, kw_only=True)
class IdleNorms(Rule):
    """The network owns norms that its forward pass does not call, so it trains without them.

    Someone made them, and the call was forgotten or lost: none runs, or of several most do not. A network that trains well without is
    told in a note.

    Attributes:
        max_idle_fraction: Largest healthy share of the norms that do not run, in [0, 1].

    Reference: Ioffe & Szegedy 2015, Batch normalization.
    """

    code: ClassVar[str] = "NRM004"
    symptom: ClassVar[str | None] = None
    title: ClassVar[str] = "norms that never run"
    causes: ClassVar[tuple[str, ...]] = ("missing_normalization_layer",)
    needs: ClassVar[tuple[str, ...]] = ("facts.modules",)
    signal: ClassVar[tuple[str, str]] = ("idle_norms", "norms")
    helps: ClassVar[str] = "call them in forward: h = self.norm(self.layer(h)); or delete them"
    max_idle_fraction: float = 0.5

    def check(self, trace: Trace) -> Iterator[Finding]:
        norms = (trace.facts.modules or {}).get("norms", ())
        idle = [norm["name"] for norm in norms if norm.get("idle")]
        if not idle or len(idle) <= self.max_idle_fraction * len(norms):
            return
        message = f"{len(idle)} of {len(norms)} norms ({idle[0]} first) are part of the model, and its forward pass never calls them"
        evidence = Evidence(signal="idle_norms", value=len(idle), relation=">", threshold=self.max_idle_fraction * len(norms), unit="norms")
        harmless = thrives(trace) and len(idle) < len(norms)
        severity = "note" if harmless or "loss" not in trace.curves else "warning"
        found = self.finding(
            trace, severity, message, evidence=(evidence,), where=names(trace, deep_rows(trace)), at=(0, len(trace.steps) - 1)
        )
        yield replace(found, cause="missing_normalization_layer")

    def value(self, trace: Trace) -> float:
        return float(sum(bool(norm.get("idle")) for norm in (trace.facts.modules or {}).get("norms", ())))

    @classmethod
    def examples(cls) -> Examples:
        def net(idle: int, count: int = 4) -> Trace:
            norms: list[dict[str, Any]] = [
                {"name": f"norms.{i}", "kind": "LayerNorm", **({"idle": True} if i < idle else {})} for i in range(count)
            ]
            return synthetic.run(synthetic.chain(3, facts=Facts(modules={"norms": norms})), loss=np.full(40, 1.0))

        return Examples(sick=(net(4), net(3), net(1, 1)), healthy=(net(0), net(2), net(1)))
