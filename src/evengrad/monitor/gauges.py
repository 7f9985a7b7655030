"""Parameters at a step -> columns: what the optimizer consumes, the weights, and how far the step moves them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evengrad.trace.recorder import stored
from evengrad.trace.stats import tensor_stats
from evengrad.types import Floats, Series

_SAMPLE = 4096  # entries of a tensor that means and changes are taken over; tensors up to this size are looked at in full
_GLANCE = 512
_RUN = 64
_BINS = 64
_SAFE = (1e-15, 1e15)  # norms between these have squares that single precision holds
_GRAD = ("grad_norm", "grad_mean", "grad_abs_mean", "grad_abs_max")
_WEIGHT = ("weight_norm", "weight_abs_mean")
_UPDATE = ("update_norm", "update_abs_max")


@dataclass(frozen=True)
class Held:
    """Sampled entries of the weights as they were before a step."""

    rows: tuple[int, ...]
    values: tuple[Tensor, ...]


class Gauge:
    """Measures the weights of the rows of a trace.

    Args:
        weights: The weight of each row (L).
    """

    def __init__(self, weights: Sequence[Tensor]) -> None:
        self._weights = tuple(weights)

    @torch.no_grad()
    def before(self, rows: Sequence[int], scale: Tensor | float = 1.0) -> tuple[dict[str, Floats], Held]:
        """Measures gradients and weights of these rows, and keeps what `after` needs; gradients are divided by `scale`."""
        weights = [self._weights[row] for row in rows]
        moved = tuple(row for row, w in zip(rows, weights, strict=True) if w.grad is not None)
        values = _measured([dense(self._weights[row].grad) for row in moved])
        values[:, :4] /= float(scale)
        columns = self._columns(_GRAD, moved, values)
        samples = [_sampled(dense(w), _SAMPLE).clone() for w in weights]
        norms = [torch.linalg.vector_norm(s) * math.sqrt(w.numel() / max(1, s.numel())) for w, s in zip(weights, samples, strict=True)]
        host = torch.stack([*norms, *(s.abs().mean() for s in samples)]).float().cpu().numpy() if weights else np.zeros(0, np.float32)
        columns |= self._columns(_WEIGHT, rows, host.reshape(2, -1).T)
        return columns, Held(tuple(rows), tuple(samples))

    @torch.no_grad()
    def after(self, held: Held) -> dict[str, Floats]:
        """Measures how far the step moved what was held: norms are scaled from the sampled entries to the whole tensor."""
        changes = [_sampled(dense(self._weights[row]), _SAMPLE) - old for row, old in zip(held.rows, held.values, strict=True)]
        if not changes:
            return {}
        values = torch.stack([torch.stack((torch.linalg.vector_norm(c), c.abs().amax())) for c in changes]).cpu().numpy()
        share = [math.sqrt(self._weights[row].numel() / max(1, c.numel())) for row, c in zip(held.rows, changes, strict=True)]
        values[:, 0] *= share
        return self._columns(_UPDATE, held.rows, values)

    def _columns(self, names: Sequence[str], rows: Sequence[int], values: Floats | Series) -> dict[str, Floats]:
        """Spreads values (rows, names) over columns (L,) that are NaN elsewhere."""
        found = {name: np.full(len(self._weights), np.nan, np.float32) for name in names}
        for k, name in enumerate(names):
            found[name][list(rows)] = [stored(float(v), name) for v in values[:, k]]
        return found


@torch.no_grad()
def total_norm(parameters: Sequence[Tensor]) -> Tensor:
    """Returns the L2 norm of all gradients together, on their device; not finite if an element is not (on a GPU also beyond 1e19)."""
    gradients = [dense(p.grad) for p in parameters if p.grad is not None]
    if not gradients:
        return torch.zeros(())
    norms = torch._foreach_norm(gradients)
    total: Tensor = torch.linalg.vector_norm(torch.stack([n.to(norms[0].device, torch.float32) for n in norms]))
    if total.is_cuda or 0 < float(total) < math.inf:
        return total
    wide = torch.stack([torch.linalg.vector_norm(g, dtype=torch.float64) for g in gradients])  # squares that single precision does not hold
    exact: Tensor = torch.linalg.vector_norm(wide)
    return exact


@torch.no_grad()
def seems_finite(optimizer: torch.optim.Optimizer) -> bool:
    """Looks at up to 512 entries of the first gradient: what is not finite anywhere in a backward pass reaches it, unless it is masked."""
    first = next((g for group in optimizer.param_groups for p in group["params"] if (g := p.grad) is not None), None)
    return first is None or math.isfinite(float(_sampled(dense(first), _GLANCE).sum()))


@torch.no_grad()
def histogram(tensor: Tensor) -> tuple[Series, Series] | None:
    """Returns counts (64,) and edges (65,) of the finite values; None where there is none."""
    values = dense(tensor).reshape(-1)
    values = values[values.isfinite()]
    if not values.numel():
        return None
    low, high = (float(x) for x in torch.aminmax(values))
    if low == high:
        low, high = low - 0.5 * abs(low or 1.0), high + 0.5 * abs(high or 1.0)
    counts = torch.histc(values, _BINS, low, high).cpu().double().numpy()
    return counts, np.linspace(low, high, _BINS + 1)


def with_gradient(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Returns the optimizer's parameters that have a gradient."""
    return [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]


def _measured(tensors: Sequence[Tensor]) -> Series:
    """Returns norm, mean, mean magnitude and largest magnitude of each (n, 4): plain passes, and exact ones where squares would not fit."""
    if not tensors:
        return np.zeros((0, 4))
    if tensors[0].is_cuda:
        return _exact(tensors)
    rows = []
    for t in tensors:
        low, high = torch.aminmax(t)
        some = _sampled(t, _SAMPLE)
        rows.append(torch.stack((torch.linalg.vector_norm(t), some.mean(), some.abs().mean(), torch.maximum(-low, high))))
    values = torch.stack(rows).double().numpy()
    unsafe = [i for i, norm in enumerate(values[:, 0]) if not _SAFE[0] < norm < _SAFE[1]]
    if unsafe:
        values[unsafe] = _exact([tensors[i] for i in unsafe])
    return values


def _exact(tensors: Sequence[Tensor]) -> Series:
    found: Series = torch.stack([s.to(tensors[0].device) for s in tensor_stats(tensors)]).double().cpu().numpy()
    return found


def dense(tensor: Tensor | None) -> Tensor:
    """Returns a gradient as a plain tensor of floats or doubles: the values of a sparse one, this rank's shard of a sharded one."""
    assert tensor is not None
    tensor = tensor.detach()
    if hasattr(tensor, "to_local"):
        tensor = tensor.to_local()
    if tensor.is_sparse:
        tensor = tensor.coalesce().values()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    return tensor if tensor.dtype in {torch.float32, torch.float64} else tensor.float()


def _sampled(tensor: Tensor, most: int) -> Tensor:
    """Up to so many entries: runs of 64 at a fixed spacing, since single ones would each be a line of memory."""
    flat = tensor.detach().reshape(-1)
    if flat.numel() <= most:
        return flat
    runs = most // _RUN
    return flat[: flat.numel() // runs * runs].view(runs, -1)[:, :_RUN]
