"""The gradient norm of the step that is about to be taken -> the first bad operation, and what the guard does about a bad step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from evengrad.monitor.gauges import with_gradient
from evengrad.monitor.guards import Guard, Situation
from evengrad.monitor.guards.base import Norms, TrainingStoppedError
from evengrad.monitor.log import Log
from evengrad.monitor.replay import Call
from evengrad.types import Event

_LATE = "seen when it had been used; guard='skip' finds its operation"


class Judge:
    """Judges steps by their gradient norms, and lets the guard act.

    Args:
        core: The network.
        optimizers: Its optimizers.
        guard: What steps in, or None.
        log: Told of events.
    """

    def __init__(self, core: nn.Module, optimizers: Sequence[torch.optim.Optimizer], guard: Guard | None, log: Log) -> None:
        self.guard = guard
        self._core, self._log = core, log
        self._norms = {id(o): Norms() for o in optimizers}
        self._found_bad = False
        self._dropped: list[tuple[Tensor, Tensor]] = []

    def before(self, optimizer: torch.optim.Optimizer, step: int, norm: float, *, scale: float, call: Call | None) -> bool:
        """Judges a step; returns True if it is to be taken.

        Raises:
            TrainingStoppedError: if the guard says so.
        """
        self._log.point("grad_norm", step, norm)
        if not math.isfinite(norm) and not self._found_bad:
            self._bad(step, call)
        norms = self._norms[id(optimizer)]
        event = None
        if self.guard is not None:
            at = Situation(self._core, optimizer, step, norm, norms, scale, lambda: self._drop(optimizer))
            event = self.guard.before(at)
        if event is not None:
            self._log.event(event)
            self._log.point(event.kind, step, 1.0)
        if not self._dropped:
            norms.add(norm)
        if event is not None and event.kind == "stop":
            self.restore()
            raise TrainingStoppedError(event.message)
        return not self._dropped

    def late(self, step: int, norm: float) -> None:
        """Judges the norm of a step that has been taken."""
        self._log.point("grad_norm", step, norm)
        if not math.isfinite(norm) and not self._found_bad:
            self._found_bad = True
            message = f"first gradient that is not finite at step {step:,}, {_LATE}"
            self._log.event(Event(step=step, kind="bad_operation", message=message))

    def after(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Sees the optimizer after a step."""
        self.restore()
        if self.guard is not None:
            self.guard.after(self._core, optimizer, step)

    def restore(self) -> None:
        """Gives gradients back that the optimizer was not to see."""
        for parameter, gradient in self._dropped:
            parameter.grad = gradient
        self._dropped = []

    def _drop(self, optimizer: torch.optim.Optimizer) -> None:
        for parameter, gradient in with_gradient(optimizer):
            self._dropped.append((parameter, gradient))
            parameter.grad = None

    def _bad(self, step: int, call: Call | None) -> None:
        self._found_bad = True
        found = call.first_bad_operation(self._core) if call is not None else None
        message = found.message if found is not None else "its operation was not found when the step was run again"
        message = f"first gradient that is not finite at step {step:,}: {message}"
        self._log.event(Event(step=step, kind="bad_operation", message=message, where=found.where if found is not None else ""))
