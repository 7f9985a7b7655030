"""ARC010: many plain layers, one on another, that do not learn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule, names
from evengrad.signals.curves import progress
from evengrad.signals.scale import matching_rms, weight_rms
from evengrad.types import Evidence, Facts, Finding, Series, Trace

_MOVING = {"relu", "relu6", "leaky_relu", "prelu", "rrelu", "elu", "celu", "selu", "gelu", "gelu_tanh", "silu", "mish", "hardswish", "tanh"}


@dataclass(frozen=True, kw_only=True)
class TooDeep(Rule):
    """A plain network of many layers, well initialised and with a usual activation, does not learn: its depth itself is what is left.

    With each layer two inputs grow alike, or apart, by a factor that no usual initialiser makes exactly one, and the gradient of the first
    layers becomes noise. Skip connections let it pass beside the layers; norms keep the factor near one.

    Attributes:
        max_plain_layers: Most layers in a row without skip or norm that are not told about.
        max_normed_layers: Most layers in a row without skip, with a norm behind most of them.
        max_learnt: Share of the loss that, once gone, shows that the depth does no harm.
        max_scale: Largest healthy factor between the weights' RMS and that of the initialiser that matches, either way, over all layers.

    Reference: He, Zhang, Ren & Sun 2016, Deep residual learning; Schoenholz et al. 2017; Balduzzi et al. 2017, Shattered gradients.
    """

    code: ClassVar[str] = "ARC010"
    symptom: ClassVar[str | None] = None
    title: ClassVar[str] = "too many plain layers to learn"
    causes: ClassVar[tuple[str, ...]] = ("too_deep_no_skip",)
    needs: ClassVar[tuple[str, ...]] = ("curves.loss", "weight_norm")
    signal: ClassVar[tuple[str, str]] = ("plain_layers", "layers")
    helps: ClassVar[str] = "residual connections around every two layers; batch or layer norm; fewer layers"
    max_plain_layers: int = 24
    max_normed_layers: int = 40
    max_learnt: float = 0.5
    max_scale: float = 1.6

    def check(self, trace: Trace) -> Iterator[Finding]:
        rows, ran = self._plain(trace), progress(trace)
        most = self._most(trace, rows)
        if len(rows) <= most or ran is None or ran.learnt > self.max_learnt or not self._well_made(trace, rows):
            return
        evidence = Evidence(signal="plain_layers", value=len(rows), relation=">", threshold=most, unit="layers")
        gone = f"{max(0.0, ran.learnt):.0%} of the loss is gone at the end"
        lacks = "neither skip connection nor norm" if most == self.max_plain_layers else "no skip connection"
        message = f"{len(rows)} layers in a row have {lacks}, and {gone}"
        last = len(trace.steps) - 1
        found = self.finding(trace, "warning", message, evidence=(evidence,), where=names(trace, rows), at=(0, last))
        yield replace(found, cause="too_deep_no_skip")

    def value(self, trace: Trace) -> float:
        return float(len(self._plain(trace)))

    def _plain(self, trace: Trace) -> list[int]:
        """The longest trunk of rows that a usual activation follows, without skip."""
        rows = [
            i
            for i, x in enumerate(trace.layers)
            if x.depth is not None and x.kind in {"linear", "conv"} and not x.residual and x.activation in _MOVING
        ]
        counts = Counter(trace.layers[i].trunk for i in rows)
        trunk = max(counts, key=lambda k: counts[k], default=None)
        return [i for i in rows if trace.layers[i].trunk == trunk]

    def _most(self, trace: Trace, rows: list[int]) -> int:
        normed = sum(trace.layers[i].norm != "none" for i in rows)
        return self.max_normed_layers if 2 * normed > len(rows) else self.max_plain_layers

    def _well_made(self, trace: Trace, rows: list[int]) -> bool:
        """True unless the weights at the start are of another scale: then the initialiser is at fault."""
        expected = [(weight_rms(trace, i), matching_rms(trace.layers[i])) for i in rows]
        ratios = [rms / target for rms, target in expected if target and np.isfinite(rms) and rms > 0]
        return not ratios or 1 / self.max_scale <= float(np.exp(np.mean(np.log(ratios)))) <= self.max_scale

    @classmethod
    def examples(cls) -> Examples:
        stuck, learning = np.full(200, 2.3), 2.3 * np.exp(-np.arange(200) / 40)
        he, facts = 64 * np.sqrt(2 / 64), Facts(loss={"baseline": 2.3})

        def net(depth: int, loss: Series, size: float = he, **layer: object) -> Trace:
            return synthetic.run(synthetic.chain(depth, layer={"activation": "relu", **layer}, facts=facts, weight_norm=size), loss=loss)

        return Examples(
            sick=(net(60, stuck), net(25, stuck), net(41, stuck, norm="layer_norm")),  # near miss: one layer more than is left alone
            healthy=(
                net(60, learning),
                net(24, stuck),
                net(40, stuck, norm="layer_norm"),
                net(60, stuck, residual=True),
                net(60, stuck, he / 4),  # the initialiser is at fault
                net(60, stuck, activation="sigmoid"),  # the activation is
            ),
        )
