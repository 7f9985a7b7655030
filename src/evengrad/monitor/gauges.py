"""Parameters at a step -> columns: what the optimizer consumes, the weights, and how far the step moves them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from evengrad.trace.recorder import stored
from evengrad.trace.stats import tensor_stats
from evengrad.types import Series

Columns = dict[str, list[float]]
_Rows = TypeVar("_Rows", Tensor, list[Tensor])

_FIRST = 8  # parameters that a small one is looked for among
_SAMPLE = 4096  # entries of a tensor that all but gradient norms are taken over; tensors up to this size are looked at in full
_RUN = 16  # entries that lie side by side: a line of memory
_SPACING = 257  # runs lie this part of a tensor apart: a prime, for else all could fall on the same few inputs of a layer
_BINS = 64
_SAFE = (1e-15, 1e15)  # norms between these have squares that single precision holds
_USUAL = frozenset({Tensor, nn.Parameter})
_PLAIN = frozenset({torch.float32, torch.float64})
_GRAD = ("grad_norm", "grad_mean", "grad_abs_mean", "grad_abs_max")
_WEIGHT = ("weight_norm", "weight_abs_mean")
_UPDATE = ("update_norm", "update_abs_max")


class Reading(NamedTuple):
    """Norms of gradients at one moment, and what tells later whether they still hold.

    Attributes:
        total: L2 norm of all of them together: a number, or on a GPU a tensor that nothing has waited for.
        gradients: The gradients.
        versions: How often each had been written to.
        norms: The norm of each; empty on a GPU.
        ends: Sampled entries of those of the first and the last row (2, S), or None.
    """

    total: float | Tensor
    gradients: Sequence[Tensor]
    versions: Sequence[int]
    norms: Sequence[float]
    ends: Tensor | None = None

    def holds(self, gradients: Sequence[Tensor], sample: Tensor) -> bool:
        """True if these are the gradients that were read, and neither their versions nor their samples (n, S) tell of a change.

        What is written through `.data` has no version; it would have to spare every sampled entry of the first and the last row.
        """
        if self.ends is None or not self.norms or len(gradients) != len(self.gradients):
            return False
        if any(g is not h or g._version != v for g, h, v in zip(gradients, self.gradients, self.versions, strict=True)):
            return False
        return torch.equal(_ends(sample), self.ends)


@torch.no_grad()
def read(gradients: Sequence[Tensor], ends: Tensor | None = None) -> Reading:
    """Reads the norms of gradients: not finite where an element is not (on a GPU also beyond 1e19)."""
    versions = [g._version for g in gradients]
    values = [dense(g) for g in gradients]
    if not values:
        return Reading(0.0, (), (), ())
    norms = torch._foreach_norm(values)
    if any(n.is_cuda for n in norms):
        return Reading(
            torch.linalg.vector_norm(torch.stack([n.to(norms[0].device, torch.float32) for n in norms])), gradients, versions, (), ends
        )
    exact = [n if _SAFE[0] < n < _SAFE[1] else _wide_norm(v) for n, v in zip(torch.stack(norms).tolist(), values, strict=True)]
    return Reading(math.hypot(*exact), gradients, versions, exact, ends)


class Gauge:
    """Measures the weights of the rows of a trace, into columns: plain lists (L), since few numbers cost an array more than a list.

    Args:
        weights: The weight of each row (L).
    """

    def __init__(self, weights: Sequence[Tensor]) -> None:
        self._weights = tuple(weights)
        self._parts = [_Part.of(w) for w in weights]

    @torch.no_grad()
    def sample(self, rows: Sequence[int], *, ends: bool = False) -> Tensor | None:
        """Returns sampled entries (n, S) of the gradients of those of these rows that have one; None on a GPU, where all are looked at.

        With `ends` only those of the first and of the last row.
        """
        gradients = [g for row in rows if (g := self._weights[row].grad) is not None]
        gradients = _ends(gradients) if ends else gradients
        return _gathered(gradients) if gradients and not gradients[0].is_cuda else None

    @torch.no_grad()
    def gradients(self, rows: Sequence[int], columns: Columns, *, sample: Tensor | None, norms: Mapping[int, float], scale: float) -> None:
        """Measures the gradients of these rows, whose norms (by id of the weight) and sampled entries are known; all divided by `scale`."""
        moved = [row for row in rows if self._weights[row].grad is not None]
        if sample is None:
            values = _exact([self._weights[row].grad for row in moved])
        else:
            sizes, parts = sample.abs(), [self._parts[row] for row in moved]
            lines = zip(*torch.stack((sample.sum(1), sizes.sum(1), sizes.amax(1))).tolist(), parts, strict=True)
            known = [norms[id(self._weights[row])] for row in moved]
            values = [
                (norm, total / p.looked, size / p.looked, largest) for norm, (total, size, largest, p) in zip(known, lines, strict=True)
            ]
            for i, norm in enumerate(known):
                if not _SAFE[0] < norm < _SAFE[1]:
                    values[i] = _exact([self._weights[moved[i]].grad])[0]
        self._put(columns, _GRAD, moved, [[v / scale for v in line] for line in values])

    @torch.no_grad()
    def before(self, rows: Sequence[int], columns: Columns) -> Tensor:
        """Measures weights of these rows; returns the sampled entries (n, S) that `after` needs."""
        held = _gathered([self._weights[row] for row in rows])
        norms, sizes = torch.stack((torch.linalg.vector_norm(held, dim=1), held.abs().sum(1))).tolist()
        parts = [self._parts[row] for row in rows]
        self._put(columns, _WEIGHT, rows, [(n * p.whole, s / p.looked) for n, s, p in zip(norms, sizes, parts, strict=True)])
        return held

    @torch.no_grad()
    def after(self, rows: Sequence[int], columns: Columns, held: Tensor) -> None:
        """Measures how far the step moved what was held: norms are scaled from the sampled entries to the whole tensor."""
        changes = _gathered([self._weights[row] for row in rows]).sub_(held)
        norms, largest = torch.stack((torch.linalg.vector_norm(changes, dim=1), changes.abs().amax(1))).tolist()
        parts = [self._parts[row] for row in rows]
        self._put(columns, _UPDATE, rows, [(n * p.whole, x) for n, x, p in zip(norms, largest, parts, strict=True)])

    def _put(self, columns: Columns, names: Sequence[str], rows: Sequence[int], values: Sequence[Sequence[float]]) -> None:
        """Puts values (rows, names) where they belong."""
        for k, name in enumerate(names):
            column = columns.get(name)
            if column is None:
                column = columns[name] = [math.nan] * len(self._weights)
            for row, line in zip(rows, values, strict=True):
                column[row] = stored(line[k], name)


class _Part(NamedTuple):
    """How many entries of a tensor are looked at, and what a norm of them is multiplied by for the whole."""

    looked: int
    whole: float

    @staticmethod
    def of(tensor: Tensor) -> _Part:
        size = max(1, _local(tensor).numel())
        count = min(size, _SAMPLE)
        return _Part(count, math.sqrt(size / count))


class Glance:
    """Looks, at a step at which nothing is due, whether one small gradient of the first layers is finite.

    What is not finite anywhere in a backward pass reaches the first layers unless it is masked, and all units of a layer meet in its bias
    or its scale. It costs one operation.

    Args:
        optimizer: The optimizer whose parameters these are.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._small: Tensor | None = None

    def finite(self) -> bool:
        """True if all seems well."""
        gradient = None if self._small is None else self._small.grad
        if gradient is None:
            return self._chosen()
        total: Any = gradient.sum().tolist()  # a number; item() would ask torch's dispatcher once more
        return bool(total - total == 0)

    def _chosen(self) -> bool:
        first = with_gradient(self._optimizer)[:_FIRST]
        self._small = next((p for p, _ in first if p.numel() <= _SAMPLE and not hasattr(p, "to_local")), None)
        if self._small is not None:
            return self.finite()
        return not first or bool(_gathered([dense(first[0][1])]).isfinite().all())


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


