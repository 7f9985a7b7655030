"""OPT004: the loss still falls at the end as it did all along."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule
from evengrad.rules.over_time import seen_over
from evengrad.signals.curves import progress, smoothed, trend
from evengrad.signals.steps import usual_ratio
from evengrad.signals.why import STILL, VIOLENT, cause_of
from evengrad.types import Evidence, Facts, Finding, Series, Trace


@dataclass(frozen=True, kw_only=True)
class SlowConvergence(Rule):
    """Training ends on its way down: most can still be learnt, and the pace has not slackened.

    That the loss falls at all is asked of ranks (Mann & Kendall, z < -3.1 over the last half: one curve without trend in 1,000), on the
    training losses or on the validation loss, which has the same samples each time.

    Attributes:
        min_pace: Smallest share of all that was gained that the last half of the run gained: a half if the loss falls evenly.
        few_steps: Steps (or two epochs) under which the run was short, if its steps were of a usual size.

    Reference: Zhang et al. 2021, AUTOTRAINER (slow convergence).
    """

    code: ClassVar[str] = "OPT004"
    symptom: ClassVar[str | None] = "slow_convergence"
    title: ClassVar[str] = "the loss falls too slowly"
    causes: ClassVar[tuple[str, ...]] = (
        *("lr_too_low", "undertrained", "over_regularized", "over_clipped", "labels_corrupt", "low_precision"),
        *("redundant_output_activation", "bad_init_small", "bad_init_large", "bad_hidden_activation", "input_not_normalized"),
    )
    needs: ClassVar[tuple[str, ...]] = ("curves.loss",)
    signal: ClassVar[tuple[str, str]] = ("pace", "of the gain in the last half")
    helps: ClassVar[str] = (
        "a rate ten times larger (a range test finds it), more epochs, less dropout and weight decay; standardised inputs"
    )
    min_pace: float = 0.25
    few_steps: int = 200

    def check(self, trace: Trace) -> Iterator[Finding]:
        found, loss = progress(trace), trace.curves["loss"]
        if found is None or found.thrives or not np.isfinite(found.end) or not np.isfinite(loss.values).all():
            return
        curves = [c.values for c in (loss, trace.curves.get("val_loss")) if c is not None and np.isfinite(c.values).all()]
        falling = [values for values in curves if trend(values[len(values) // 2 :]) < -3.1]
        if not falling:
            return
        pace = max(_pace(values) for values in falling)
        if pace < self.min_pace:
            return
        name, unit = self.signal
        evidence = Evidence(signal=name, value=pace, relation=">=", threshold=self.min_pace, unit=unit, where="loss")
        message = (
            f"the loss went from {found.start:.3g} to {found.end:.3g} in {len(loss.values):,} steps and still falls: "
            f"{pace:.0%} of what it gained, it gained in the last half"
        )
        cause = cause_of(trace, self.causes) or ("undertrained" if self._short(trace) else None)
        yield seen_over(self, trace, "warning", message, evidence, first=int(loss.steps[len(loss.steps) // 2]), cause=cause)

    def value(self, trace: Trace) -> float:
        loss = trace.curves.get("loss")
        return _pace(loss.values) if loss is not None and len(loss.values) > 3 and np.isfinite(loss.values).all() else np.nan

    def _short(self, trace: Trace) -> bool:
        loop, ratio = trace.facts.loop or {}, usual_ratio(trace)
        short = len(trace.curves["loss"].steps) < self.few_steps or (loop.get("epochs") or 99) <= 2
        return short and ratio is not None and STILL < ratio < VIOLENT

    @classmethod
    def examples(cls) -> Examples:
        base = synthetic.chain(3, facts=Facts(loss={"baseline": 2.3, "value": 2.3}))
        noisy = 0.02 * np.random.default_rng(0).standard_normal(300)
        steps = np.arange(300)
        return Examples(
            sick=(
                synthetic.run(base, loss=2.3 - 1e-3 * steps + noisy),
                synthetic.run(base, loss=2.3 - 1e-4 * steps + noisy, val_loss=(np.arange(0, 300, 19), 2.3 - 1e-4 * np.arange(0, 300, 19))),
            ),
            healthy=(
                synthetic.run(base, loss=0.1 + 2.2 * np.exp(-steps / 100) + noisy),
                synthetic.run(base, loss=1.5 + 0.8 * np.exp(-steps / 30) + noisy),  # settled: no longer falling
                synthetic.run(base, loss=2.3 + noisy),
            ),
        )


def _pace(values: Series) -> float:
    """Share of the fall that happened in the last half; 0 where it did not fall."""
    means = smoothed(values)
    middle = float(np.median(means[len(means) // 2 - 1 : len(means) // 2 + 2]))
    fall, late = float(means[0] - means[-1]), middle - float(means[-1])
    return late / fall if fall > 0 else 0.0
