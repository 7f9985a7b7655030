"""ARC010: many plain layers, one on another, that do not learn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule, names
from evengrad.signals.curves import progress, thrives
from evengrad.signals.scale import matching_rms, weight_rms
from evengrad.types import Evidence, Facts, Finding, Series, Trace

_MOVING = {"relu", "relu6", "leaky_relu", "prelu", "rrelu", "elu", "celu", "selu", "gelu", "gelu_tanh", "silu", "mish", "hardswish", "tanh"}
_STRAIGHT, _NEAR_TWO = 0.03, 0.05  # of a way between layers, asked with noise: it bends nothing, and doubles what it sends on


@dataclass(frozen=True, kw_only=True)
class TooDeep(Rule):
    """A network of many layers, well initialised and with a usual activation, does not learn: its depth itself is what is left.

    Layers on branches count too where the samples of a batch grow alike with depth: a skip that carried them would not let that happen.

    With each layer two inputs grow alike, or apart, by a factor that no usual initialiser makes exactly one, and the gradient of the first
    layers becomes noise. Skip connections let it pass beside the layers; norms keep the factor near one.

    Attributes:
        max_plain_layers: Most layers in a row without skip or norm that are not told about.
        max_normed_layers: Most layers in a row without skip, with a norm behind most of them.
        min_doubled: Layers whose output is added to itself from which on they are told.
        max_learnt: Share of the loss that, once gone, shows that the depth does no harm.
        max_carried: Share of the first layer's spread over samples that is left behind the last where skips carry nothing, at most.
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
    min_doubled: int = 3
    max_learnt: float = 0.5
    max_carried: float = 1e-3
    max_scale: float = 1.6

    def check(self, trace: Trace) -> Iterator[Finding]:
        yield from self._added_to_itself(trace)
        rows, ran = self._plain(trace), progress(trace)
        most = self._most(trace, rows)
        if len(rows) <= most or ran is None or ran.learnt > self.max_learnt or not self._well_made(trace, rows):
            return
        evidence = Evidence(signal="plain_layers", value=len(rows), relation=">", threshold=most, unit="layers")
        gone = f"{max(0.0, ran.learnt):.0%} of the loss is gone at the end"
        dead = any(trace.layers[i].residual for i in rows)
        lacks = (
            "skip connections that carry next to nothing"
            if dead
            else "neither skip connection nor norm"
            if most == self.max_plain_layers
            else "no skip connection"
        )
        message = f"{len(rows)} layers in a row have {lacks}, and {gone}"
        last = len(trace.steps) - 1
        found = self.finding(trace, "warning", message, evidence=(evidence,), where=names(trace, rows), at=(0, last))
        yield replace(found, cause="too_deep_no_skip")

    def value(self, trace: Trace) -> float:
        return float(len(self._plain(trace)))

    def _added_to_itself(self, trace: Trace) -> Iterator[Finding]:
        """Skips whose input has been overwritten: what a branch puts out comes on exactly twice, and nothing beside it."""
        ways = (trace.facts.modules or {}).get("between", ())
        doubled = [w["name"] for w in ways if w["bend"] < _STRAIGHT and abs(w.get("passes", 1.0) - 2.0) < _NEAR_TWO]
        if len(doubled) < self.min_doubled or thrives(trace):
            return
        more = f"{len(doubled)} layers are like this"
        message = f"what {doubled[0]} puts out is added to itself, where a skip would add its block's input; {more}"
        evidence = Evidence(signal="doubled_layers", value=len(doubled), relation=">=", threshold=self.min_doubled, unit="layers")
        found = self.finding(trace, "warning", message, evidence=(evidence,), where=tuple(doubled), at=(0, len(trace.steps) - 1))
        yield replace(found, cause="too_deep_no_skip")

    def _plain(self, trace: Trace) -> list[int]:
        """The longest trunk of rows that a usual activation follows, without a skip that carries."""
        plain = [i for i, x in enumerate(trace.layers) if x.depth is not None and x.kind in {"linear", "conv"}]
        moving = [i for i in plain if trace.layers[i].activation in _MOVING]
        if 3 * len(moving) > len(plain) and self._alike(trace, plain):  # blocks of two layers, of which the second has no activation
            rows = [i for i in plain if trace.layers[i].activation in _MOVING or trace.layers[i].activation == "none"]
        else:
            rows = [i for i in moving if not trace.layers[i].residual]
        counts = Counter(trace.layers[i].trunk for i in rows)
        trunk = max(counts, key=lambda k: counts[k], default=None)
        return [i for i in rows if trace.layers[i].trunk == trunk]

    def _alike(self, trace: Trace, rows: list[int]) -> bool:
        """True if samples differ far less behind these layers than before them."""
        spread = trace.column("out_spread")[0, rows].astype(np.float64)
        spread = spread[np.isfinite(spread)]
        return len(spread) > self.max_plain_layers and bool(spread[-2] < self.max_carried * spread[0])

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

        def branches(left: float) -> Trace:
            made = net(40, stuck, residual=True)
            return replace(made, columns=made.columns | {"out_spread": np.geomspace(1, left, 40, dtype=np.float32)[None]})

        def blocks(left: float) -> Trace:
            made = branches(left)
            rows = [replace(x, residual=False, activation="relu" if i % 2 else "none") for i, x in enumerate(made.layers)]
            return replace(made, layers=tuple(rows))

        def doubled(passes: float, loss: Series = stuck) -> Trace:
            made = net(12, loss)
            ways = [{"name": x.name, "bend": 0.0, "passes": passes, "size": passes} for x in made.layers[1::2]]
            return replace(made, facts=replace(made.facts, modules={"between": ways}))

        return Examples(
            sick=(
                doubled(2.0),
                net(60, stuck),
                net(25, stuck),  # near miss: one layer more than is left alone
                net(41, stuck, norm="layer_norm"),
                branches(5e-4),
                blocks(5e-4),
            ),
            healthy=(
                doubled(1.0),
                doubled(2.0, learning),
                net(60, learning),
                net(24, stuck),
                net(40, stuck, norm="layer_norm"),
                net(60, stuck, residual=True),
                branches(2e-3),
                blocks(2e-3),
                net(60, stuck, he / 4),  # the initialiser is at fault
                net(60, stuck, activation="sigmoid"),  # the activation is
            ),
        )
