"""OPT013: the schedule takes the learning rate somewhere that nobody meant."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule
from evengrad.signals.curves import progress, unharmed
from evengrad.types import Evidence, Facts, Finding, Series, Trace


@dataclass(frozen=True, kw_only=True)
class Schedule(Rule):
    """The rate is next to nothing for much of the run, or still grows at its end: a schedule that counts something else than it is given.

    The usual mistake is a schedule made for epochs that is stepped after each batch. Rates that fall to zero at the very end, warm-ups
    and restarts are meant so.

    Attributes:
        max_fall: Factor under the largest rate below which a rate does nothing.
        max_idle_fraction: Largest healthy share of the run that is spent below it after the peak, in [0, 1].
        max_growth: Largest healthy factor by which the rate grows over the second half of the run.
        max_learnt: Share of the loss that is gone in a run that suffers no harm.

    Reference: Goyal et al. 2017 (schedules in epochs and in steps); Loshchilov & Hutter 2017, SGDR.
    """

    code: ClassVar[str] = "OPT013"
    symptom: ClassVar[str | None] = "slow_convergence"
    title: ClassVar[str] = "the learning rate's schedule is off"
    causes: ClassVar[tuple[str, ...]] = ("scheduler_bug",)
    needs: ClassVar[tuple[str, ...]] = ("curves.lr",)
    signal: ClassVar[tuple[str, str]] = ("idle_fraction", "of the run")
    helps: ClassVar[str] = "count the schedule in what it is stepped by: after each batch, T_max or step_size = epochs * batches"
    max_fall: float = 1e-2
    max_idle_fraction: float = 0.3
    max_growth: float = 1.3
    max_learnt: float = 0.5

    def check(self, trace: Trace) -> Iterator[Finding]:
        rates = _rates(trace)
        if not len(rates):
            return
        found = self._grows(rates) or self._idles(rates, trace)
        if found is None:
            return
        message, evidence = found
        ran = progress(trace)
        severity = "note" if ran is None or unharmed(trace) else "warning"
        made = self.finding(trace, severity, message, evidence=(evidence,), where=("optimizer",), at=(0, len(trace.steps) - 1))
        yield replace(made, cause="scheduler_bug")

    def value(self, trace: Trace) -> float:
        rates = _rates(trace)
        return self._idle(rates) if len(rates) else float("nan")

    def _idle(self, rates: Series) -> float:
        """Share of the run after the peak that is spent far below it."""
        peak = int(rates.argmax())
        return float((rates[peak:] < self.max_fall * rates[peak]).sum() / len(rates))

    def _idles(self, rates: Series, trace: Trace) -> tuple[str, Evidence] | None:
        idle, peak = self._idle(rates), float(rates.max())
        if not idle > self.max_idle_fraction:
            return None
        since = int(rates.argmax()) + int((rates[int(rates.argmax()) :] >= self.max_fall * peak).sum())
        batches = (trace.facts.loop or {}).get("steps", 0) // max(1, int((trace.facts.loop or {}).get("epochs", 1)))
        epoch = f" ({since / batches:.1f} epochs)" if batches else ""
        when = f"by step {since:,} of {len(rates):,}{epoch}"
        message = f"the learning rate falls from {peak:.1e} below {self.max_fall:.0e} of that {when}, and stays there"
        return message, Evidence(signal="idle_fraction", value=idle, relation=">", threshold=self.max_idle_fraction, unit="of the run")

    def _grows(self, rates: Series) -> tuple[str, Evidence] | None:
        half = rates[len(rates) // 2 :]
        if half[0] <= 0 or not bool((np.diff(half) >= 0).all()):
            return None
        growth = float(half[-1] / half[0])
        if not growth > self.max_growth:
            return None
        message = (
            f"the learning rate still grows when the run ends: ×{growth:.3g} over its second half, from {rates[0]:.1e} to {rates[-1]:.1e}"
        )
        return message, Evidence(signal="growth", value=growth, relation=">", threshold=self.max_growth, where="optimizer")

    @classmethod
    def examples(cls) -> Examples:
        def net(rates: Any, *, learnt: float = 0.1) -> Trace:
            made = synthetic.chain(3, facts=Facts(loop={"steps": 200, "epochs": 10}))
            return synthetic.run(made, lr=rates, loss=np.linspace(1.0, 1.0 - learnt, len(rates)))

        step = np.arange(200)
        cosine = 0.05 * (1 + np.cos(np.pi * step / 200))
        return Examples(
            sick=(net(0.1 * 0.9**step), net(0.1 * 1.05**step), net(1e-5 * step + 1e-5), net(np.where(step < 120, 0.1, 9e-4))),
            healthy=(
                net(np.full(200, 0.1)),
                net(cosine),
                net(0.1 * 0.98**step),
                net(np.where(step < 150, 0.1, 9e-4)),
                net(np.minimum(step + 1, 90) / 900.0),  # a long warm-up
            ),
        )


def _rates(trace: Trace) -> Series:
    """The rates of a run that has a schedule."""
    rates = trace.curves["lr"].values
    rates = rates[np.isfinite(rates)]
    return rates if len(rates) >= 20 and rates.max() > rates.min() and rates.max() > 0 else np.zeros(0)
