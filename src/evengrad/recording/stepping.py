"""One step, from before to after -> what the optimizer consumed and what it changed, beside the gradient of a standard step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evengrad.trace.recorder import stored
from evengrad.trace.stats import tensor_stats
from evengrad.trace.together import side_by_side
from evengrad.types import Floats

_NAMES = ("update_norm", None, None, "update_abs_max", "grad_norm", "grad_mean", "grad_abs_mean", "grad_abs_max")


class Step:
    """Looks at the weights of one step, and at the gradients at the moment that the optimizer uses them.

    Args:
        weights: The weights (L).
        standard: Gradient of a standard step from the same weights on the same batch, for each of them, or None.
        optimizer: Its optimizer; gradients are read after the step if this one is not called.
        own: The step is the user's own: what it does to the weights behind the optimizer's back is looked at too.
    """

    def __init__(
        self,
        weights: Sequence[nn.Parameter],
        standard: Sequence[Tensor | None],
        optimizer: torch.optim.Optimizer | None,
        *,
        own: bool = False,
    ) -> None:
        self.weights, self._standard = weights, standard
        self._before = [w.detach().clone() for w in weights]
        self.used: list[Tensor | None] | None = None
        self._stepped: list[Tensor] | None = None
        self._handles = [] if optimizer is None else [optimizer.register_step_pre_hook(self._consumed)]
        self._handles += [optimizer.register_step_post_hook(self._taken)] if own and optimizer is not None else []

    def _consumed(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self.used = [None if w.grad is None else w.grad.detach().clone() for w in self.weights]  # zeroed right after, perhaps

    def _taken(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self._stepped = [w.detach().clone() for w in self.weights]

    def columns(self) -> dict[str, Floats]:
        """Returns columns (1, L) of the update, the gradients that were used, and how far both agree with a standard step."""
        for handle in self._handles:
            handle.remove()
        if self.used is None:
            self.used = [None if w.grad is None else w.grad.detach() for w in self.weights]
        with torch.no_grad():
            now = [w.detach() for w in self.weights]
            moved = [w - old for w, old in zip(now, self._before, strict=True)]
            used = [torch.zeros_like(m) if g is None else _dense(g) for g, m in zip(self.used, moved, strict=True)]
            stepped = now if self._stepped is None else self._stepped
            taken = moved if self._stepped is None else [w - old for w, old in zip(stepped, self._before, strict=True)]
            standard = [torch.zeros_like(m) if s is None else _dense(s) for s, m in zip(self._standard, moved, strict=True)]
            agree = side_by_side([_stacked(*each) for each in zip(standard, used, taken, moved, now, strict=True)], _agreements)
            sizes = tensor_stats(moved + used)
            rows = [
                torch.cat((m, g.to(m.device), a.to(m))) for m, g, a in zip(sizes[: len(moved)], sizes[len(moved) :], agree, strict=True)
            ]
            if self._stepped is not None:
                behind = side_by_side([_stacked(s, w) for s, w in zip(stepped, now, strict=True)], _behind)
                rows = [torch.cat((row, b.to(row))) for row, b in zip(rows, behind, strict=True)]
            host = torch.stack([row.cpu().double() for row in rows]).numpy() if rows else np.zeros((0, 17))  # (L, 15 or 17)
        unused = [g is None for g in self.used]
        found = {}
        for k, name in enumerate(_NAMES):
            if name:
                kept = [math.nan if gone and k >= 4 else stored(float(v), name) for v, gone in zip(host[:, k], unused, strict=True)]
                found[name] = np.array([kept], np.float32)
        for k, name in enumerate(_AGREEMENTS if self._stepped is None else _AGREEMENTS + _BEHIND, start=len(_NAMES)):
            found[name] = host[None, :, k].astype(np.float32)
        return found


_AGREEMENTS = (
    "grad_agreement",
    "update_agreement",
    "unchanged_fraction",
    "lost_fraction",
    "rounded_fraction",
    "extra_ratio",
    "extra_shrink",
)
_BEHIND = ("behind_ratio", "behind_shrink")


def _stacked(*tensors: Tensor) -> Tensor:
    """Tensors of one size as (number, elements), float32; complex numbers count as pairs."""
    flat = [torch.view_as_real(t.resolve_conj()) if t.is_complex() else t for t in tensors]
    return torch.stack([t.reshape(-1).float() for t in flat])


def _dense(gradient: Tensor) -> Tensor:
    return gradient.to_dense() if gradient.is_sparse else gradient


def _agreements(found: Tensor, counts: Tensor) -> Tensor:
    """Of standard and used gradient, the optimizer's change, the whole change and the weights (k, 5, n): seven numbers each (k, 7).

    Cosines of used and standard gradient, and of the optimizer's change and minus the used gradient; share of entries that stayed although
    used; share of entries of the standard gradient that the used one has as zero, where those are the small ones; share of weights
    that need no more than twelve of their 24 bits; size of what the used gradient has beyond the standard one, and how far that extra
    shrinks the weights.
    """
    standard, used, taken, moved, weights = found.unbind(1)
    nothing = found.new_full((len(found),), math.nan)
    pulled, meant = used != 0, standard != 0
    stayed = _share_of(pulled & (moved == 0), pulled)
    lost = meant & ~pulled
    size = standard.abs()
    small = (size * lost).sum(1) / lost.sum(1).clamp_min(1) < 0.5 * (size * ~lost).sum(1) / (~lost).sum(1).clamp_min(1)
    share = _share_of(lost, meant)
    gone = torch.where(small | (share == 0) | (share == 1), share, nothing)
    held = weights != 0
    rounded = _share_of(held & (weights.contiguous().view(torch.int32) & 0xFFF == 0), held)
    before, extra = weights - moved, used - standard
    norms = torch.linalg.vector_norm(torch.stack((extra, standard)), dim=2)
    shrinks = torch.maximum(_cosines(extra, before), _cosines(extra, before.sign()))
    return torch.stack((_cosines(standard, used), _cosines(taken, -used), stayed, gone, rounded, norms[0] / norms[1], shrinks), 1)


def _share_of(chosen: Tensor, of: Tensor) -> Tensor:
    count = of.sum(1)
    share: Tensor = torch.where(count > 0, chosen.sum(1) / count, torch.full_like(count, math.nan, dtype=torch.float32))
    return share


def _behind(found: Tensor, counts: Tensor) -> Tensor:
    """Of weights after the optimizer and at the end of the step (k, 2, n): relative change, and its cosine with the weights' shrinking."""
    stepped, end = found.unbind(1)
    change = end - stepped
    ratio = torch.linalg.vector_norm(change, dim=1) / torch.linalg.vector_norm(stepped, dim=1).clamp_min(torch.finfo(torch.float32).tiny)
    return torch.stack((ratio, _cosines(change, -stepped)), 1)


