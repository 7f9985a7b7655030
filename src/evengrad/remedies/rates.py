"""Rates of groups and schedules, scaled together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from evengrad.errors import InputError
from evengrad.remedies.base import Undo
from evengrad.rig import Rig
from evengrad.types import Proposal

_RATES = ("lr", "initial_lr", "max_lr", "min_lr", "base_lrs", "max_lrs", "min_lrs", "eta_min")  # of groups and of schedules


def rate_proposal(remedy: str, cause: str, rate: float, factor: float) -> Proposal:
    """Proposes a rate times a factor."""
    return Proposal(
        remedy=remedy,
        options={"factor": factor},
        cause=cause,
        summary=f"{remedy} {rate:g} -> {rate * factor:g}",
        code=f"-lr={rate:g}\n+lr={rate * factor:g}",
        needs=("optimizer",),
    )


def scale_rates(rig: Rig, factor: float, remedy: str) -> Undo:
    """Multiplies every group's rate, and the rates that a schedule starts from, and returns the undo.

    Raises:
        InputError: if the rig has no optimizer.
    """
    if rig.optimizer is None:
        raise InputError(f"{remedy} needs an optimizer; give check or Experiment one")
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
