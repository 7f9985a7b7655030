"""lower_rate: a smaller learning rate in every group, and in the schedule."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from evengrad.errors import InputError
from evengrad.remedies import base
from evengrad.remedies.base import Remedy, Undo
from evengrad.rig import Rig
from evengrad.types import Finding, Proposal, Trace


@dataclass(frozen=True, kw_only=True)
class LowerRate(Remedy):
    """Multiplies every group's rate, and the rates that a schedule starts from, by a factor under one.

    Attributes:
        factors: Factors to propose, gentlest first.

    Reference: LeCun et al. 1998, Efficient BackProp, sec. 4.7.
    """

    name: ClassVar[str] = "lower_rate"
    title: ClassVar[str] = "a smaller learning rate"
    symptoms: ClassVar[tuple[str, ...]] = ("nan_or_inf", "exploding_gradient", "dead_relu", "loss_divergence")
    change: ClassVar[int] = base.RATE
    shows_at_once: ClassVar[bool] = False
    factors: tuple[float, ...] = (0.1, 0.01)

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        rate = (trace.facts.optimizer or {}).get("lr")
        if not isinstance(rate, (int, float)) or (trace.facts.inputs or {}).get("nonfinite_fraction"):
            return
        for factor in self.factors:
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
        optimizer, scheduler = rig.optimizer, rig.scheduler
        rates = [(group, key, group[key]) for group in optimizer.param_groups for key in ("lr", "initial_lr") if key in group]
        base_rates = list(getattr(scheduler, "base_lrs", []))
        for group, key, rate in rates:
            group[key] = rate * factor
        if base_rates:
            scheduler.base_lrs = [rate * factor for rate in base_rates]

        def undo() -> None:
            for group, key, rate in rates:
                group[key] = rate
            if base_rates:
                scheduler.base_lrs = base_rates

        return undo
