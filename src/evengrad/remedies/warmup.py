"""warmup: a rate that rises over the first steps, in front of the schedule that there is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from evengrad.remedies import base
from evengrad.remedies.base import Remedy, Undo
from evengrad.remedies.pacing import Course, optimizer_of, rates_kept
from evengrad.rig import Rig
from evengrad.types import Finding, Proposal, Trace


@dataclass(frozen=True, kw_only=True)
class Warmup(Remedy):
    """Lets every group's rate rise linearly over the first steps; the schedule, if there is one, starts behind them.

    Adaptive optimizers take steps of full size before they know what is usual, and gradients near the output of a fresh post-norm
    network are large: small first steps let both settle.

    Attributes:
        shares: Shares of the planned steps to propose, best first, in [0, 1]; a schedule that warms up late or briefly is left out.
        steps: Steps to propose where no plan is known.

    Reference: Goyal et al. 2017, sec. 2.2; Xiong et al. 2020, https://arxiv.org/abs/2002.04745.
    """

    name: ClassVar[str] = "warmup"
    title: ClassVar[str] = "a rate that rises over the first steps"
    causes: ClassVar[tuple[str, ...]] = ("no_warmup",)
    change: ClassVar[int] = base.RATE
    diagnostic: ClassVar[bool] = False
    shows_at_once: ClassVar[bool] = False
    shares: tuple[float, ...] = (0.3, 0.1)
    steps: int = 100

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        facts = trace.facts.optimizer or {}
        if not isinstance(facts.get("lr"), (int, float)):
            return
        planned = (trace.facts.loop or {}).get("steps")
        scheduled = "initial_lr" in facts or (trace.facts.loop or {}).get("scheduler")
        for steps in dict.fromkeys(max(2, round(share * planned)) for share in self.shares) if planned else (self.steps,):
            yield Proposal(
                remedy=self.name,
                options={"steps": steps},
                cause="no_warmup",
                summary=f"warmup over {steps:,} steps",
                code=_code(steps, bool(scheduled)),
                needs=("optimizer",),
            )

    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        optimizer, undo = optimizer_of(rig, self.name), rates_kept(rig, self.name)
        rates = [group["lr"] for group in optimizer.param_groups]
        rig.scheduler = Course(optimizer, "rising", int(proposal.options["steps"]), base_lrs=rates, then=rig.scheduler)
        return undo


def _code(steps: int, scheduled: bool) -> str:
    rise = f"torch.optim.lr_scheduler.LinearLR(optimizer, 1 / {steps}, total_iters={steps - 1})"
    if not scheduled:
        return f"+scheduler = {rise}\n optimizer.step()\n+scheduler.step()"
    return f"+rise = {rise}\n+scheduler = torch.optim.lr_scheduler.SequentialLR(optimizer, [rise, scheduler], [{steps - 1}])"
