"""model, optimizer, loss, batches -> the one mutable bundle that remedies change and trials run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from evengrad.trace.batch import Batch, Loss


@dataclass
class Rig:
    """Everything that a remedy may change; `apply` changes it in place and returns how to undo that, exact to the bit.

    Attributes:
        model: The network.
        optimizer: Its optimizer; None before training (`check` without one).
        loss_fn: `loss_fn(output, targets) -> scalar tensor`, or None.
        batches: Epoch number -> the batches of that epoch, in an order that depends on seed and epoch only.
        scheduler: Learning-rate schedule, stepped after each batch, or None.
        train_step: `train_step(model, batch, loss_fn, optimizer) -> loss` in place of one standard step, or None.
        epochs: Passes over the data.
        validation: Epoch number -> the batches of the validation data, or None.
        after_epoch: Called with the rig after each epoch, in this order; training ends with the epoch in which one returns True.
        seed: Seed that random remedies draw from.
        step: Number of optimizer steps taken.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer | None = None
    loss_fn: Loss | None = None
    batches: Callable[[int], Iterator[Batch]] = lambda epoch: iter(())
    scheduler: Any = None
    train_step: Callable[..., Any] | None = field(default=None, kw_only=True)
    epochs: int = field(default=1, kw_only=True)
    validation: Callable[[int], Iterator[Batch]] | None = field(default=None, kw_only=True)
    after_epoch: list[Callable[[Rig], bool]] = field(default_factory=list, kw_only=True)
    seed: int = 0
    step: int = 0

    @property
    def device(self) -> torch.device:
        """Device of the first parameter or buffer."""
        first = next(iter(self.model.parameters()), None)
        return torch.device("cpu") if first is None else first.device
