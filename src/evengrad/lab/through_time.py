"""recurrent runs, sequences -> how much of each sequence's gradient reaches each of its steps, and where floats end."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from evengrad.lab.engine.losses import RunsLoss
from evengrad.lab.engine.runs import Runs

Array = npt.NDArray[Any]


def through_time(runs: Runs, x: Tensor, y: Tensor, loss: RunsLoss, bins: int = 32) -> tuple[Array, Array]:
    """Returns, for equal stretches of time, the gradient of a sequence's loss at the inputs there.

    Args:
        runs: Networks over (runs, batch, time, features).
        x: Sequences that all runs see (batch, time, features).
        y: Their targets (batch, ...).
        loss: Whose gradient; each sequence's own, not that of the mean.
        bins: Stretches of time, from the first step to the last; as many as there are steps at most.

    Returns:
        Norm at a step, root mean square over sequences and the steps of a stretch, float64 (runs, bins), and the share of sequences and
        steps at which every element is exactly zero: in float32, what is below 1e-45 is.
    """
    inputs = x.expand(runs.count, *x.shape).clone().requires_grad_()
    targets = y.expand(runs.count, *y.shape)
    outputs = runs.module(inputs)
    (slope,) = torch.autograd.grad(outputs, inputs, loss.slope(outputs.detach(), targets) * len(x))
    size = torch.linalg.vector_norm(slope.double(), dim=-1).cpu().numpy()  # (runs, batch, time)
    parts = np.array_split(np.arange(size.shape[2]), min(bins, size.shape[2]))
    square = np.stack([np.square(size[:, :, part]).mean((1, 2)) for part in parts], 1)
    return np.sqrt(square), np.stack([(size[:, :, part] == 0).mean((1, 2)) for part in parts], 1)
