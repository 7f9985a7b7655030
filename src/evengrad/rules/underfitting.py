"""GEN004: the network is too small for what its data show can be learnt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule
from evengrad.rules.over_time import seen_over
from evengrad.signals.curves import Progress, progress, seen_share, smoothed
from evengrad.signals.scale import units
from evengrad.signals.steps import usual_ratio
from evengrad.signals.why import STILL, VIOLENT
from evengrad.types import Evidence, Facts, Finding, Layer, Trace


@dataclass(frozen=True, kw_only=True)
class Underfitting(Rule):
    """Steps are healthy and the loss has settled, but high: a layer of a few units lets hardly anything of the inputs through.

    That more can be learnt is taken from the data: near inputs have like targets. Without that (unless a single unit has to tell all), or
    with a wider network, a flat loss is a plateau like another (OPT003).

    Attributes:
        max_width: Widest layer that counts as a bottleneck, in units.
        max_learnt: Share of what can be learnt that is gone at most, in [0, 1].
        min_flat_change: Largest change over the last third of the run that counts as settled, as a share of the constant answer's loss.

    Reference: Goodfellow, Bengio & Courville 2016, Deep Learning, sec. 5.2 (capacity and underfitting).
    """

    code: ClassVar[str] = "GEN004"
    symptom: ClassVar[str | None] = "plateau"
    title: ClassVar[str] = "the network is too small for its data"
    causes: ClassVar[tuple[str, ...]] = ("capacity_too_small",)
    needs: ClassVar[tuple[str, ...]] = ("curves.loss", "weight_norm", "update_norm")
    signal: ClassVar[tuple[str, str]] = ("narrowest_layer", "units")
    helps: ClassVar[str] = "wider layers: at least as many units as there are classes, 16 or more for points in a plane; a hidden layer"
    max_width: int = 3
    max_learnt: float = 0.7
    min_flat_change: float = 0.15

    def check(self, trace: Trace) -> Iterator[Finding]:
        found, width, ratio = progress(trace), self.value(trace), usual_ratio(trace)
        if (
            found is None
            or not width <= self.max_width
            or not np.isfinite(found.end)
            or (found.learnable >= 1 and width > 1)
            or seen_share(trace) < 0.5
        ):
            return
        if (trace.facts.targets or {}).get("shape") == (trace.facts.inputs or {}).get("shape") and width > 1:
            return  # an autoencoder is narrow on purpose; not so narrow that one number has to tell all
        healthy = ratio is not None and STILL < ratio < VIOLENT
        if not healthy or found.learnt > self.max_learnt * found.learnable or not self._settled(trace, found):
            return
        narrow = min(_inner(trace), key=units, default=trace.layers[0]).name
        name, unit = self.signal
        evidence = Evidence(signal=name, value=width, relation="<=", threshold=self.max_width, unit=unit, where=narrow)
        known = found.learnable < 1
        more = (
            f", where neighbours of like inputs show that {found.learnable:.0%} can be: "
            if known
            else ", and all has to come through one: "
        )
        what = f"{narrow} has {width:.0f} unit{'s' if width > 1 else ''}" if width else "0 hidden layers"
        message = f"the loss settles at {found.end:.3g} with {max(0.0, found.learnt):.0%} learnt{more}{what}"
        yield seen_over(self, trace, "warning", message, evidence, first=0, where=(narrow,), cause="capacity_too_small")

    def value(self, trace: Trace) -> float:
        """Units of the narrowest layer but the last; 0 without hidden layers."""
        widths = [units(layer) for layer in _inner(trace)]
        return float(min(widths)) if widths else 0.0 if len(trace.layers) == 1 else np.nan

    def _settled(self, trace: Trace, found: Progress) -> bool:
        means = smoothed(trace.curves["loss"].values)
        return bool(means[-7] - means[-1] < self.min_flat_change * abs(found.reference)) if len(means) >= 7 else False

    @classmethod
    def examples(cls) -> Examples:
        near = {
            "shape": [64],
            "labels": {"0": 500, "1": 500},
            "neighbour_agreement": 0.97,
            "neighbour_chance": 0.5,
            "neighbour_error": 0.02,
        }

        def net(width: int, end: float, *, depth: int = 3, agreement: float = 0.97, ratio: float = 3e-3) -> Trace:
            facts = Facts(loss={"baseline": 0.693, "value": 0.7, "op": "cross_entropy"}, targets=near | {"neighbour_agreement": agreement})
            base = synthetic.chain(depth, width=width, steps=4, facts=facts, weight_norm=1.0, update_norm=ratio)
            return synthetic.run(base, loss=end + (0.7 - end) * np.exp(-np.arange(300) / 30))

        return Examples(
            sick=(net(2, 0.5), net(1, 0.69), net(3, 0.6), net(32, 0.6, depth=1)),
            healthy=(net(32, 0.5), net(32, 0.1, depth=1), net(2, 0.1), net(2, 0.4, agreement=0.75), net(2, 0.6, ratio=1e-6)),
        )


def _inner(trace: Trace) -> list[Layer]:
    """Layers that all has to come through: every one but the last, and an embedding that has no other beside it."""
    alone = sum(x.kind == "embedding" for x in trace.layers) == 1
    return [x for x in trace.layers[:-1] if x.depth is not None or (alone and x.kind == "embedding")]
