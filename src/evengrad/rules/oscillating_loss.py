"""OPT005: the loss swings up and down instead of settling."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule
from evengrad.rules.over_time import seen_over
from evengrad.signals.curves import noise, progress, smoothed
from evengrad.types import Evidence, Facts, Finding, Series, Trace

_PARTS = 40


@dataclass(frozen=True, kw_only=True)
class OscillatingLoss(Rule):
    """Steps overshoot: the loss swings by more than batches differ, or jumps about above what a constant answer gets.

    Swings are those of the means of fortieths of the run, after its first quarter. One counts if it is larger than `min_swing` and than six
    standard errors of a mean, so that the noise of small batches is no swing (at most 3 false alarms in 1,000 flat curves, whatever their
    noise: tests/rules/test_over_time.py). Steps that jump by `min_jump` count where the loss lies above the constant answer's: there,
    samples of a batch hardly differ unless the network is confidently wrong.

    Attributes:
        min_swing: Smallest swing that counts, as a share of the constant answer's loss.
        max_swings: Largest healthy number of swings, up and down counted apart.
        min_jump: Smallest standard deviation of a step's loss that counts, as a share of the constant answer's loss.

    Reference: LeCun, Bottou, Orr & Müller 1998, Efficient BackProp, sec. 4.6 (rates beyond twice the best diverge, near it they oscillate).
    """

    code: ClassVar[str] = "OPT005"
    symptom: ClassVar[str | None] = "oscillating_loss"
    title: ClassVar[str] = "the loss oscillates"
    causes: ClassVar[tuple[str, ...]] = (
        *("missing_zero_grad", "scheduler_bug", "lr_too_high", "batch_too_small"),
        *("input_not_normalized", "bad_init_large", "target_not_scaled", "loss_reduction", "no_warmup", "no_grad_clip"),
    )
    needs: ClassVar[tuple[str, ...]] = ("curves.loss",)
    signal: ClassVar[tuple[str, str]] = ("swings", "up and down")
    helps: ClassVar[str] = "a rate three to ten times smaller or decayed to zero, less momentum, larger batches, standardised inputs"
    min_swing: float = 0.15
    max_swings: int = 4
    min_jump: float = 0.12

    def check(self, trace: Trace) -> Iterator[Finding]:
        found, loss = progress(trace), trace.curves["loss"]
        if found is None or not found.sound or not np.isfinite(loss.values).all() or not found.reference or len(loss.values) < _PARTS:
            return
        scale, begin = abs(found.reference), int(loss.steps[len(loss.steps) // 4])
        swings, jump = self._swings(loss.values, scale), noise(loss.values[len(loss.values) // 4 :]) / scale
        level = float(np.median(smoothed(loss.values)[-10:]))
        name, unit = self.signal
        if swings > self.max_swings:
            severity = "note" if found.thrives else "warning"
            evidence = Evidence(signal=name, value=swings, relation=">", threshold=self.max_swings, unit=unit, where="loss", step=begin)
            message = f"the loss swings {swings} times by {self.min_swing * scale:.2g} or more after step {begin:,}, around {level:.3g}"
        elif (
            jump > self.min_jump
            and level > found.reference + max(0.05 * scale, self._chance(loss.values))
            and level < 3 * found.start + 3 * scale
            and self._known(trace)
        ):
            severity = "warning"
            evidence = Evidence(
                signal="jump", value=jump, relation=">", threshold=self.min_jump, unit="of the loss", where="loss", step=begin
            )
            message = (
                f"the loss jumps by {jump * scale:.2g} from step to step, around {level:.3g}: "
                f"worse than the {found.reference:.3g} that a constant answer gets"
            )
        else:
            return
        yield seen_over(self, trace, severity, message, evidence, first=begin, at=begin)

    def value(self, trace: Trace) -> float:
        found, loss = progress(trace), trace.curves.get("loss")
        if found is None or loss is None or not np.isfinite(loss.values).all() or not found.reference:
            return np.nan
        return float(self._swings(loss.values, abs(found.reference)))

    def _chance(self, values: Series) -> float:
        """Four standard errors of the level, outliers counted."""
        late = values[len(values) // 2 :]
        return float(4 * np.sqrt(np.square(np.diff(late)).mean() / 2 / len(late)))

    def _known(self, trace: Trace) -> bool:
        """True for classes: numbers to come near to differ from batch to batch whatever the network."""
        return (trace.facts.loss or {}).get("op") in {"cross_entropy", "nll", "bce", "bce_with_logits"}

    def _swings(self, values: Series, scale: float) -> int:
        """Number of turns of the smoothed curve that are larger than `min_swing` and than chance."""
        late = values[len(values) // 4 :]
        parts = min(_PARTS, len(late) // 4)
        if parts < 8:
            return 0
        error = noise(late) / np.sqrt(len(late) / parts)
        return _turns(smoothed(late, parts), max(self.min_swing * scale, 6 * error))

    @classmethod
    def examples(cls) -> Examples:
        generator = np.random.default_rng(0)
        base = synthetic.chain(3, facts=Facts(loss={"baseline": 2.3, "value": 2.3, "op": "cross_entropy"}))
        steps, noisy = np.arange(800), generator.standard_normal(800)
        fall = 0.5 + 1.8 * np.exp(-steps / 80)
        return Examples(
            sick=(
                synthetic.run(base, loss=1.5 + 0.6 * np.sin(steps / 30)),
                synthetic.run(base, loss=3.2 + 0.9 * noisy),
            ),
            healthy=(
                synthetic.run(base, loss=fall + 0.4 * noisy),
                synthetic.run(base, loss=fall + 0.1 * np.sin(steps / 30)),
                synthetic.run(base, loss=np.where(steps % 200 < 20, 1.2, fall)[:600]),  # warm restarts
                synthetic.run(base, loss=2.3 + 0.02 * noisy),
            ),
        )


def _turns(means: Series, swing: float) -> int:
    """Number of moves, up or down, of at least `swing` between turning points (a zigzag)."""
    turns, direction, extreme = 0, 0, float(means[0])
    for value in map(float, means[1:]):
        if (direction >= 0 and value > extreme) or (direction <= 0 and value < extreme):
            if direction == 0 and abs(value - means[0]) < swing:
                continue
            extreme = value
            direction = direction or (1 if value > means[0] else -1)
        elif abs(value - extreme) >= swing:
            turns, direction, extreme = turns + 1, -direction, value
    return turns
