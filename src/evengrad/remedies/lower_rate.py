"""lower_rate: a smaller learning rate in every group, and in the schedule."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from evengrad.remedies import base
from evengrad.remedies.base import Remedy, Undo
from evengrad.remedies.rates import rate_proposal, scale_rates
from evengrad.rig import Rig
from evengrad.types import Finding, Proposal, Trace


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
        *("nan_or_inf", "exploding_gradient", "dead_relu", "loss_divergence", "oscillating_loss", "loss_spike", "loss_stuck", "plateau"),
        "slow_convergence",
        *("zero_gradient", "vanishing_gradient", "signal_collapse", "saturated_activation"),  # where training brought them about
    )
    causes: ClassVar[tuple[str, ...]] = ("lr_too_high",)
    change: ClassVar[int] = base.RATE
    shows_at_once: ClassVar[bool] = False
    factors: tuple[float, ...] = (0.1, 0.01)
    usual: tuple[float, ...] = (0.1, 0.01)

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        rate = (trace.facts.optimizer or {}).get("lr")
        if not isinstance(rate, (int, float)) or (trace.facts.inputs or {}).get("nonfinite_fraction"):
            return
        if finding.symptom in self.symptoms[-4:] and finding.steps[0] == trace.steps[0]:
            return  # it was there before the first step: no rate made it
        if finding.symptom == "slow_convergence" and finding.cause not in {None, "lr_too_high"}:
            return
        for factor in self.factors if rate <= 100 * self.usual[0] else [usual / rate for usual in self.usual]:
            yield rate_proposal(self.name, "lr_too_high", rate, factor)

    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        return scale_rates(rig, float(proposal.options["factor"]), self.name)