def _cosines(a: Tensor, b: Tensor) -> Tensor:
    """Cosines (k,) of rows (k, n); NaN where one is zero or not finite; scaled first, so that float32 holds the squares."""
    a, b = (t / t.abs().amax(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny) for t in (a, b))
    cosine: Tensor = (a * b).sum(1) / (torch.linalg.vector_norm(a, dim=1) * torch.linalg.vector_norm(b, dim=1))
    return cosine


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    """The cosine between two tensors, NaN where one is zero or not finite; scaled first, so that float32 holds the squares."""
    a, b = (t.float().reshape(-1) / t.abs().amax().float().clamp_min(torch.finfo(torch.float32).tiny) for t in (a, b))
    cosine: Tensor = (a @ b) / (a.norm() * b.norm())
    return cosine


class Accumulation:
    """Tells gradients that are never zeroed: what a step used beyond its batch's own gradient is what the step before used.

    A training loop that adds up gradients of several batches on purpose clears them after each step: its least value is zero. So is that of
    a penalty in the user's own step, whose gradient is alike from step to step but not the last one again.
    """

    def __init__(self, steps: int) -> None:
        self._left = steps
        self._last: Tensor | None = None
        self._found: list[float] = []

    def see(self, standard: Sequence[Tensor | None], used: Sequence[Tensor | None]) -> None:
        """Looks at the next step; steps must follow each other, and gradients of weights that the optimizer does not have be None."""
        if not self._left:
            return
        self._left -= 1
        pairs = [(s, g) for s, g in zip(standard, used, strict=True) if s is not None and g is not None]
        if not pairs:
            return
        now = torch.cat([_dense(g).reshape(-1).float() for _, g in pairs])
        if self._last is not None and len(self._last) == len(now):
            own = torch.cat([_dense(s).reshape(-1).float() for s, _ in pairs]).to(now.device)
            self._found.append(self._share(now - own, own, self._last))
        self._last = now if self._left else None

    @staticmethod
    def _share(extra: Tensor, own: Tensor, last: Tensor) -> float:
        """1 if what is extra is the last gradient again; noise of dropout, as large as a gradient of one batch, is forgiven."""
        size = float(last.norm())
        if float(extra.norm()) <= 1e-2 * size or not size:
            return 0.0
        away = max(0.0, float((extra - last).norm()) - 0.5 * float(own.norm()))
        near = float(_cosine(extra, last).nan_to_num(0.0))
        return near if away <= 0.1 * size or near > 0.999 else min(near, 1.0 - away / size)

    @property
    def value(self) -> float | None:
        """The least share over the steps, None where fewer than three were compared."""
        return min(self._found) if len(self._found) >= 3 else None
