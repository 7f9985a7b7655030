"""Runs and samples -> each run's loss and accuracy; each run's best weights."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from evengrad.lab.engine.layers import RunsConv
from evengrad.lab.engine.losses import RunsLoss
from evengrad.lab.engine.plan import PART, Samples
from evengrad.lab.engine.runs import Runs

_IMAGES = 128  # convolved at once: of more, a CPU's memory is new at every call, which halves the speed


@torch.no_grad()
def evaluate(runs: Runs, samples: Samples, loss: RunsLoss, prefix: str = "") -> dict[str, Tensor]:
    """Returns `loss` and, where there are right answers, `accuracy` of each run (runs,), in evaluation mode.

    A run whose outputs are not finite has an accuracy of 0 and an infinite loss.
    """
    runs.module.eval()
    tally = Tally(loss)
    convolves = any(isinstance(module, RunsConv) for module in runs.module.modules())
    for x, y in samples.parts(runs.count, _IMAGES if convolves else PART):
        tally.add(runs.module(x), y)
    runs.module.train()
    return {prefix + name: value for name, value in tally.means().items()}


class Tally:
    """Running sums of losses and right answers."""

    def __init__(self, loss: RunsLoss) -> None:
        self._loss = loss
        self._start()

    def _start(self) -> None:
        self._losses: Tensor | float = 0.0
        self._right: Tensor | float = 0.0
        self._answers = self._graded = 0

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        each, right = self._loss.each(outputs, targets), self._loss.right(outputs, targets)
        self._losses = self._losses + each.sum(1)
        self._answers += each.shape[1]
        if right is not None:
            self._right = self._right + right.sum(1)
            self._graded += right.shape[1]

    def means(self) -> dict[str, Tensor]:
        """Returns the means since the last call."""
        loss = torch.as_tensor(self._losses / max(1, self._answers)).nan_to_num(nan=math.inf, posinf=math.inf)
        found = {"loss": loss}
        if self._graded:
            found["accuracy"] = torch.where(loss.isfinite(), self._right / self._graded, 0.0)
        self._start()
        return found


class Best:
    """Early stopping: keeps each run's weights at its smallest validation loss, until it has not improved for `patience` evaluations."""

    def __init__(self, runs: Runs, patience: int) -> None:
        self._runs, self._patience = runs, patience
        self._loss = torch.full((runs.count,), math.inf, device=runs.device)
        self._bad = torch.zeros(runs.count, dtype=torch.int64, device=runs.device)
        self._step = torch.zeros(runs.count, dtype=torch.int64, device=runs.device)
        self._weights, self._buffers = runs.flat.clone(), [b.clone() for b in runs.module.buffers()]
        self.over = False

    def see(self, loss: Tensor, step: int) -> bool:
        """Takes note of an evaluation; True once every run has stopped."""
        going = self._bad < self._patience
        better = going & (loss < self._loss)
        for block in self._runs.blocks:
            self._runs.part_of(self._weights, block)[:, better] = block.weights[:, better]
        for kept, buffer in zip(self._buffers, self._runs.module.buffers(), strict=True):
            kept[better] = buffer[better]
        self._loss = torch.where(better, loss, self._loss)
        self._step[better] = step
        self._bad = torch.where(better, 0, self._bad + going.long())
        self.over = bool((self._bad >= self._patience).all())
        return self.over

    def restore(self) -> npt.NDArray[np.int64]:
        """Gives every run its best weights back and returns the steps they are from (runs,)."""
        self._runs.flat.copy_(self._weights)
        for kept, buffer in zip(self._buffers, self._runs.module.buffers(), strict=True):
            buffer.copy_(kept)
        return self._step.cpu().numpy()
