"""EXP003: the gradient grows on its way back through a sequence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule, names
from evengrad.signals.through_time import PLANE, ThroughTime, is_stuck, looks, worst_gained
from evengrad.types import Evidence, Finding, Trace


@dataclass(frozen=True, kw_only=True)
class ExplosionThroughTime(Rule):
    """On its way back through a sequence the gradient grows by the same factor at each step, so single steps throw the weights far.

    A network that has learnt to look at the first steps has more gradient there, too; so a training whose loss falls is left alone,
    and only a growth along the whole sequence counts, not the edge of padding or of a mask.

    Attributes:
        max_gained_decades: Largest healthy gain between the last and the first steps, in decades.
        error_decades: Gain from which it is an error.
        min_steps: Shortest sequence that is judged.
        max_learnt: Share of the loss that must be gone for a training to count as learning.

    Reference: Pascanu, Mikolov & Bengio 2013, https://arxiv.org/abs/1211.5063.
    """

    code: ClassVar[str] = "EXP003"
    symptom: ClassVar[str | None] = "exploding_gradient"
    title: ClassVar[str] = "the gradient explodes through time"
    causes: ClassVar[tuple[str, ...]] = ("long_memory", "bad_init_large", "no_grad_clip")
    needs: ClassVar[tuple[str, ...]] = (f"planes.{PLANE}",)
    signal: ClassVar[tuple[str, str]] = ("gained_decades", "decades through time")
    helps: ClassVar[str] = "clipping by norm; orthogonal hidden weights, or smaller ones; an LSTM or GRU; shorter sequences"
    max_gained_decades: float = 2.25
    error_decades: float = 3.75
    min_steps: int = 8
    max_learnt: float = 0.5

    def check(self, trace: Trace) -> Iterator[Finding]:
        seen = looks(trace)
        worst = self._worst(trace, int(seen[-1])) if len(seen) else None
        if worst is None or worst.gained <= self.max_gained_decades or is_stuck(trace, self.max_learnt) is False:
            return
        name = trace.layers[worst.row].name
        severity = "error" if worst.gained >= self.error_decades else "warning"
        message = (
            f"the gradient gains {worst.gained:.1f} decades through time in {name}: the first steps of a sequence get "
            f"{10.0**worst.gained:.1e} times what the last get"
        )
        limit, unit = self.max_gained_decades, "decades through time"
        evidence = Evidence(signal="gained_decades", value=worst.gained, relation=">", threshold=limit, unit=unit, where=name)
        first = next(int(i) for i in seen if (look := self._worst(trace, int(i))) is not None and look.gained > limit)
        yield self.finding(trace, severity, message, evidence=(evidence,), where=names(trace, [worst.row]), at=(first, worst.index))

    def value(self, trace: Trace) -> float:
        seen = looks(trace)
        worst = self._worst(trace, int(seen[-1])) if len(seen) else None
        return float("nan") if worst is None else worst.gained

    def _worst(self, trace: Trace, index: int) -> ThroughTime | None:
        found = worst_gained(trace, index)
        return found if found is not None and found.steps >= self.min_steps else None

    @classmethod
    def examples(cls) -> Examples:
        stuck, fallen = np.linspace(1.8, 1.75, 200), np.geomspace(1.8, 0.05, 200)

        def net(profile: Any, loss: Any = None) -> Trace:
            trace = synthetic.chain(1, layer={"kind": "rnn"})
            return synthetic.run(trace, {PLANE: np.reshape(profile, (1, 1, 32))}, **({} if loss is None else {"loss": loss}))

        growing = 10.0 ** np.linspace(2.6, 0, 32)
        padded = np.where(np.arange(32) < 20, 1.0, 1e-4)
        return Examples(
            sick=(net(growing), net(growing**2, stuck)),
            healthy=(net(growing**0.8), net(growing**2, fallen), net(padded), net(np.repeat(growing[::8], 8))),
        )
