"""runs in training -> how large their gradients are at every step, the thresholds that this suggests, and what clipping makes of one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from evengrad.lab.engine.losses import RunsLoss
from evengrad.lab.engine.runs import Runs
from evengrad.lab.study import quantile

Array = npt.NDArray[Any]


class Watched(Runs):
    """Runs that note the size of their gradients at every step, before they are clipped."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        super().__init__(modules)
        self._norms: list[Tensor] = []
        self._largest: list[Tensor] = []

    def gradients(self, x: Tensor, y: Tensor, loss: RunsLoss) -> Tensor:
        """As of all runs."""
        outputs = super().gradients(x, y, loss)
        parts = [block.grads.flatten(2) for block in self.blocks]
        self._norms.append(torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g, dim=(0, 2)) for g in parts]), dim=0))
        self._largest.append(torch.stack([g.abs().amax((0, 2)) for g in parts]).amax(0))
        return outputs

    def sizes(self, kind: str) -> Array:
        """Returns the norm of the whole gradient or, for `value`, its largest magnitude, at each step (runs, steps)."""
        return torch.stack(self._largest if kind == "value" else self._norms, 1).cpu().numpy()


def suggested(sizes: Array, percentile: float) -> float:
    """Returns the percentile, in [0, 100], of the sizes of some steps' gradients; zero and what is not finite is left out.

    Infinite where nothing is left, so that nothing is clipped.

    Reference: Seetharaman et al. 2020, AutoClip, https://arxiv.org/abs/2007.14469 (which follows the percentile through the training).
    """
    known = sizes[np.isfinite(sizes) & (sizes > 0)]
    return quantile(known, percentile / 100) if known.size else math.inf


def clipped(gradient: Array, kind: str, limit: float) -> Array:
    """Returns a gradient clipped by `value` (each element to [-limit, limit]) or by `norm` (scaled down to this L2 norm at most)."""
    if kind == "value":
        return np.clip(gradient, -limit, limit)
    return gradient * min(1.0, limit / float(np.linalg.norm(gradient)))
