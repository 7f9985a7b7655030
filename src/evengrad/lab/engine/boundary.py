"""Runs on two-dimensional data -> what each decides over the plane, as training goes on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from evengrad.errors import InputError
from evengrad.lab.engine.runs import Runs

GRID = 64  # points along each axis


class Boundaries:
    """Keeps the outputs of some runs on a grid over the plane, after the epochs that each asked for."""

    def __init__(self, wanted: Sequence[tuple[int, ...]], x: Tensor) -> None:
        if x.dim() != 2 or x.shape[1] != 2:
            raise InputError(f"a decision boundary is drawn for samples of two features; got samples of shape {tuple(x.shape[1:])}")
        self._wanted = wanted
        self._epochs = {epoch for epochs in wanted for epoch in epochs}
        self.low, self.high = plane(x)
        axes = [torch.linspace(float(a), float(b), GRID, device=x.device) for a, b in zip(self.low, self.high, strict=True)]
        down, across = torch.meshgrid(axes[1], axes[0], indexing="ij")
        self._points = torch.stack((across, down), -1).reshape(1, -1, 2)
        self._kept: dict[int, npt.NDArray[np.float32]] = {}

    @staticmethod
    def of(wanted: Sequence[tuple[int, ...]], x: Tensor) -> Boundaries | None:
        """Returns None where no run asked for one."""
        return Boundaries(wanted, x) if any(wanted) else None

    @torch.no_grad()
    def __call__(self, runs: Runs, epoch: int, step: int) -> None:
        """Takes the outputs, if this is one of the epochs."""
        if epoch not in self._epochs:
            return
        runs.module.eval()
        logits = runs.module(self._points.expand(runs.count, -1, -1))
        runs.module.train()
        share = logits.softmax(-1)[..., 1] if logits.shape[-1] > 1 else logits[..., 0].sigmoid()
        self._kept[epoch] = share.reshape(runs.count, GRID, GRID).cpu().numpy()

    def series(self, k: int) -> dict[str, npt.NDArray[Any]]:
        """Returns `boundary` (epochs, GRID, GRID), `boundary_epochs` (epochs,) and `boundary_box` (left, right, bottom, top).

        The boundary is the probability of class 1, rows along the second feature from its lowest, columns along the first.
        """
        epochs = [e for e in self._wanted[k] if e in self._kept]
        if not epochs:
            return {}
        box = np.array([self.low[0], self.high[0], self.low[1], self.high[1]])
        return {"boundary": np.stack([self._kept[e][k] for e in epochs]), "boundary_epochs": np.array(epochs), "boundary_box": box}


def plane(x: Tensor) -> tuple[list[float], list[float]]:
    """Returns the lower and upper corner of what the samples (n, 2) span, a tenth wider on each side."""
    low, high = x.amin(0), x.amax(0)
    margin = 0.1 * (high - low)
    return (low - margin).tolist(), (high + margin).tolist()
