"""OPT006: the loss jumps up for some steps and comes back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule
from evengrad.rules.over_time import seen_over
from evengrad.signals.curves import Progress, progress
from evengrad.types import Evidence, Facts, Finding, Series, Trace

_BEFORE = 40  # losses that a spike is compared with


@dataclass(frozen=True, kw_only=True)
class LossSpike(Rule):
    """A few steps in a row are all worse than any of the forty before: a step did harm, and training needed time to mend it.

    One bad loss is a batch of odd samples; five in a row above the largest of forty are not. Of losses in random order that happens once in
    1.2 million places, whatever their distribution: under 1 false alarm in 100 runs of 10,000 steps (tests/rules/test_over_time.py).

    Attributes:
        min_length: Losses in a row that are above all of the forty before.
        min_height: Smallest height, as a share of the constant answer's loss.
        large_height: Height from which it is told as a warning where training went well all the same.
        max_overshoot: Largest healthy loss within the first forty steps, in the larger of the first and the constant answer's.

    Reference: Chowdhery et al. 2022, PaLM, sec. 5.1; Wortsman et al. 2023, Stable and low-precision training (StableAdamW).
    """

    code: ClassVar[str] = "OPT006"
    symptom: ClassVar[str | None] = "loss_spike"
    title: ClassVar[str] = "the loss spikes"
    causes: ClassVar[tuple[str, ...]] = (
        *("scheduler_bug", "lr_too_high", "no_grad_clip", "no_warmup", "batch_too_small", "attention_logits"),
        *("target_not_scaled", "input_not_normalized", "bad_init_large", "loss_reduction"),
    )
    needs: ClassVar[tuple[str, ...]] = ("curves.loss",)
    signal: ClassVar[tuple[str, str]] = ("height", "of the constant answer's loss")
    helps: ClassVar[str] = "clip by norm at the 90th percentile of its history, a smaller rate, a smaller beta2 of Adam; look at that batch"
    min_length: int = 5
    min_height: float = 0.3
    large_height: float = 2.0
    max_overshoot: float = 5.0

    def check(self, trace: Trace) -> Iterator[Finding]:
        found, loss = progress(trace), trace.curves["loss"]
        if found is None or not np.isfinite(found.end) or not found.reference:
            return
        spikes = self._spikes(loss.values, abs(found.reference)) or self._overshoot(loss.values, found, trace.run.samples)
        if not spikes:
            return
        height, first, last = max(spikes)
        name, unit = self.signal
        start, end = int(loss.steps[first]), int(loss.steps[last])
        evidence = Evidence(signal=name, value=height, relation=">=", threshold=self.min_height, unit=unit, where="loss", step=start)
        more = f"; {len(spikes)} spikes in all" if len(spikes) > 1 else ""
        usual = float(np.median(loss.values[max(0, first - _BEFORE) : max(1, first)]))
        top = float(loss.values[first : last + 1].max())
        message = f"the loss jumps from {usual:.3g} to {top:.3g} at step {start:,} and needs {last - first + 1} steps to come back{more}"
        severity = "note" if found.thrives and (height < self.large_height or first < _BEFORE) else "warning"
        yield seen_over(self, trace, severity, message, evidence, first=start, last=end, at=start)

    def value(self, trace: Trace) -> float:
        found, loss = progress(trace), trace.curves.get("loss")
        if found is None or loss is None or not found.reference:
            return np.nan
        return max((height for height, _, _ in self._spikes(loss.values, abs(found.reference))), default=0.0)

    def _overshoot(self, values: Series, found: Progress, samples: int) -> list[tuple[float, int, int]]:
        """The first steps throw the loss far above where it began and above the constant answer's."""
        early = values[:_BEFORE]
        if not np.isfinite(early).all():
            return []
        most = self.max_overshoot * (1 + 8 / max(1, samples)) * max(abs(found.reference), abs(float(values[0])))  # single samples differ
        above = np.flatnonzero(early > most)
        if len(above) < 2 and not (len(above) and early.max() > 4 * most):
            return []
        later = values[_BEFORE:]
        if len(later) > 10 and early.max() < 3 * np.nanmax(later):
            return []  # losses of this size are usual here
        return [(float(early.max() - values[0]) / abs(found.reference), int(above[0]), int(above[-1]))]

    def _spikes(self, values: Series, scale: float) -> list[tuple[float, int, int]]:
        """Height, first and last loss of each spike that comes back."""
        found: list[tuple[float, int, int]] = []
        count, free = len(values), 0
        if count < _BEFORE + self.min_length:
            return found
        told = np.where(np.isfinite(values), values, np.nan)  # what is not finite makes every comparison with it false
        highest = sliding_window_view(told, _BEFORE).max(1)[: count - _BEFORE - self.min_length + 1]
        lowest = sliding_window_view(told, self.min_length).min(1)[_BEFORE:]
        for place in (np.flatnonzero(lowest > highest) + _BEFORE).tolist():
            if place < free:
                continue  # it belongs to the spike before
            before, ahead = values[place - _BEFORE : place], values[place : place + self.min_length]
            level = float(np.median(before))
            back = np.flatnonzero(values[place:] <= max(before.max(), level + 0.2 * (np.median(ahead) - level)))
            height = float(np.median(ahead) - level) / scale
            if len(back) and height >= self.min_height and 0 < back[0] <= max(50, count // 5):
                found.append((height, place, place + int(back[0]) - 1))
            free = place + max(1, int(back[0])) if len(back) else count
        return found

    @classmethod
    def examples(cls) -> Examples:
        generator = np.random.default_rng(0)
        base = synthetic.chain(3, facts=Facts(loss={"baseline": 2.3, "value": 2.3}))
        steps = np.arange(600)
        fall = 0.5 + 1.8 * np.exp(-steps / 60) + 0.1 * generator.standard_normal(600)
        after = np.where(steps >= 300, np.exp(-(steps - 300.0).clip(0) / 8), 0.0)
        return Examples(
            sick=(synthetic.run(base, loss=fall + 8 * after), synthetic.run(base, loss=fall + 2.5 * after)),
            healthy=(
                synthetic.run(base, loss=fall + 8 * (steps == 300)),  # one odd batch
                synthetic.run(base, loss=fall + 0.5 * after),
                synthetic.run(base, loss=0.5 + generator.gamma(0.3, 1.0, 600)),
            ),
        )
