"""OPT003: the loss lies flat, well above what can be reached."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule
from evengrad.rules.over_time import seen_over
from evengrad.signals.curves import falls_on, noise, progress, seen_share, smoothed
from evengrad.signals.steps import warmed_up_at
from evengrad.types import Evidence, Facts, Finding, Series, Trace


@dataclass(frozen=True, kw_only=True)
class Plateau(Rule):
    """Something was learnt, and then nothing more; or the loss lay flat for long before it fell (a saddle), which is told as a note.

    Flat is a stretch of twentieths of the run whose means stay within a band; what is left is compared with what neighbours of like
    inputs show can be learnt, so that noise in the targets is no plateau.

    Attributes:
        min_flat: Shortest stretch at the end that counts, as a share of the run.
        band: Width of the band, as a share of the constant answer's loss.
        min_learnt: Share that was learnt before; with less the loss is stuck (OPT002).
        min_steps: Losses before it is judged; and half of the planned steps must be over.
        min_saddle: Shortest flat stretch before a fall that is told.

    Reference: Dauphin et al. 2014, Identifying and attacking the saddle point problem; Ainsworth & Shin 2021, Plateau phenomenon.
    """

    code: ClassVar[str] = "OPT003"
    symptom: ClassVar[str | None] = "plateau"
    title: ClassVar[str] = "the loss lies flat above what can be reached"
    causes: ClassVar[tuple[str, ...]] = (
        *("redundant_output_activation", "scheduler_bug", "over_regularized", "over_clipped", "wrong_output_activation", "low_precision"),
        *("lr_too_high", "lr_too_low", "labels_corrupt", "capacity_too_small", "bad_hidden_activation", "constant_init", "frozen_params"),
        *("too_narrow_relu", "bad_init_large", "input_not_normalized", "wrong_loss", "batch_too_small"),
    )
    needs: ClassVar[tuple[str, ...]] = ("curves.loss",)
    signal: ClassVar[tuple[str, str]] = ("flat", "of the run")
    helps: ClassVar[str] = "look at the schedule, the head and the width first; then a larger or smaller rate, momentum or Adam"
    min_flat: float = 0.4
    band: float = 0.06
    min_learnt: float = 0.05
    min_steps: int = 50
    min_saddle: float = 0.3

    def check(self, trace: Trace) -> Iterator[Finding]:
        found, loss = progress(trace), trace.curves["loss"]
        if (
            found is None
            or not found.sound
            or not np.isfinite(loss.values).all()
            or seen_share(trace) < 0.5
            or len(loss.values) < self.min_steps
        ):
            return
        scale, means = abs(found.reference), smoothed(loss.values)
        flat = _flat_end(means, max(self.band * scale, 5 * noise(loss.values) / np.sqrt(len(loss.values) / len(means)))) / len(means)
        name, unit = self.signal
        settled = not found.thrives and found.regained <= 0.6 and found.learnt >= self.min_learnt
        if settled and flat >= self.min_flat and (falls_on(trace) or 0.0) < 0.25:
            since = int(loss.steps[min(len(loss.steps) - 1, int((1 - flat) * len(loss.steps)))])
            evidence = Evidence(signal=name, value=flat, relation=">=", threshold=self.min_flat, unit=unit, where="loss", step=since)
            left = f"; neighbours of like inputs show that {found.learnable:.0%} can be" if found.learnable < 1 else ""
            message = (
                f"the loss lies flat at {found.end:.3g} since step {since:,}, with {found.learnt:.0%} of {found.reference:.3g} learnt{left}"
            )
            yield seen_over(self, trace, "warning", message, evidence, first=since)
            return
        first, length = _flat_before_fall(means, self.band * scale, 0.2 * scale, skip=self._warm(trace))
        if length / len(means) >= self.min_saddle and found.learnt >= 0.25:
            begin, end = (int(loss.steps[int(k * (len(loss.steps) - 1) / len(means))]) for k in (first, first + length))
            value = length / len(means)
            evidence = Evidence(signal=name, value=value, relation=">=", threshold=self.min_saddle, unit=unit, where="loss", step=begin)
            message = (
                f"the loss lay flat at {means[first]:.3g} from step {begin:,} to {end:,}, {value:.0%} of the run, and fell then: a saddle"
            )
            yield seen_over(self, trace, "note", message, evidence, first=begin, last=end)

    def value(self, trace: Trace) -> float:
        found = progress(trace)
        if found is None or not np.isfinite(found.end):
            return np.nan
        means = smoothed(trace.curves["loss"].values)
        return _flat_end(means, self.band * abs(found.reference)) / len(means)

    def _warm(self, trace: Trace) -> int:
        """Twentieths that a warm-up took."""
        loss = trace.curves["loss"]
        return int(20 * (loss.steps < warmed_up_at(trace)).mean())

    @classmethod
    def examples(cls) -> Examples:
        base = synthetic.chain(3, facts=Facts(loss={"baseline": 2.3, "value": 2.3}))
        near = {
            "shape": [64],
            "labels": {"0": 500, "1": 500},
            "neighbour_agreement": 0.75,
            "neighbour_chance": 0.5,
            "neighbour_error": 0.02,
        }
        circles = synthetic.chain(3, facts=Facts(loss={"baseline": 0.693, "value": 0.7, "op": "cross_entropy"}, targets=near))
        noisy = 0.02 * np.random.default_rng(0).standard_normal(400)
        fall = np.exp(-np.arange(400) / 40)
        late = np.where(np.arange(400) < 200, 2.3, 0.3 + 2 * np.exp(-(np.arange(400) - 200) / 30))
        return Examples(
            sick=(
                synthetic.run(base, loss=1.6 + 0.7 * fall + noisy),
                synthetic.run(base, loss=late + noisy),
            ),
            healthy=(
                synthetic.run(base, loss=0.4 + 1.9 * fall + noisy),
                synthetic.run(base, loss=2.3 + noisy),  # stuck, which is another rule's
                synthetic.run(base, loss=2.3 - 2e-3 * np.arange(400) + noisy),
                synthetic.run(circles, loss=0.4 + 0.3 * fall + noisy),  # as far as noisy labels let it
            ),
        )


def _flat_end(means: Series, band: float) -> int:
    """Number of parts at the end whose means stay within a band."""
    for first in range(len(means)):
        if means[first:].max() - means[first:].min() <= band:
            return len(means) - first
    return 1


def _flat_before_fall(means: Series, band: float, fall: float, skip: int) -> tuple[int, int]:
    """First part and length of the longest stretch within a band after which the loss fell further than `fall`."""
    best = (0, 0)
    for first in range(skip, len(means)):
        last = first
        while last + 1 < len(means) and means[first : last + 2].max() - means[first : last + 2].min() <= band:
            last += 1
        length = last - first + 1
        if length > best[1] and last + 1 < len(means) and means[last] - means[last + 1 :].min() >= fall:
            best = (first, length)
    return best
