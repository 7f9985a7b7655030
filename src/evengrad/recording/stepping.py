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
from evengrad.types import Floats

_NAMES = ("update_norm", None, None, "update_abs_max", "grad_norm", "grad_mean", "grad_abs_mean", "grad_abs_max")


class Step:
    """Looks at the weights of one step, and at the gradients at the moment that the optimizer uses them.

    Args:
        weights: The weights (L).
        standard: Gradient of a standard step from the same weights on the same batch, for each of them, or None.
        optimizer: Its optimizer; gradients are read after the step if this one is not called.
    """

    def __init__(self, weights: Sequence[nn.Parameter], standard: Sequence[Tensor | None], optimizer: torch.optim.Optimizer | None) -> None:
        self.weights, self._standard = weights, standard
        self._before = [w.detach().clone() for w in weights]
        self.used: list[Tensor | None] | None = None
        self._handle = None if optimizer is None else optimizer.register_step_pre_hook(self._consumed)

    def _consumed(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self.used = [None if w.grad is None else w.grad.detach().clone() for w in self.weights]  # zeroed right after, perhaps

    def columns(self) -> dict[str, Floats]:
        """Returns columns (1, L) of the update, the gradients that were used, and how far both agree with a standard step."""
        if self._handle is not None:
            self._handle.remove()
        if self.used is None:
            self.used = [None if w.grad is None else w.grad.detach() for w in self.weights]
        with torch.no_grad():
            moved = [w.detach() - old for w, old in zip(self.weights, self._before, strict=True)]
            used = [torch.zeros_like(m) if g is None else _dense(g) for g, m in zip(self.used, moved, strict=True)]
            agree = [_agreements(s, g, m) for s, g, m in zip(self._standard, used, moved, strict=True)]
            rows = [torch.cat((m, g.to(m.device), a.to(m))) for m, g, a in zip(tensor_stats(moved), tensor_stats(used), agree, strict=True)]
            host = torch.stack([row.cpu().double() for row in rows]).numpy() if rows else np.zeros((0, 11))  # (L, 11)
        unused = [g is None for g in self.used]
        found = {}
        for k, name in enumerate(_NAMES):
            if name:
                kept = [math.nan if gone and k >= 4 else stored(float(v), name) for v, gone in zip(host[:, k], unused, strict=True)]
                found[name] = np.array([kept], np.float32)
        for k, name in enumerate(("grad_agreement", "update_agreement", "unchanged_fraction"), start=len(_NAMES)):
            found[name] = host[None, :, k].astype(np.float32)
        return found


def _dense(gradient: Tensor) -> Tensor:
    return gradient.to_dense() if gradient.is_sparse else gradient


def _agreements(standard: Tensor | None, used: Tensor, moved: Tensor) -> Tensor:
    """Cosines of used and standard gradient, and of the change and minus the used gradient; share of entries that stayed although used."""
    nothing = moved.new_full((), math.nan, dtype=torch.float32)
    pulled = used != 0
    count = pulled.sum()
    stayed = torch.where(count > 0, (pulled & (moved == 0)).sum() / count, nothing)
    return torch.stack((nothing if standard is None else _cosine(_dense(standard), used), _cosine(moved, -used), stayed.float()))


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
