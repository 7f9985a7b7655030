"""lower_rate: a smaller learning rate in every group, and in the schedule."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from evengrad.errors import InputError
from evengrad.remedies import base
from evengrad.remedies.base import Remedy, Undo
from evengrad.rig import Rig
from evengrad.types import Finding, Proposal, Trace

_RATES = ("lr", "initial_lr", "max_lr", "min_lr", "base_lrs", "max_lrs", "min_lrs", "eta_min")  # of groups and of schedules


@dataclass(frozen=True, kw_only=True)
class LowerRate(Remedy):
    """Multiplies every group's rate, and the rates that a schedule starts from, by a factor under one.

    Attributes:
        factors: Factors to propose, gentlest first.
        usual: Rates to propose in place of one that is more than a hundred times the first, gentlest first.

    Reference: LeCun et al. 1998, Efficient BackProp, sec. 4.7.
    """

    name: ClassVar[str] = "lower_rate"
    title: ClassVar[str] = "a smaller learning rate"
    symptoms: ClassVar[tuple[str, ...]] = (
        *("nan_or_inf", "exploding_gradient", "dead_relu", "loss_divergence"),
        *("zero_gradient", "vanishing_gradient", "signal_collapse", "saturated_activation"),  # where training brought them about
    )
    change: ClassVar[int] = base.RATE
    shows_at_once: ClassVar[bool] = False
    factors: tuple[float, ...] = (0.1, 0.01)
    usual: tuple[float, ...] = (0.1, 0.01)

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        rate = (trace.facts.optimizer or {}).get("lr")
        if not isinstance(rate, (int, float)) or (trace.facts.inputs or {}).get("nonfinite_fraction"):
            return
        if finding.symptom in self.symptoms[4:] and finding.steps[0] == trace.steps[0]:
            return  # it was there before the first step: no rate made it
        for factor in self.factors if rate <= 100 * self.usual[0] else [usual / rate for usual in self.usual]:
            yield Proposal(
                remedy=self.name,
                options={"factor": factor},
                cause="lr_too_high",
                summary=f"lower_rate {rate:g} -> {rate * factor:g}",
                code=f"-lr={rate:g}\n+lr={rate * factor:g}",
                needs=("optimizer",),
            )

    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        if rig.optimizer is None:
            raise InputError("lower_rate needs an optimizer; give check or Experiment one")
        factor = float(proposal.options["factor"])
        held = [*rig.optimizer.param_groups, *(vars(s) for s in _schedulers(rig.scheduler))]
        rates = [(part, key, part[key]) for part in held for key in _RATES if key in part]
        for part, key, rate in rates:
            part[key] = [r * factor for r in rate] if isinstance(rate, list) else rate * factor

        def undo() -> None:
            for part, key, rate in rates:
                part[key] = rate

        return undo


def _schedulers(scheduler: Any) -> Iterator[Any]:
    """Yields a schedule and those that it is made of."""
    if scheduler is not None:
        yield scheduler
        for part in getattr(scheduler, "_schedulers", ()):
            yield from _schedulers(part)
