"""Gradients of many runs -> clipped, and a step each by its own numbers; runs can be let go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from evengrad.lab.engine.optimizers import Optimizer, State
from evengrad.lab.engine.runs import Block, Runs


class Descent:
    """Steps many runs, the k-th by the k-th optimizer and thresholds.

    Args:
        optimizers: One a run, equal in `shape()`.
        clips: Thresholds (norm, value) of each run, infinite for none.
    """

    def __init__(self, optimizers: Sequence[Optimizer], clips: Sequence[tuple[float, float]]) -> None:
        self._optimizers, self._clips = list(optimizers), list(clips)
        self._states: list[State] = []
        self._count = 0

    def step(self, runs: Runs) -> None:
        """Takes one step; gradients may be overwritten."""
        self._clip(runs)
        self._count += 1
        self._states = self._states or [{} for _ in runs.blocks]
        hyper = self._hyper(runs.device)
        for block, state in zip(runs.blocks, self._states, strict=True):
            self._optimizers[0].update(_rows(block, block.weights), _rows(block, block.grads), state, hyper, self._count)

    def keep(self, places: Sequence[int]) -> None:
        """Lets go of all runs but these."""
        self._optimizers = [self._optimizers[k] for k in places]
        self._clips = [self._clips[k] for k in places]
        self._states = [{name: value[:, places] for name, value in state.items()} for state in self._states]

    def _hyper(self, device: torch.device) -> dict[str, Any]:
        first = self._optimizers[0]
        found: dict[str, Any] = {}
        for name in (f.name for f in fields(first)):
            values = [getattr(o, name) for o in self._optimizers]
            same = len(set(values)) == 1
            found[name] = values[0] if same else torch.tensor(values, dtype=torch.float64, device=device)[:, None]
        return found

    def _clip(self, runs: Runs) -> None:
        norm, value = (torch.tensor(limits, device=runs.device, dtype=runs.flat.dtype) for limits in zip(*self._clips, strict=True))
        grads = [_rows(block, block.grads) for block in runs.blocks]  # (n, runs, elements)
        if bool(norm.isfinite().any()):
            norms = torch.stack([torch.linalg.vector_norm(g, dim=(0, 2)) for g in grads])
            scale = (norm / (torch.linalg.vector_norm(norms, dim=0) + 1e-6)).clamp_max(1.0)  # as torch.nn.utils.clip_grad_norm_
            scale = torch.where(norm.isfinite(), scale, 1.0)[:, None]
            for g in grads:
                g.mul_(scale)
        if bool(value.isfinite().any()):
            for g in grads:
                g.clamp_(-value[:, None], value[:, None])


def _rows(block: Block, tensor: Tensor) -> Tensor:
    return tensor.view(*block.weights.shape[:2], -1)
