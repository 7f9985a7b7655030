"""OPT002: the loss never gets below what a constant answer gets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule
from evengrad.rules.over_time import seen_over
from evengrad.signals.curves import Progress, falls_on, noise, progress, seen_share, smoothed
from evengrad.signals.steps import warmed_up_at
from evengrad.types import Curve, Evidence, Facts, Finding, Trace


@dataclass(frozen=True, kw_only=True)
class LossStuck(Rule):
    """From its first step on, training gains nothing over an answer that does not look at the inputs.

    Where the constant answer's loss is known it is the level to beat, so that a loss that falls from a hundred to it counts as stuck, and
    one that begins below it (a network trained before) does not. A loss that still falls beyond chance is slow (OPT004), not stuck.

    Attributes:
        min_learnt: Smallest healthy share of the constant answer's loss that is gone by the end, in [0, 1].
        slow_pace: Share of the gain in the last half from which on it is slow.
        min_steps: Losses after the warm-up before it is judged; and three tenths of the planned steps (200, where no plan is known).

    Reference: Karpathy 2019, A recipe for training neural networks; Zhang et al. 2021, AUTOTRAINER.
    """

    code: ClassVar[str] = "OPT002"
    symptom: ClassVar[str | None] = "loss_stuck"
    title: ClassVar[str] = "the loss is stuck from the start"
    causes: ClassVar[tuple[str, ...]] = (
        *("sign_error", "missing_zero_grad", "scheduler_bug", "frozen_params", "low_precision", "over_clipped", "over_regularized"),
        *("redundant_output_activation", "wrong_output_activation", "wrong_loss", "lr_too_low", "lr_too_high", "labels_corrupt"),
        *("bad_hidden_activation", "constant_init", "bad_init_small", "bad_init_large", "input_not_normalized", "target_not_scaled"),
        *("capacity_too_small", "batch_too_small"),
    )
    needs: ClassVar[tuple[str, ...]] = ("curves.loss",)
    signal: ClassVar[tuple[str, str]] = ("learnt", "of the loss")
    helps: ClassVar[str] = (
        "train on one batch until its loss is zero: if that fails, look at the head, the initialiser and the rate; if not, at the labels"
    )
    min_learnt: float = 0.05
    slow_pace: float = 0.25
    min_steps: int = 50

    def check(self, trace: Trace) -> Iterator[Finding]:
        loss, found = trace.curves["loss"], progress(trace)
        if found is None or not found.sound or not np.isfinite(found.end) or not self._judged(loss, trace):
            return
        if (falls_on(trace) or 0.0) >= self.slow_pace:
            return
        late = smoothed(loss.values)[-5:].mean()
        learnt = (found.reference - late) / abs(found.reference) if found.reference else 0.0
        grows = late > 2.0 * max(found.start, found.reference)
        if grows or learnt >= self.min_learnt or self._once_learnt(found, loss):
            return
        known = (trace.facts.loss or {}).get("baseline") is not None
        beaten = f"the {found.reference:.3g} that a constant answer gets" if known else f"the {found.reference:.3g} at which it began"
        name, unit = self.signal
        evidence = Evidence(signal=name, value=float(learnt), relation="<", threshold=self.min_learnt, unit=unit, where="loss")
        message = f"the loss is {late:.3g} after {len(loss.values):,} steps, no better than {beaten}: nothing was learnt"
        yield seen_over(self, trace, "error" if known else "warning", message, evidence, first=0)

    def value(self, trace: Trace) -> float:
        found = progress(trace)
        return float(np.nan_to_num(found.learnt, posinf=1e9, neginf=-1e9)) if found is not None else np.nan

    def _judged(self, loss: Curve, trace: Trace) -> bool:
        planned = bool((trace.facts.loop or {}).get("steps"))
        late = seen_share(trace) >= (0.3 if planned else 1.0)
        return late and int((loss.steps >= warmed_up_at(trace)).sum()) >= self.min_steps

    def _once_learnt(self, found: Progress, loss: Curve) -> bool:
        """True if the loss was once clearly below: what was learnt and lost is divergence."""
        error = noise(loss.values) / np.sqrt(max(1, len(loss.values) // 20))
        return bool(found.reference - found.best > max(3 * self.min_learnt * abs(found.reference), 5 * error))

    @classmethod
    def examples(cls) -> Examples:
        generator = np.random.default_rng(0)
        known, unknown = synthetic.chain(3, facts=Facts(loss={"baseline": 2.3, "value": 2.3})), synthetic.chain(3)
        noisy = 0.05 * generator.standard_normal(300)
        return Examples(
            sick=(
                synthetic.run(known, loss=2.3 + noisy),
                synthetic.run(known, loss=2.3 + noisy + 100 * np.exp(-np.arange(300.0))),
                synthetic.run(unknown, loss=0.5 + noisy),
            ),
            healthy=(
                synthetic.run(known, loss=2.3 - np.arange(300) * 1e-3 + noisy),
                synthetic.run(known, loss=0.2 + noisy),  # trained before
                synthetic.run(known, loss=2.3 + noisy, lr=np.linspace(0, 1, 300) ** 4),  # still warming up
                synthetic.run(known, loss=2.3 + noisy[:40]),
            ),
        )
