"""A schedule, or none -> one that rises first, falls along a cosine, or runs at another pace; with the undo."""

from __future__ import annotations

import math
from typing import Any

import torch

from evengrad.errors import InputError
from evengrad.remedies.base import Undo
from evengrad.rig import Rig


class Course:
    """Takes the groups' base rates times a factor of the steps taken, and hands over to the schedule that was there before.

    It has what a Rig needs of torch's schedules; no LRScheduler, because those write into the optimizer for good.

    Args:
        optimizer: Its optimizer.
        shape: `rising` (from 1/steps to 1) or `falling` (along half a cosine from 1 to 0).
        steps: Number of steps that it takes.
        base_lrs: Rate of each group where the factor is 1.
        then: Schedule to go on with, or None.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, shape: str, steps: int, *, base_lrs: list[Any], then: Any = None) -> None:
        self.optimizer, self.shape, self.steps, self.base_lrs, self.then = optimizer, shape, steps, base_lrs, then
        self._schedulers = () if then is None else (then,)  # as torch's schedules call those that they are made of
        self.count = 0
        self._set()

    def step(self) -> None:
        """Sets the rates of the next step."""
        self.count += 1
        if self.count < self.steps or self.then is None:
            self._set()
        else:
            self.then.step()

    def _set(self) -> None:
        share = min(1.0, self.count / self.steps)
        factor = min(1.0, share + 1 / self.steps) if self.shape == "rising" else (1 + math.cos(math.pi * share)) / 2
        for group, rate in zip(self.optimizer.param_groups, self.base_lrs, strict=False):
            group["lr"] = rate * factor

    def state_dict(self) -> dict[str, Any]:
        """Returns what `load_state_dict` takes."""
        return {"count": self.count, "base_lrs": list(self.base_lrs), "then": None if self.then is None else self.then.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a saved state; the rates themselves are in the optimizer's."""
        self.count, self.base_lrs = state["count"], list(state["base_lrs"])
        if self.then is not None:
            self.then.load_state_dict(state["then"])


class Paced:
    """Steps a schedule `pace` times as often as it is stepped: a plan for 100 steps fits 400 at a pace of 1/4."""

    def __init__(self, schedule: Any, pace: float) -> None:
        self._schedulers, self.pace, self.count = (schedule,), pace, 0

    def step(self) -> None:
        """Takes as many steps of the schedule as are due, perhaps none."""
        done = int(self.count * self.pace + 1e-9)  # what rounding takes from 1/3 * 3
        self.count += 1
        for _ in range(int(self.count * self.pace + 1e-9) - done):
            self._schedulers[0].step()

    def state_dict(self) -> dict[str, Any]:
        """Returns what `load_state_dict` takes."""
        return {"count": self.count, "schedule": self._schedulers[0].state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a saved state."""
        self.count = state["count"]
        self._schedulers[0].load_state_dict(state["schedule"])


def paced(rig: Rig, pace: float) -> Undo:
    """Lets the schedule, if there is one, run at another pace."""
    own = rig.scheduler
    if own is not None:
        rig.scheduler = Paced(own, pace)

    def undo() -> None:
        rig.scheduler = own

    return undo


def rates_kept(rig: Rig, remedy: str) -> Undo:
    """Returns what puts the schedule and each group's rate back as they are now."""
    optimizer, schedule = optimizer_of(rig, remedy), rig.scheduler
    held = [(group, group["lr"]) for group in optimizer.param_groups]

    def undo() -> None:
        rig.scheduler = schedule
        for group, rate in held:
            group["lr"] = rate

    return undo


def optimizer_of(rig: Rig, remedy: str) -> torch.optim.Optimizer:
    """Returns the rig's optimizer.

    Raises:
        InputError: if it has none.
    """
    if rig.optimizer is None:
        raise InputError(f"{remedy} needs an optimizer; give check or Experiment one")
    return rig.optimizer
