"""ACT004: what lies between the layers passes next to nothing on, or far too much."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule
from evengrad.signals.curves import thrives
from evengrad.types import Evidence, Facts, Finding, Trace


@dataclass(frozen=True, kw_only=True)
class OddActivation(Rule):
    """Whatever the weights: standard normal noise comes out of what follows the layers many times smaller or larger, layer by layer.

    An activation for deep networks leaves half to all of a gradient's size. A sigmoid leaves a fifth, and less behind another activation;
    a steep wave multiplies it; a softmax between layers leaves nearly nothing of the signal, and a log-softmax sends on a constant many
    times as large. The way is measured as it runs, by whatever it is written (`trace.between_probe`), so that neither weights, inputs nor
    the rate can be at fault. It is looked at where training goes badly, and told if the layers together lose or gain too much.

    Attributes:
        min_passes: Smallest healthy ratio of a gradient behind the way to one before it.
        max_passes: Largest healthy ratio.
        max_size: Largest healthy size of what comes out, in that of the noise; and its inverse times `min_passes` the smallest.
        min_decades: Decades that the layers together lose or gain from which on it is told.
        max_bend: Largest healthy share of a gradient that differs between samples: 0.7 for a ReLU, 1 where x and -x are answered alike.
        min_even: Layers of the latter kind from which on they are told.
        max_noise: Largest share of noise in the output's variance at which what comes out is the activation's own, in [0, 1].

    Reference: Glorot & Bengio 2010, sec. 3; He et al. 2015, eq. 10; Sitzmann et al. 2020 (sines need weights of their own).
    """

    code: ClassVar[str] = "ACT004"
    symptom: ClassVar[str | None] = None
    title: ClassVar[str] = "what lies between layers is no activation for deep networks"
    causes: ClassVar[tuple[str, ...]] = ("bad_hidden_activation",)
    needs: ClassVar[tuple[str, ...]] = ("facts.modules",)
    signal: ClassVar[tuple[str, str]] = ("decades", "of the signal")
    helps: ClassVar[str] = (
        "ReLU, GELU or SiLU with He's initialiser, tanh with Glorot's; softmax and log-softmax behind the last layer only"
    )
    min_passes: float = 0.35
    max_passes: float = 1.6
    max_size: float = 1.6
    min_decades: float = 1.2
    max_noise: float = 0.5
    max_bend: float = 0.95
    min_even: int = 3

    def check(self, trace: Trace) -> Iterator[Finding]:
        odd, decades = self._odd(trace), self.value(trace)
        if not (odd and abs(decades) > self.min_decades):
            yield from self._blind_to_sign(trace)
        if not odd or not abs(decades) > self.min_decades or thrives(trace):
            return
        if float((trace.facts.head or {}).get("noise", 0.0)) > self.max_noise:
            return  # something adds noise between the layers: regularisation, whatever the activation
        worst, kind = max(((way, *self._told(way)) for way in odd), key=lambda found: abs(found[2]))[:2]
        what = "a gradient" if kind == "passes" else "what is sent on"
        message = (
            f"what follows {worst['name']} makes {what} ×{worst[kind]:.2g}, whatever the weights; {len(odd)} of {len(_ways(trace))} layers "
            f"are like this, {decades:+.1f} decades together"
        )
        name, unit = self.signal
        relation, limit = (">", self.min_decades) if decades > 0 else ("<", -self.min_decades)
        evidence = Evidence(signal=name, value=decades, relation=relation, threshold=limit, unit=unit, where=worst["name"])
        where = tuple(dict.fromkeys([worst["name"], *(way["name"] for way in odd)]))
        found = self.finding(trace, "warning", message, evidence=(evidence,), where=where, at=(0, len(trace.steps) - 1))
        yield replace(found, cause="bad_hidden_activation")

    def _blind_to_sign(self, trace: Trace) -> Iterator[Finding]:
        """Squares, bells and the like: half of the inputs have gradients of one direction, the rest of the other, layer by layer."""
        ways = _ways(trace)
        even = [way for way in ways if "passes" in way and way["bend"] > self.max_bend]
        noisy = float((trace.facts.head or {}).get("noise", 0.0)) > self.max_noise
        if len(even) < self.min_even or 2 * len(even) <= len(ways) or noisy or thrives(trace):
            return
        first = even[0]
        message = (
            f"what follows {first['name']} answers x and -x alike: {first['bend']:.0%} of its gradient differs from sample to sample; "
            f"{len(even)} of {len(ways)} layers are like this"
        )
        evidence = Evidence(signal="bend", value=first["bend"], relation=">", threshold=self.max_bend, unit="", where=first["name"])
        where = tuple(dict.fromkeys(way["name"] for way in even))
        found = self.finding(trace, "warning", message, evidence=(evidence,), where=where, at=(0, len(trace.steps) - 1))
        yield replace(found, cause="bad_hidden_activation")

    def value(self, trace: Trace) -> float:
        return float(sum(self._told(way)[1] for way in self._odd(trace)))

    def _odd(self, trace: Trace) -> list[dict[str, Any]]:
        """The ways that are odd, where most of them are."""
        ways = _ways(trace)
        odd = [way for way in ways if self._told(way)[1]]
        return odd if 2 * len(odd) > len(ways) else []

    def _told(self, way: dict[str, Any]) -> tuple[str, float]:
        """What is odd of a way, and by how many decades; 0 for one that is not."""
        passes, size = float(way.get("passes", 1.0)), float(way.get("size", 1.0))
        if not self.min_passes <= passes <= self.max_passes:
            return "passes", math.log10(passes) if passes > 0 else -6.0
        if not self.min_passes / self.max_size <= size <= self.max_size:
            return "size", math.log10(size) if size > 0 else -6.0
        return "passes", 0.0

    @classmethod
    def examples(cls) -> Examples:
        stuck = np.full(100, 2.3)

        def net(
            passes: float, size: float, depth: int = 6, *, loss: Any = stuck, odd: int | None = None, norm: str = "none", bend: float = 0.5
        ) -> Trace:
            made = synthetic.chain(depth, layer={"norm": norm})
            ways = [
                {"name": x.name, "bend": bend, "passes": passes if odd is None or i < odd else 0.7, "size": size}
                for i, x in enumerate(made.layers[:-1])
            ]
            return synthetic.run(replace(made, facts=Facts(loss={"baseline": 2.3}, modules={"between": ways})), loss=loss)

        noisy = net(1.0, 8.0)
        noisy = replace(noisy, facts=replace(noisy.facts, head={"noise": 0.9}))
        return Examples(
            sick=(
                net(0.21, 0.54),
                net(0.14, 0.6, depth=3),
                net(21.0, 0.7),
                net(1.0, 4.1),
                net(0.05, 0.05),
                net(0.33, 0.4),
                net(0.85, 0.5, bend=0.98),
            ),
            healthy=(
                net(0.7, 0.73),
                net(0.36, 0.4, depth=20),
                net(1.5, 1.5, depth=20),
                net(0.85, 0.5, bend=0.94),
                net(0.85, 0.5, depth=3, bend=0.98),
                net(0.85, 0.5, bend=0.98, loss=2.3 * np.exp(-np.arange(100) / 20)),
                net(0.21, 0.54, depth=2),  # one layer of them: a classic
                net(0.21, 0.54, odd=2),
                net(0.21, 0.54, norm="layer_norm"),
                net(0.21, 0.54, loss=2.3 * np.exp(-np.arange(100) / 20)),
                noisy,
                replace(net(0.21, 0.54), facts=Facts(modules={"norms": []})),  # not looked at
            ),
        )


def _ways(trace: Trace) -> list[dict[str, Any]]:
    """What was measured between layers without a norm in between, which would make up for it."""
    plain = {layer.name for layer in trace.layers if layer.norm == "none"}
    return [way for way in (trace.facts.modules or {}).get("between", ()) if way["name"] in plain]
