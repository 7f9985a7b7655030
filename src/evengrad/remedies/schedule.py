"""constant_rate, cosine_rate: another schedule, or none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from evengrad.remedies import base
from evengrad.remedies.base import Remedy, Undo
from evengrad.remedies.pacing import Course, optimizer_of, rates_kept
from evengrad.rig import Rig
from evengrad.types import Finding, Proposal, Trace


@dataclass(frozen=True, kw_only=True)
class ConstantRate(Remedy):
    """Puts the schedule aside: every group keeps the rate that it was given.

    Reference: Goyal et al. 2017 (schedules in epochs and in steps are easily taken for each other).
    """

    name: ClassVar[str] = "constant_rate"
    title: ClassVar[str] = "a constant rate in place of the schedule"
    causes: ClassVar[tuple[str, ...]] = ("scheduler_bug",)
    change: ClassVar[int] = base.RATE
    diagnostic: ClassVar[bool] = False
    shows_at_once: ClassVar[bool] = False

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        if _scheduled(trace):
            yield Proposal(
                remedy=self.name,
                cause="scheduler_bug",
                summary="constant_rate in place of the schedule",
                code="-scheduler.step()",
                needs=("optimizer",),
            )

    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        undo = rates_kept(rig, self.name)
        rig.scheduler = None
        for group in optimizer_of(rig, self.name).param_groups:
            group["lr"] = _given(group)
        return undo


@dataclass(frozen=True, kw_only=True)
class CosineRate(Remedy):
    """Lets every group's rate fall from what it was given to zero along half a cosine, once over the planned steps.

    Where the last steps swing about the minimum, smaller ones settle in it.

    Reference: Loshchilov & Hutter 2017, SGDR, https://arxiv.org/abs/1608.03983.
    """

    name: ClassVar[str] = "cosine_rate"
    title: ClassVar[str] = "a rate that falls along a cosine"
    symptoms: ClassVar[tuple[str, ...]] = ("oscillating_loss",)
    causes: ClassVar[tuple[str, ...]] = ("scheduler_bug",)
    change: ClassVar[int] = base.RATE
    diagnostic: ClassVar[bool] = False
    shows_at_once: ClassVar[bool] = False

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        planned = (trace.facts.loop or {}).get("steps")
        if not planned or not trace.facts.optimizer:
            return
        if finding.cause != "scheduler_bug" and (_scheduled(trace) or finding.cause not in {None, "lr_too_high", "batch_too_small"}):
            return
        yield Proposal(
            remedy=self.name,
            options={"steps": planned},
            cause="scheduler_bug" if _scheduled(trace) else "lr_too_high",
            summary=f"cosine_rate over {planned:,} steps",
            code=f"+scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, {planned})\n optimizer.step()\n+scheduler.step()",
            needs=("optimizer",),
        )

    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        optimizer, undo = optimizer_of(rig, self.name), rates_kept(rig, self.name)
        rates = [_given(group) for group in optimizer.param_groups]
        rig.scheduler = Course(optimizer, "falling", int(proposal.options["steps"]), base_lrs=rates)
        return undo


def _scheduled(trace: Trace) -> bool:
    return bool((trace.facts.loop or {}).get("scheduler")) or "initial_lr" in (trace.facts.optimizer or {})


def _given(group: dict[str, Any]) -> Any:
    """The rate of a group before a schedule changed it."""
    return group.get("initial_lr", group["lr"])
