"""guard="rollback": goes back to the last good state, with a lower rate."""

from __future__ import annotations

import copy
import math
from collections import deque
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from evengrad.monitor.guards.base import Guard, Situation
from evengrad.types import Event


@dataclass
class Rollback(Guard):
    """Keeps copies of weights, buffers and optimizer state in memory, and goes back to one when a step is bad.

    A step is bad if its gradients are not finite, or far beyond what is usual in this run. Each time, the rate is lowered for the rest of
    the run, whatever a schedule says, and the copy before is taken if the newest fails again.

    Attributes:
        deviations: Robust standard deviations of log10 norms above the median from which a finite step is bad.
        every: Good steps between copies; two are held.
        factor: What the rate is multiplied by at each return, in (0, 1).
        retries: Returns before the training is stopped instead.
    """

    name = "rollback"
    deviations: float = 8.0
    every: int = 50
    factor: float = 0.5
    retries: int = 5

    def __post_init__(self) -> None:
        self.rate = 1.0  # what the rate is multiplied by now
        self._used = 0
        self._states: dict[int, deque[_State]] = {}
        self._planned: dict[int, list[float]] = {}

    def before(self, at: Situation) -> Event | None:
        states = self._states.setdefault(id(at.optimizer), deque(maxlen=2))
        if at.norm > at.norms.limit(self.deviations) or not math.isfinite(at.norm):
            at.drop()
            return self._back(at, states)
        if not states or at.step - states[-1].step >= self.every:
            states.append(_State(at.step, at.model, at.optimizer))
        self._slow(at.optimizer)
        return None

    def after(self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Gives the optimizer the rate back that its schedule counts on."""
        for group, rate in zip(optimizer.param_groups, self._planned.pop(id(optimizer), ()), strict=False):
            group["lr"] = rate

    def _slow(self, optimizer: torch.optim.Optimizer) -> None:
        if self.rate == 1.0:
            return
        self._planned[id(optimizer)] = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * self.rate

    def _back(self, at: Situation, states: deque[_State]) -> Event:
        why = f"gradient norm {at.norm:.3g}" if math.isfinite(at.norm) else "gradients that are not finite"
        if not states or self._used >= self.retries:
            tried = f"after {self._used} returns" if states else "with no good state to go back to"
            if states:
                states[0].restore()
            return Event(step=at.step, kind="stop", message=f"training stopped at step {at.step:,}, {tried}: {why}")
        state = states.pop() if len(states) > 1 else states[0]
        state.restore()
        self._used += 1
        self.rate *= self.factor
        return Event(
            step=at.step,
            kind="rollback",
            message=f"{why} at step {at.step:,}: back to the weights of step {state.step:,}, rate now x{self.rate:g} of what is scheduled",
        )


class _State:
    """Weights, buffers and an optimizer's state at one step, by value; restored in place."""

    def __init__(self, step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.step = step
        self._tensors = {t: t.detach().clone() for t in (*model.parameters(), *model.buffers())}
        self._optimizer = optimizer
        self._memory = {p: {k: _copied(v) for k, v in held.items()} for p, held in optimizer.state.items()}

    @torch.no_grad()
    def restore(self) -> None:
        for tensor, value in self._tensors.items():
            tensor.copy_(value)
        for parameter in list(self._optimizer.state):
            if parameter not in self._memory:
                del self._optimizer.state[parameter]  # it came after this state
        for parameter, held in self._memory.items():
            self._optimizer.state[parameter] = {k: _copied(v) for k, v in held.items()}


def _copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else copy.deepcopy(value)
