"""ARC003: ReLU layers are so narrow and so many that the network is born dead."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule, names, place
from evengrad.signals.curves import progress
from evengrad.signals.scale import units
from evengrad.types import Evidence, Finding, Trace


@dataclass(frozen=True, kw_only=True)
class NarrowRelu(Rule):
    """All units of a ReLU layer are off together with chance 2^-width, and one such layer ends everything: narrow and deep adds up.

    The chance that some layer is off for an input is 1 - prod(1 - 2^-width) over the ReLU layers; it is told only where a layer is in
    fact dead or the run learns nothing. Layers with a norm or a skip do not count.

    Attributes:
        max_chance: Largest healthy chance that some layer is off, in [0, 1].
        min_dead_fraction: Share of dead units that shows that it happened.
        min_layers: Fewest such layers: one alone has no depth to add up over.
        max_learnt: Share of the loss whose loss shows that it did no harm.

    Reference: Lu, Shin, Su & Karniadakis 2020, Dying ReLU and initialization, thm. 3.3.
    """

    code: ClassVar[str] = "ARC003"
    symptom: ClassVar[str | None] = "dead_relu"
    title: ClassVar[str] = "ReLU layers are too narrow for their number"
    causes: ClassVar[tuple[str, ...]] = ("too_narrow_relu",)
    needs: ClassVar[tuple[str, ...]] = ("dead_fraction",)
    signal: ClassVar[tuple[str, str]] = ("born_dead_chance", "")
    helps: ClassVar[str] = "wider layers; fewer of them; leaky ReLU, ELU or tanh; skips or a norm before each activation"
    max_chance: float = 0.1
    min_dead_fraction: float = 0.75
    max_learnt: float = 0.2
    min_layers: int = 3

    def check(self, trace: Trace) -> Iterator[Finding]:
        rows, chance = _narrow(trace), self.value(trace)
        if len(rows) < self.min_layers or not chance > self.max_chance:
            return
        dead = trace.column("dead_fraction")[:, rows].astype(np.float64)
        last = len(trace.steps) - 1
        worst = int(np.nan_to_num(dead[last], nan=-1.0).argmax())
        share, ran = float(np.nan_to_num(dead[last])[worst]), progress(trace)
        if ran is not None and ran.learnt > self.max_learnt:
            return
        if share < self.min_dead_fraction and (ran is None or chance < 2 * self.max_chance):
            return
        widths = f"{len(rows)} ReLU layers of {min(units(trace.layers[i]) for i in rows)} units and up"
        message = f"{widths}: some layer is off for an input with chance {chance:.0%}; of {place(trace, rows[worst])}, {share:.0%} are dead"
        evidence = Evidence(signal="born_dead_chance", value=chance, relation=">", threshold=self.max_chance)
        ordered = sorted(rows, key=lambda i: units(trace.layers[i]))
        severity = "error" if share >= self.min_dead_fraction else "warning"
        found = self.finding(trace, severity, message, evidence=(evidence,), where=names(trace, ordered), at=(0, last))
        yield replace(found, cause="too_narrow_relu")

    def value(self, trace: Trace) -> float:
        widths = np.array([units(trace.layers[i]) for i in _narrow(trace)], np.float64)
        return float(1.0 - np.prod(1.0 - 0.5**widths))

    @classmethod
    def examples(cls) -> Examples:
        relu = {"activation": "relu"}
        stuck, falling = np.full(40, 0.7), np.geomspace(1.0, 0.1, 40)
        return Examples(
            sick=(
                synthetic.chain(15, width=5, dead_fraction=0.8, layer=relu),
                synthetic.run(synthetic.chain(20, width=5, dead_fraction=0.4, layer=relu), loss=stuck),
            ),
            healthy=(
                synthetic.chain(15, width=5, dead_fraction=0.5, layer=relu),  # narrow, and alive
                synthetic.chain(15, width=16, dead_fraction=1.0, layer=relu),  # dead for another reason
                synthetic.run(synthetic.chain(15, width=5, dead_fraction=0.8, layer=relu), loss=falling),
                synthetic.chain(15, width=5, dead_fraction=0.8, layer={"activation": "tanh"}),
            ),
        )


def _narrow(trace: Trace) -> list[int]:
    """ReLU rows that nothing protects: every one of them is on the only way."""
    head = (trace.facts.head or {}).get("layer")
    plain = [i for i, x in enumerate(trace.layers) if x.depth is not None and x.norm == "none" and not x.residual and x.name != head]
    return [i for i in plain if trace.layers[i].activation in {"relu", "relu6"} and trace.layers[i].fan_out > 0]
