"""gradients, and the norms that they had before -> gradients that are cut, in place."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evengrad.errors import InputError


@torch.no_grad()
def clip_adaptive_(parameters: Tensor | Iterable[Tensor], clipping: float = 0.01, *, eps: float = 1e-3) -> Tensor:
    """Scales down, in place, the gradient of each unit whose norm is more than a share of its weights' norm.

    What counts is how much a step of a given rate changes a unit, so one threshold fits layers of every size, and gradients of every
    scale of the loss are told from the weights that they belong to. A unit is a row of a matrix, a filter of a convolution, or a whole
    vector.

    Args:
        parameters: Tensors whose `.grad` is clipped; those without one are passed over. Leave out the last layer, as the paper does.
        clipping: Largest norm of a unit's gradient, in norms of its weights; above 0.
        eps: Least norm that weights are taken to have, so that a unit at zero can grow.

    Returns:
        The share of the units that were clipped, a scalar in [0, 1] on the parameters' device (0 where there is no gradient).

    Raises:
        InputError: if clipping or eps is not above 0.

    Example:
        >>> loss.backward()
        >>> eg.clip_adaptive_(model.parameters(), 0.01)
        >>> optimizer.step()

    Reference: Brock, De, Smith & Simonyan 2021, High-performance large-scale image recognition without normalization,
    https://arxiv.org/abs/2102.06171, eq. 3.
    """
    if not clipping > 0 or not eps > 0:
        raise InputError(f"clipping and eps must be above 0; got clipping={clipping!r}, eps={eps!r}. The paper's are 0.01 and 1e-3")
    found: list[Tensor] = []
    for p in [parameters] if isinstance(parameters, Tensor) else parameters:
        if p.grad is None:
            continue
        limit = unit_norms(p.detach()).clamp_min(eps) * clipping
        size = unit_norms(p.grad)
        over = size > limit
        p.grad.mul_(torch.where(over, limit / size.clamp_min(torch.finfo(size.dtype).tiny), torch.ones_like(size)))
        found.append(over.reshape(-1))
    return torch.cat([x.float().to(found[0].device) for x in found]).mean() if found else torch.zeros(())


def unit_norms(tensor: Tensor) -> Tensor:
    """Returns the L2 norm of each unit, in the shape that divides the tensor: rows and filters one by one, a vector as a whole."""
    axes = tuple(range(1, tensor.dim())) if tensor.dim() > 1 else tuple(range(tensor.dim()))
    norms: Tensor = torch.linalg.vector_norm(tensor, dim=axes, keepdim=True)
    return norms


def held_by(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Returns the optimizer's parameters that have a gradient."""
    return [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]


class LayerClip:
    """Optimizer step-pre-hook: each tensor's gradient is scaled down to a norm of its own."""

    def __init__(self, max_norm: float) -> None:
        self.max_norm = max_norm

    def __call__(self, optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        for p in held_by(optimizer):
            torch.nn.utils.clip_grad_norm_([p], self.max_norm)


class UnitClip:
    """Optimizer step-pre-hook: `clip_adaptive_` on all but the last layer, if one is named."""

    def __init__(self, clipping: float, spared: frozenset[int]) -> None:
        self.clipping, self.spared = clipping, spared

    def __call__(self, optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        clip_adaptive_([p for p in held_by(optimizer) if id(p) not in self.spared], self.clipping)


class PercentileClip:
    """Optimizer step-pre-hook: the global norm is brought down to a percentile of all norms seen so far, this one among them.

    Reference: Seetharaman, Wichern, Pardo & Le Roux 2020, AutoClip, https://arxiv.org/abs/2007.14469.
    """

    def __init__(self, percentile: float) -> None:
        self.percentile, self.norms = percentile, list[float]()

    def __call__(self, optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        held = held_by(optimizer)
        norm = float(torch.nn.utils.get_total_norm(p.grad for p in held if p.grad is not None))
        if math.isfinite(norm):
            self.norms.append(norm)
        if self.norms:
            scale(held, norm, float(np.percentile(self.norms, self.percentile)))


class DeviationClip:
    """Optimizer step-pre-hook: a global norm that lies too many standard deviations above its running mean is brought down.

    A norm at z deviations comes down to mean + limit²/z deviations, the lower the wilder it is; what was clipped is what the running
    mean and variance are told. Nothing is clipped while these are learnt.

    Reference: Kumar, Owen, Chowdhury & Güra 2025, ZClip, https://arxiv.org/abs/2504.02507, sec. 3.
    """

    def __init__(self, limit: float, steps: int, keep: float = 0.97) -> None:
        self.limit, self.steps, self.keep = limit, steps, keep
        self.first: list[float] = []
        self.mean = self.variance = 0.0

    def __call__(self, optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        held = held_by(optimizer)
        norm = float(torch.nn.utils.get_total_norm(p.grad for p in held if p.grad is not None))
        if len(self.first) < self.steps:
            self._learn(norm)
            return
        z = (norm - self.mean) / max(math.sqrt(self.variance), 1e-6 * self.mean, 1e-30)
        if z > self.limit:
            norm = scale(held, norm, self.mean + self.limit**2 / z * math.sqrt(self.variance))
        if math.isfinite(norm):
            self.mean = self.keep * self.mean + (1 - self.keep) * norm
            self.variance = self.keep * self.variance + (1 - self.keep) * (norm - self.mean) ** 2

    def _learn(self, norm: float) -> None:
        if math.isfinite(norm):
            self.first.append(norm)
            self.mean, self.variance = float(np.mean(self.first)), float(np.var(self.first))


@torch.no_grad()
def scale(parameters: Iterable[Tensor], norm: float, limit: float) -> float:
    """Scales gradients of this global norm down to the limit, if they are above it, and returns the norm that they have then.

    A norm that is not finite cannot be scaled: such a step is taken with a gradient of zero.
    """
    if norm <= limit:
        return norm
    for p in parameters:
        if p.grad is not None:
            p.grad.mul_(limit / norm) if math.isfinite(norm) else p.grad.zero_()
    return limit if math.isfinite(norm) else norm