def with_gradient(optimizer: torch.optim.Optimizer) -> list[tuple[Tensor, Tensor]]:
    """Returns the optimizer's parameters that have a gradient, each with it."""
    return [(p, g) for group in optimizer.param_groups for p in group["params"] if (g := p.grad) is not None]


def _ends(rows: _Rows) -> _Rows:
    """The first and the last."""
    return rows[:: max(1, len(rows) - 1)]


def _exact(gradients: Sequence[Tensor | None]) -> list[tuple[float, ...]]:
    """Returns norm, mean, mean magnitude and largest magnitude of each, of all entries, also where squares do not fit."""
    found = tensor_stats([dense(g) for g in gradients])
    return [tuple(line) for line in torch.stack([s.to(found[0].device) for s in found]).double().tolist()] if found else []


def _wide_norm(values: Tensor) -> float:
    """The norm where single precision may not hold the squares."""
    return float(torch.linalg.vector_norm(values, dtype=torch.float64))


def dense(tensor: Tensor | None) -> Tensor:
    """Returns a gradient as a plain tensor of floats or doubles: the values of a sparse one, this rank's shard of a sharded one."""
    assert tensor is not None
    tensor = _local(tensor)
    return tensor if tensor.dtype in _PLAIN else tensor.float()


def _local(tensor: Tensor) -> Tensor:
    if type(tensor) in _USUAL and tensor.layout is torch.strided and not tensor.is_complex():
        return tensor  # as it nearly always is
    tensor = tensor.detach()
    if hasattr(tensor, "to_local"):
        tensor = tensor.to_local()
    if tensor.is_sparse:
        tensor = tensor.coalesce().values()
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def _gathered(tensors: Sequence[Tensor]) -> Tensor:
    """Returns up to 4,096 entries of each tensor (n, 4096), with zeros behind those of a shorter one."""
    found = torch.stack([_sampled(_local(t)) for t in tensors]).view(len(tensors), _SAMPLE)
    return found if found.dtype in _PLAIN else found.float()


def _sampled(tensor: Tensor) -> Tensor:
    """Runs of 16 at a fixed spacing (256, 16), since single entries would each be a line of memory; a short tensor is filled up."""
    size, runs = tensor.numel(), _SAMPLE // _RUN
    if size <= _SAMPLE:
        return nn.functional.pad(tensor.reshape(-1), (0, _SAMPLE - size)).view(runs, _RUN)
    if not tensor.is_contiguous():
        tensor = tensor.contiguous()
    return tensor.as_strided((runs, _RUN), (size // _SPACING, 1))
