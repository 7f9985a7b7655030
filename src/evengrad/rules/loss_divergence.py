"""OPT001: the loss climbs away from the best that it had."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule
from evengrad.rules.over_time import finite, seen_over
from evengrad.signals.curves import Progress, noise, progress, smoothed
from evengrad.types import Evidence, Facts, Finding, Series, Trace

_SHORT = 50  # steps


@dataclass(frozen=True, kw_only=True)
class LossDivergence(Rule):
    """The loss ends far above where it has been: it gave back most of what was learnt, or stands above where it began.

    A loss is compared with itself by the means of twentieths of the run, and a rise counts from six of their standard errors on, so that
    noise of small batches is none (at most 3 false alarms in 1,000 flat curves, whatever their noise:
    tests/rules/test_over_time.py).

    Attributes:
        max_regained: Largest healthy share of the way down that the loss has come back, in [0, 1].
        min_rise: Smallest rise that counts, as a share of the constant answer's loss.
        max_growth: Largest healthy loss at the end, in the larger of its start and the constant answer's loss.
        early_growth: The same within the first fifty steps, in which healthy losses overshoot.

    Reference: Ben Braiek & Khomh 2022, TheDeepChecker (a loss of twice its minimum diverges).
    """

    code: ClassVar[str] = "OPT001"
    symptom: ClassVar[str | None] = "loss_divergence"
    title: ClassVar[str] = "the loss diverges"
    causes: ClassVar[tuple[str, ...]] = (
        *("lr_too_high", "sign_error", "missing_zero_grad", "scheduler_bug", "no_warmup", "no_grad_clip"),
        *("input_not_normalized", "target_not_scaled", "loss_reduction", "unstable_loss", "wrong_loss", "bad_init_large"),
        "over_regularized",
    )
    needs: ClassVar[tuple[str, ...]] = ("curves.loss",)
    signal: ClassVar[tuple[str, str]] = ("regained", "of the way down")
    helps: ClassVar[str] = "a rate ten times smaller, a warm-up, clipping by norm; gradients set to zero at each step"
    max_regained: float = 0.6
    min_rise: float = 0.15
    max_growth: float = 2.0
    early_growth: float = 5.0

    def check(self, trace: Trace) -> Iterator[Finding]:
        found = progress(trace)
        if found is None:
            return
        loss = trace.curves["loss"]
        if not found.sound and found.end < found.start:
            yield self._downwards(trace, found)
            return
        seen = finite(loss.values)
        end = float(seen[-max(3, len(seen) // 20) :].mean())
        high, scale = max(found.start, found.reference), abs(found.reference)
        error = noise(seen) / np.sqrt(max(1, len(seen) // 20))
        if not np.isfinite(end - found.best) or end - found.best < max(self.min_rise * scale, 6 * error):
            return
        began = self._began(seen, found.best, end)
        step, low = int(loss.steps[began]), int(loss.steps[int(smoothed_argmin(seen))])
        back = (end - found.best) / (found.reference - found.best) if found.reference > found.best else np.inf
        most = (self.max_growth if len(seen) >= _SHORT else self.early_growth) * abs(high)
        if end > most:
            evidence = Evidence(signal="loss", value=end, relation=">", threshold=most, where="loss", step=step)
            message = f"the loss grows from {found.start:.3g} at first to {end:.3g}, rising since step {step:,}: each step makes it worse"
        elif back > self.max_regained and np.isfinite(found.end) and self._had_learnt(seen, found, end - found.best):
            name, unit = self.signal
            evidence = Evidence(signal=name, value=back, relation=">", threshold=self.max_regained, unit=unit, where="loss", step=step)
            message = f"the loss fell to {found.best:.3g} by step {low:,} and is back at {end:.3g}: {back:.0%} of what was learnt is lost"
        else:
            return
        yield seen_over(self, trace, "error", message, evidence, first=step, at=step)

    def _had_learnt(self, values: Series, found: Progress, rise: float) -> bool:
        """True if there was something to lose, and a rise over six standard errors of a twentieth's mean, outliers counted."""
        if len(values) < _SHORT or found.best > 0.9 * found.reference:
            return False
        deviation = float(np.sqrt(np.square(np.diff(values)).mean() / 2))
        return bool(rise > 6 * deviation / np.sqrt(max(1, len(values) // 20)))

    def _downwards(self, trace: Trace, found: Progress) -> Finding:
        """A loss that falls where it means nothing: below zero, or away from the targets."""
        kind, pull = (trace.facts.loss or {}).get("op", "loss"), (trace.facts.loss or {}).get("toward_targets", 1.0)
        if pull < 0:
            evidence = Evidence(signal="toward_targets", value=pull, relation="<", threshold=-0.5, where="loss")
            message = f"the loss falls to {found.end:.3g}, and less of it takes answers away from their targets (agreement {pull:.2g})"
        else:
            evidence = Evidence(signal="loss", value=found.best, relation="<", threshold=0.0, where="loss")
            message = f"the loss falls to {found.best:.3g}, where {kind} of right inputs never falls below 0: it has no lowest point"
        cause = None if pull < 0 else "wrong_loss"
        return seen_over(self, trace, "error", message, evidence, first=int(trace.curves["loss"].steps[0]), cause=cause)

    def value(self, trace: Trace) -> float:
        found = progress(trace)
        return float(np.clip(found.regained, 0, 1e9)) if found is not None else np.nan

    def _began(self, values: Series, best: float, end: float) -> int:
        """Number of the first loss of the rise: after the last twentieth that lies a tenth of the way up or lower."""
        means = smoothed(values)
        low = np.flatnonzero(means <= best + 0.1 * (end - best))
        edges = np.cumsum([len(part) for part in np.array_split(values, len(means))])
        return min(int(edges[low[-1]]) if len(low) else 0, len(values) - 1)

    @classmethod
    def examples(cls) -> Examples:
        generator = np.random.default_rng(0)
        base = synthetic.chain(3, facts=Facts(loss={"baseline": 2.3, "value": 2.3}))
        noisy = 0.3 * generator.standard_normal(400)
        down = 0.3 + 2 * np.exp(-np.arange(400) / 60)
        late = np.where(np.arange(400) < 250, down, 2.2)
        return Examples(
            sick=(
                synthetic.run(base, loss=2.3 * 1.02 ** np.arange(400)),
                synthetic.run(base, loss=late + 0.1 * noisy),
                synthetic.run(base, loss=np.r_[down[:200], 0.3 * 1.5 ** np.arange(60), np.inf, np.nan]),
            ),
            healthy=(
                synthetic.run(base, loss=down + noisy),
                synthetic.run(base, loss=np.where(np.arange(400) < 250, down, 1.0)),  # warm restart
                synthetic.run(base, loss=np.full(400, 2.3) + noisy),
                synthetic.run(base, loss=np.full(30, 1e-6)),
            ),
        )


def smoothed_argmin(values: Series) -> float:
    """Number of the loss in the middle of the lowest twentieth."""
    means = smoothed(values)
    return min(len(values) - 1, (int(means.argmin()) + 0.5) * len(values) / len(means))
