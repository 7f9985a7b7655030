"""The gradient norm of the step about to be taken -> whether and how to step in."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from evengrad.errors import EvengradError
from evengrad.types import Event

_HELD = 500  # norms that the usual is learned from
_FEW = 20  # norms under which nothing is known of the usual
_SPREAD = 0.25  # smallest robust standard deviation of log10 norms: an even training is not on edge


@dataclass
class Norms:
    """The gradient norms of the steps that were taken: what is usual in this run, on a logarithmic scale."""

    values: deque[float] = field(default_factory=lambda: deque(maxlen=_HELD))  # log10

    def add(self, norm: float) -> None:
        """Adds the norm of a step that was taken."""
        if math.isfinite(norm) and norm > 0:
            self.values.append(math.log10(norm))

    def limit(self, deviations: float) -> float:
        """Returns the norm so many robust standard deviations above the median; infinity until 20 steps are known."""
        if len(self.values) < _FEW:
            return math.inf
        values = sorted(self.values)
        median = values[len(values) // 2]
        away = sorted(abs(v - median) for v in values)[len(values) // 2]
        return float(10 ** (median + deviations * max(_SPREAD, 1.4826 * away)))


@dataclass
class Situation:
    """What a guard sees and may change, just before an optimizer steps.

    Attributes:
        model: The network.
        optimizer: The optimizer about to step.
        step: Number of the step.
        norm: L2 norm of all its gradients, before any clipping by the user.
        norms: Those of the steps before.
        scale: What the gradients are multiplied by until the optimizer divides them (a fused one under a GradScaler), else 1.
        drop: Call it to leave this step out: the optimizer then sees no gradient, and changes neither weights nor state.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    step: int
    norm: float
    norms: Norms
    scale: float
    drop: Callable[[], None]

    @property
    def gradients(self) -> Sequence[Tensor]:
        """The gradients that the optimizer is about to use."""
        return [p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]


class Guard(ABC):
    """A policy for bad steps, and what it remembers of one run; a fresh copy is made for each watch.

    Attributes:
        name: What `watch(guard=...)` calls it.
    """

    name: ClassVar[str]

    @abstractmethod
    def before(self, at: Situation) -> Event | None:
        """Steps in where it must, and says what it did."""

    def after(self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:  # noqa: B027  most have nothing to do
        """Sees the optimizer after a step."""


class TrainingStoppedError(EvengradError):
    """Raised out of `optimizer.step()` by a guard that stops the training; a `with eg.watch(...)` block ends quietly with it."""
