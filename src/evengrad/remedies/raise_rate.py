"""raise_rate: a larger learning rate in every group, and in the schedule."""

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
class RaiseRate(Remedy):
    """Multiplies every group's rate, and the rates that a schedule starts from, by a factor over one.

    Attributes:
        factors: Factors to propose, gentlest first.

    Reference: Smith 2017, Cyclical learning rates for training neural networks.
    """

    name: ClassVar[str] = "raise_rate"
    title: ClassVar[str] = "a larger learning rate"
    symptoms: ClassVar[tuple[str, ...]] = ("slow_convergence", "loss_stuck", "plateau", "no_parameter_update")
    causes: ClassVar[tuple[str, ...]] = ("lr_too_low",)
    change: ClassVar[int] = base.RATE
    shows_at_once: ClassVar[bool] = False
    factors: tuple[float, ...] = (10.0, 100.0)

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        rate = (trace.facts.optimizer or {}).get("lr")
        if not isinstance(rate, (int, float)) or not rate or (trace.facts.inputs or {}).get("nonfinite_fraction"):
            return
        if finding.cause not in {None, "lr_too_low"}:
            return  # what is known to be slow for another reason gets no faster by it
        for factor in self.factors:
            yield rate_proposal(self.name, "lr_too_low", rate, factor)

    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        return scale_rates(rig, float(proposal.options["factor"]), self.name)
