"""Gradients of many runs -> clipped, and a step each by its own numbers; runs can be let go."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from evengrad.lab.engine.optimizers import Optimizer, State
from evengrad.lab.engine.runs import Runs


class Descent:
    """Steps many runs, the k-th by the k-th optimizer and thresholds.

    Args:
        optimizers: One a run, equal in `shape()`.
        clips: Thresholds (norm, value) of each run, infinite for none.
    """

    def __init__(self, optimizers: Sequence[Optimizer], clips: Sequence[tuple[float, float]]) -> None:
        self._optimizers, self._clips = list(optimizers), list(clips)
        self._states: list[State] = []
        self._hyper: dict[str, Any] = {}
        self._count = 0

    def step(self, runs: Runs) -> None:
        """Takes one step; gradients may be overwritten."""
        self._hyper = self._hyper or self._numbers(runs.device)
        self._states = self._states or [{} for _ in runs.blocks]
        self._clip([block.flat[1] for block in runs.blocks])
        self._count += 1
        for block, state in zip(runs.blocks, self._states, strict=True):
            self._optimizers[0].update(*block.flat, state, self._hyper, self._count)

    def keep(self, places: Sequence[int]) -> None:
        """Lets go of all runs but these."""
        self._optimizers = [self._optimizers[k] for k in places]
        self._clips = [self._clips[k] for k in places]
        self._states = [{name: value[:, places] for name, value in state.items()} for state in self._states]
        self._hyper = {}

    def _numbers(self, device: torch.device) -> dict[str, Any]:
        first, found = self._optimizers[0], {}
        for name in (f.name for f in fields(first)):
            values = [getattr(o, name) for o in self._optimizers]
            same = len(set(values)) == 1
            found[name] = values[0] if same else torch.tensor(values, dtype=torch.float64, device=device)[:, None]
        return found

    def _clip(self, grads: list[Tensor]) -> None:
        norm, value = zip(*self._clips, strict=True)
        if any(map(math.isfinite, norm)):
            limit = grads[0].new_tensor(norm)
            norms = torch.stack([torch.linalg.vector_norm(g, dim=(0, 2)) for g in grads])
            scale = (limit / (torch.linalg.vector_norm(norms, dim=0) + 1e-6)).clamp_max(1.0)  # as torch.nn.utils.clip_grad_norm_
            scale = torch.where(limit.isfinite(), scale, 1.0)[:, None]
            for g in grads:
                g.mul_(scale)
        if any(map(math.isfinite, value)):
            limit = grads[0].new_tensor(value)[:, None]
            for g in grads:
                g.clamp_(-limit, limit)
