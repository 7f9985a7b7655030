"""ARC009: SELU without the conditions under which it normalises itself."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule, names
from evengrad.signals.curves import progress
from evengrad.signals.scale import weight_rms
from evengrad.types import Evidence, Facts, Finding, Trace


@dataclass(frozen=True, kw_only=True)
class SeluConditions(Rule):
    """SELU holds mean 0 and variance 1 over any depth only with LeCun-normal weights, standardised inputs and a plain dense chain.

    Every broken condition is named: weights of another scale, inputs that are not standardised, convolutions or recurrences, skips,
    norms, plain dropout in place of AlphaDropout. It is a warning where the run learns little, or, before training, where the spread
    across samples drifts along the layers; a note otherwise.

    Attributes:
        min_layers: Fewest SELU layers for which the fixed point matters: a few layers cannot drift far.
        max_scale: Largest healthy factor between the weights and LeCun's, either way.
        max_offset: Largest |mean| of standardised inputs.
        max_lean: Largest healthy mean of the weights, as a share of their root mean square, in [0, 1].
        max_spread: Largest factor between the inputs' deviation and 1, either way.
        max_learnt: Share of the loss that is gone in a run that suffers no harm.
        max_drift: Largest healthy factor by which the spread across samples changes from the first SELU layer to the last, either way.

    Reference: Klambauer, Unterthiner, Mayr & Hochreiter 2017, Self-normalizing neural networks, sec. 2 and thm. 1.
    """

    code: ClassVar[str] = "ARC009"
    symptom: ClassVar[str | None] = None
    title: ClassVar[str] = "SELU's conditions are broken"
    causes: ClassVar[tuple[str, ...]] = ("selu_conditions",)
    needs: ClassVar[tuple[str, ...]] = ("weight_norm",)
    signal: ClassVar[tuple[str, str]] = ("broken_conditions", "conditions")
    helps: ClassVar[str] = (
        "LeCun-normal weights, standardised inputs, dense layers in sequence, nn.AlphaDropout; or a norm and another activation"
    )
    min_layers: int = 4
    max_scale: float = 1.25
    max_offset: float = 0.5
    max_lean: float = 0.5
    max_spread: float = 2.0
    max_drift: float = 3.0
    max_learnt: float = 0.6

    def check(self, trace: Trace) -> Iterator[Finding]:
        rows, broken = _selu(trace), self._broken(trace)
        if not broken:
            return
        ran, drift = progress(trace), self._drift(trace)
        harm = drift > self.max_drift if ran is None else ran.learnt < self.max_learnt
        message = f"{len(rows)} SELU layers normalise themselves only if all conditions hold; {len(broken)} broken: {'; '.join(broken)}"
        evidence = Evidence(signal="broken_conditions", value=len(broken), relation=">", threshold=0, unit="conditions")
        severity = "warning" if harm else "note"
        found = self.finding(trace, severity, message, evidence=(evidence,), where=names(trace, rows), at=(0, len(trace.steps) - 1))
        yield replace(found, cause="selu_conditions")

    def value(self, trace: Trace) -> float:
        return float(len(self._broken(trace)))

    def _broken(self, trace: Trace) -> list[str]:
        """Every broken condition, with its number."""
        rows = _selu(trace)
        if len(rows) < self.min_layers:
            return []
        return [text for text in (self._weights(trace, rows), self._inputs(trace), _chain(trace, rows), _dropout(trace)) if text]

    def _weights(self, trace: Trace, rows: list[int]) -> str:
        if trace.steps[0] != 0:
            return ""
        ratios = [weight_rms(trace, i) * math.sqrt(trace.layers[i].fan_in) for i in rows if trace.layers[i].fan_in]
        usable = [r for r in ratios if 0 < r < math.inf]
        typical = float(np.median(usable)) if usable else 1.0
        leaning = [abs(float(trace.column("weight_mean")[0, i])) / weight_rms(trace, i) for i in rows if weight_rms(trace, i) > 0]
        if leaning and float(np.median(leaning)) > self.max_lean:
            return f"the mean of the weights is {float(np.median(leaning)):.2g} of their size, not 0"
        near = 1 / self.max_scale <= typical <= self.max_scale
        return "" if near else f"weights have ×{typical:.2g} the scale of LeCun normal"

    def _inputs(self, trace: Trace) -> str:
        facts = trace.facts.inputs or {}
        mean, std = float(facts.get("mean", 0.0)), float(facts.get("std", 1.0))
        if abs(mean) <= self.max_offset and 1 / self.max_spread <= std <= self.max_spread:
            return ""
        return f"inputs have mean {mean:.2g} and deviation {std:.2g}, not 0 and 1"

    def _drift(self, trace: Trace) -> float:
        spread = trace.column("out_spread")[0, _selu(trace)].astype(np.float64)
        spread = spread[np.isfinite(spread) & (spread > 0)]
        return float(max(spread[-1] / spread[0], spread[0] / spread[-1])) if len(spread) > 1 else 1.0

    @classmethod
    def examples(cls) -> Examples:
        def net(scale: float, *, depth: int = 8, drift: float = 10.0, inputs: Any = None, **layer: Any) -> Trace:
            return synthetic.chain(
                depth,
                layer={"activation": "selu", **layer},
                weight_norm=scale * math.sqrt(64),
                out_spread=np.geomspace(1.0, drift, depth),
                facts=Facts(inputs=inputs),
            )

        stuck = synthetic.run(net(3**-0.5, drift=1.0), loss=np.full(40, 1.0))
        dropped = replace(net(1.0), facts=Facts(modules={"dropouts": [{"name": "2", "kind": "Dropout", "p": 0.1}]}))
        alpha = replace(net(1.0), facts=Facts(modules={"dropouts": [{"name": "2", "kind": "AlphaDropout", "p": 0.1}]}))
        return Examples(
            sick=(net(1.3), net(1.0, inputs={"mean": 3.0, "std": 1.0}), net(1.0, norm="batch_norm"), net(1.0, kind="conv"), stuck, dropped),
            healthy=(net(1.2), net(0.5, depth=3), net(1.0, inputs={"mean": 0.4, "std": 0.6}), net(0.5, activation="relu"), alpha),
        )


def _selu(trace: Trace) -> list[int]:
    return [i for i, x in enumerate(trace.layers) if x.depth is not None and x.activation == "selu"]


def _chain(trace: Trace, rows: list[int]) -> str:
    """What is no plain sequential dense chain."""
    layers = [trace.layers[i] for i in rows]
    odd = {
        "not dense": sum(x.kind != "linear" for x in layers),
        "in a residual branch": sum(x.residual for x in layers),
        "behind a norm": sum(x.norm != "none" for x in layers),
    }
    return ", ".join(f"{count} of {len(layers)} layers are {what}" for what, count in odd.items() if count)


def _dropout(trace: Trace) -> str:
    """Plain dropout, where the kind is known."""
    found = [d for d in (trace.facts.modules or {}).get("dropouts", ()) if d.get("p", 0) > 0]
    plain = [d for d in found if d.get("kind") is not None and "Alpha" not in str(d["kind"])]
    return f"{len(plain)} plain dropout{'s' * (len(plain) > 1)} (p = {plain[0]['p']:g}) in place of AlphaDropout" if plain else ""
