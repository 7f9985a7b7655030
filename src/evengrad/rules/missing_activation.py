"""ARC001: linear layers follow each other without an activation in between."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule, deep_rows, names, place
from evengrad.signals.curves import thrives
from evengrad.types import Evidence, Facts, Finding, Layer, Trace

_PLAIN = {"linear", "conv", "conv_transpose"}


_BENT = 0.2  # 0.5 for a tanh, 0.7 for a ReLU


@dataclass(frozen=True, kw_only=True)
class MissingActivation(Rule):
    """Two linear layers with nothing between them are one linear layer, however many parameters they have.

    A narrow layer between two wider ones is a low-rank factor and meant so; what feeds attention, a recurrence or a sum of branches is
    left alone too. Such pairs beside more layers with activations, a linear autoencoder, and a network that trains well are worth a note.
    What is called an activation is none where noise comes through straight (`trace.between_probe`), as inside a clamp that nothing meets.

    Attributes:
        max_linear_pairs: Largest healthy number of such pairs in a network that has activations elsewhere.
        max_linear_fraction: Largest healthy share of a network's pairs of layers that are such, in [0, 1].
        min_bend: Smallest difference between the samples' gradients that an activation makes, as a share of themselves.

    Reference: Goodfellow, Bengio & Courville 2016, sec. 6.1; Saxe, McClelland & Ganguli 2014 (deep linear networks).
    """

    code: ClassVar[str] = "ARC001"
    symptom: ClassVar[str | None] = None
    title: ClassVar[str] = "no activation between linear layers"
    causes: ClassVar[tuple[str, ...]] = ("missing_activation",)
    needs: ClassVar[tuple[str, ...]] = ("facts.edges",)
    signal: ClassVar[tuple[str, str]] = ("linear_pairs", "pairs of layers")
    helps: ClassVar[str] = "an activation (ReLU, GELU, tanh) after every layer but the last"
    max_linear_pairs: int = 1
    max_linear_fraction: float = 0.55
    min_bend: float = 0.03

    def check(self, trace: Trace) -> Iterator[Finding]:
        pairs = self._pairs(trace)
        if not pairs:
            return
        heads = {"softmax", "log_softmax", "sigmoid"}
        straight = self._straight(trace)
        whole = all(_is_linear(trace.layers[i]) or i in straight or trace.layers[i].activation in heads for i in deep_rows(trace))
        limit = 0 if whole else max(self.max_linear_pairs, int(self.max_linear_fraction * (len(deep_rows(trace)) - 1)))
        harmless = len(pairs) <= limit or thrives(trace) or _rebuilds(trace)
        first, second = pairs[0]
        what = f"all {len(deep_rows(trace))} layers together compute one linear map" if whole else "together they compute one linear map"
        more = f"; {len(pairs)} pairs of layers are like this" if len(pairs) > 1 else ""
        lies = "nothing that bends lies" if not _is_linear(trace.layers[first]) else "nothing lies"
        message = f"{lies} between {place(trace, first)} and {place(trace, second)}: {what}{more}"
        evidence = Evidence(
            signal="linear_pairs", value=len(pairs), relation=">", threshold=min(limit, len(pairs) - 1), unit="pairs of layers"
        )
        rows = sorted({a for a, _ in pairs})
        last = len(trace.steps) - 1
        severity = "note" if harmless else "warning"
        found = self.finding(trace, severity, message, evidence=(evidence,), where=names(trace, rows), at=(0, last))
        yield replace(found, cause="missing_activation")

    def value(self, trace: Trace) -> float:
        return float(len(self._pairs(trace)))

    def _pairs(self, trace: Trace) -> list[tuple[int, int]]:
        return [(a, b) for a, b in _pairs(trace, self._straight(trace)) if trace.layers[a].name not in self._bent(trace)]

    def _straight(self, trace: Trace) -> set[int]:
        """Rows behind which noise goes straight on, whatever lies there."""
        ways = (trace.facts.modules or {}).get("between", ())
        names = {way["name"] for way in ways if way["bend"] < self.min_bend and 0.8 < way.get("size", 1.0) < 1.25}
        return {i for i, layer in enumerate(trace.layers) if layer.name in names}

    def _bent(self, trace: Trace) -> set[str]:
        """Rows behind which noise is bent by something that has no name."""
        ways = (trace.facts.modules or {}).get("between", ())
        return {way["name"] for way in ways if way["bend"] > _BENT} - {way["name"] for way in ways if way["bend"] < self.min_bend}

    @classmethod
    def examples(cls) -> Examples:
        def net(activations: str, **layer: Any) -> Trace:
            """Chain of layers, a letter each: `n` none, `r` ReLU, `l` leaky ReLU."""
            made = synthetic.chain(len(activations), facts=Facts(edges=tuple((i, i + 1) for i in range(len(activations) - 1))))
            words = {"n": "none", "r": "relu", "l": "leaky_relu"}
            rows = tuple(replace(x, activation=words[a], **layer) for x, a in zip(made.layers, activations, strict=True))
            return replace(made, layers=rows)

        def clamped(bend: float, activations: str = "rrrr") -> Trace:
            made = net(activations)
            ways = [{"name": x.name, "bend": bend, "passes": 1.0, "size": 1.0} for x in made.layers[:3]]
            return replace(made, facts=replace(made.facts, modules={"between": ways}))

        low_rank = net("rrnrn")
        narrow = replace(low_rank.layers[2], fan_out=8), replace(low_rank.layers[3], fan_in=8)
        stuck = np.full(40, 0.7)
        return Examples(
            sick=(
                net("nn"),
                net("nnnn"),
                net("rnnn"),
                clamped(0.02),
                synthetic.run(net("nnn"), loss=stuck),
                net("lll", activation_options={"negative_slope": 1.0}),
            ),
            healthy=(
                net("n"),
                net("rrrn"),
                clamped(0.05),
                clamped(0.98, "nnnn"),  # a product of tensors
                net("llln", activation_options={"negative_slope": 0.3}),
                replace(low_rank, layers=(*low_rank.layers[:2], *narrow, low_rank.layers[4])),
                net("nnnn", norm="batch_norm"),
                net("nnnn", residual=True),
            ),
        )


def _is_linear(layer: Layer) -> bool:
    """True without an activation, and with one that lets both signs through alike."""
    return layer.activation == "none" or (layer.activation == "leaky_relu" and layer.activation_options.get("negative_slope", 0.0) > 0.95)


def _pairs(trace: Trace, straight: Collection[int]) -> list[tuple[int, int]]:
    """Pairs of rows of which the first feeds the second alone, and linearly."""
    sources: dict[int, list[int]] = {}
    for a, b in trace.facts.edges or ():
        if a < len(trace.layers) and b < len(trace.layers):
            sources.setdefault(b, []).append(a)
    found = []
    for b, before in sorted(sources.items()):
        a, rows = before[0], trace.layers
        if len(before) > 1 or rows[a].kind not in _PLAIN or rows[b].kind not in _PLAIN:
            continue
        plain = (_is_linear(rows[a]) or a in straight) and rows[a].norm == "none" and not (rows[a].residual or rows[b].residual)
        if plain and rows[a].fan_out >= min(rows[a].fan_in, rows[b].fan_out):
            found.append((a, b))
    return found


def _rebuilds(trace: Trace) -> bool:
    """True for an autoencoder: targets have the shape of the inputs."""
    inputs, targets = trace.facts.inputs or {}, trace.facts.targets or {}
    wide = len(inputs.get("shape", ())) > 1 and int(np.prod(inputs["shape"][1:])) > 1
    return wide and list(inputs["shape"]) == list(targets.get("shape", ()))
