"""OPT004: the loss still falls at the end as it did all along."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule
from evengrad.rules.over_time import seen_over
from evengrad.signals.curves import MIN_STEPS, Progress, falls_on, mastered, progress, seen_share, unharmed
from evengrad.signals.steps import usual_ratio
from evengrad.signals.updates import update_ratio
from evengrad.signals.why import STILL, VIOLENT, cause_of, rate_too_low
from evengrad.types import Evidence, Facts, Finding, Trace

_BEGUN = 4  # planned steps; fewer are a trial of the code, not a training


@dataclass(frozen=True, kw_only=True)
class SlowConvergence(Rule):
    """Training ends on its way down: most can still be learnt, and the pace has not slackened.

    That the loss falls at all is asked of ranks (Mann & Kendall, z < -3.1 over the last half: one curve without trend in 1,000), on the
    training losses or on the validation loss, which has the same samples each time.

    Attributes:
        min_pace: Smallest share of all that was gained that the last half of the run gained: a half if the loss falls evenly.
        min_mastered: Share of the right answers that can be expected on validation data, above chance, from which on a loss that thrives
            has come far enough, however high dropout keeps it.
        min_learnt: Share of what can be learnt, where that is known, under which a loss that ends still falling is slow at any pace.
        few_steps: Steps under which a run is short, if its steps are of a usual size.
        min_way: Smallest healthy way of the layer that moves most over all planned steps, in its weights; asked where the rate is low.

    Reference: Zhang et al. 2021, AUTOTRAINER (slow convergence).
    """

    code: ClassVar[str] = "OPT004"
    symptom: ClassVar[str | None] = "slow_convergence"
    title: ClassVar[str] = "the loss falls too slowly"
    causes: ClassVar[tuple[str, ...]] = (
        *("lr_too_low", "undertrained", "over_regularized", "over_clipped", "labels_corrupt", "low_precision", "batch_too_small"),
        "loss_reduction",
        *("redundant_output_activation", "bad_init_small", "bad_init_large", "bad_hidden_activation", "input_not_normalized"),
    )
    needs: ClassVar[tuple[str, ...]] = ("curves.loss",)
    signal: ClassVar[tuple[str, str]] = ("pace", "of the gain in the last half")
    helps: ClassVar[str] = (
        "a rate ten times larger (a range test finds it), more epochs, less dropout and weight decay; standardised inputs"
    )
    min_pace: float = 0.25
    min_mastered: float = 0.75
    min_learnt: float = 0.6
    few_steps: int = 100
    min_way: float = 0.3

    def check(self, trace: Trace) -> Iterator[Finding]:
        found, loss = progress(trace), trace.curves["loss"]
        if found is None:
            yield from self._hardly_begun(trace)
        if seen_share(trace) < 0.9:
            yield from self._ends_soon(trace)
        cut_off = found is not None and found.learnt < 0.5 and (falls_on(trace) or 0.0) >= 0.5 and self._short(trace, found)
        if (
            found is None
            or (unharmed(trace) and not cut_off)
            or not found.sound
            or not np.isfinite(found.end)
            or not np.isfinite(loss.values).all()
        ):
            return
        if found.thrives and not cut_off and mastered(trace) >= self.min_mastered:
            return
        pace, moves, begin = falls_on(trace), self._moves(trace, found), int(loss.steps[len(loss.steps) // 2])
        ends = seen_share(trace) >= 0.9 and bool((trace.facts.loop or {}).get("steps"))
        first, last = f"{found.start:.3g}", f"{found.end:.3g} in {len(loss.values):,} steps"
        short = ends and found.learnable < 1 and found.learnt < self.min_learnt * found.learnable
        if pace is not None and (pace >= self.min_pace or short) and seen_share(trace) >= 0.5:
            name, unit = self.signal
            evidence = Evidence(signal=name, value=pace, relation=">=", threshold=min(pace, self.min_pace), unit=unit, where="loss")
            message = f"the loss went from {first} to {last} and still falls: {pace:.0%} of what it gained, it gained in the last half"
        elif moves is not None:
            evidence = Evidence(signal="way", value=moves, relation="<", threshold=self.min_way, unit="of the weights", where="optimizer")
            message = f"the steps are so small that all that are planned move no layer by more than {moves:.1%} of its weights"
            begin = int(loss.steps[0])
        elif self._short(trace, found):
            steps = len(loss.values)
            evidence = Evidence(signal="steps", value=steps, relation="<", threshold=self.few_steps, unit="steps", where="loop")
            message = f"training ended after {steps} steps, with the loss at {found.end:.3g} from {first}"
        else:
            return
        cause = cause_of(trace, self.causes) or ("undertrained" if self._short(trace, found) else None)
        told = ends or (moves is not None and not found.thrives)  # else more steps are to come, for all that is known
        severity = "warning" if told else "note"
        yield seen_over(self, trace, severity, message, evidence, first=begin, cause=cause)

    def value(self, trace: Trace) -> float:
        return np.nan if "loss" not in trace.curves else falls_on(trace) or 0.0

    def _hardly_begun(self, trace: Trace) -> Iterator[Finding]:
        """A run of four to nine steps, over as it was planned, that has not halved its loss."""
        values, planned = trace.curves["loss"].values, (trace.facts.loop or {}).get("steps") or 0
        if not _BEGUN <= len(values) == planned < MIN_STEPS or not np.isfinite(values).all() or not values[-1] > 0.5 * values[0] > 0:
            return
        evidence = Evidence(signal="steps", value=planned, relation="<", threshold=MIN_STEPS, unit="steps", where="loop")
        message = f"training ended after {planned} steps, with the loss at {values[-1]:.3g} from {values[0]:.3g}"
        yield seen_over(self, trace, "warning", message, evidence, first=0, cause="undertrained")

    def _ends_soon(self, trace: Trace) -> Iterator[Finding]:
        """A run that is under way, and planned to be over before most networks have learnt."""
        planned = int((trace.facts.loop or {}).get("steps") or 0)
        if not 0 < planned < self.few_steps:
            return
        evidence = Evidence(signal="steps", value=planned, relation="<", threshold=self.few_steps, unit="steps", where="loop")
        message = f"training is planned to end after {planned} steps"
        yield seen_over(self, trace, "note", message, evidence, first=0, cause="undertrained")

    def _moves(self, trace: Trace, found: Progress) -> float | None:
        """How far steps of this size move the layer that moves most, all in one direction, if the rate is too low to get anywhere."""
        planned = (trace.facts.loop or {}).get("steps")
        if not planned or found.start < 0.5 * found.reference or not rate_too_low(trace):
            return None
        way = float(np.nanquantile(update_ratio(trace), 0.9)) * planned
        return way if way < self.min_way else None

    def _short(self, trace: Trace, found: Progress) -> bool:
        """True if a run of few steps, each of a usual size, is over as it was planned."""
        ratio, steps = usual_ratio(trace), len(trace.curves["loss"].steps)
        planned = (trace.facts.loop or {}).get("steps") or 0
        usual = ratio is not None and STILL < ratio < VIOLENT and found.start < 4 * abs(found.reference) + abs(found.reference)
        return usual and 0 < planned < self.few_steps and steps >= 0.95 * planned

    @classmethod
    def examples(cls) -> Examples:
        base = synthetic.chain(3, facts=Facts(loss={"baseline": 2.3, "value": 2.3}))
        noisy = 0.02 * np.random.default_rng(0).standard_normal(300)
        steps = np.arange(300)
        near = {"labels": {str(k): 100 for k in range(10)}, "neighbour_agreement": 0.97, "neighbour_chance": 0.1, "neighbour_error": 0.01}
        known_loss = {"baseline": 2.3, "value": 2.3, "op": "cross_entropy"}
        facts = Facts(loss=known_loss, targets=near, loop={"steps": 300})
        floored = {**known_loss, "floor": 0.54, "arrives": 1.0}
        smooth = replace(base, facts=replace(facts, loss=floored, head={"reach": [None, None]}))
        squashed = replace(smooth, facts=replace(smooth.facts, loss={**floored, "free_floor": 0.54}))
        answers = np.arange(0, 300, 30), np.linspace(0.1, 0.9, 10)
        known = replace(base, facts=facts)
        return Examples(
            sick=(
                synthetic.run(base, loss=2.3 - 1e-3 * steps + noisy),
                synthetic.run(replace(base, facts=replace(base.facts, loop={"steps": 6})), loss=np.linspace(2.3, 2.0, 6)),
                synthetic.run(known, loss=1.5 + 0.8 * np.exp(-steps / 60) + 0.1 * noisy),
                synthetic.run(squashed, loss=1.3 + np.exp(-steps / 60) + 0.1 * noisy),
                synthetic.run(base, loss=2.3 - 1e-4 * steps + noisy, val_loss=(np.arange(0, 300, 19), 2.3 - 1e-4 * np.arange(0, 300, 19))),
            ),
            healthy=(
                synthetic.run(known, loss=0.8 + 1.5 * np.exp(-steps / 60) + 0.1 * noisy),
                synthetic.run(base, loss=0.1 + 2.2 * np.exp(-steps / 100) + noisy),
                synthetic.run(base, loss=1.5 + 0.8 * np.exp(-steps / 30) + noisy),  # settled: no longer falling
                synthetic.run(base, loss=2.3 + noisy),
                synthetic.run(smooth, loss=1.3 + np.exp(-steps / 60) + 0.1 * noisy),  # right answers lose 1.24
                synthetic.run(known, loss=2.3 - 5e-3 * steps + noisy, val_accuracy=answers),  # dropout
            ),
        )
