"""The steps of a training -> its state a few steps before the loss jumped, and the batches since: so that it can be met again."""

from __future__ import annotations

import copy
import statistics
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from evengrad.rig import Rig
from evengrad.trace.batch import Batch
from evengrad.trace.capture import tensors_in

_EVERY = 32  # steps between two snapshots: a copy of weights and optimizer state costs less than a step
_BEFORE = 32  # losses that a jump is told from
_AFTER = 16  # steps that are kept behind a jump
_JUMP = 3.0  # times the median before
_BYTES = 64 * 2**20  # of batches that are kept


@dataclass
class Snapshot:
    """A training at one step, and the batches from there.

    Attributes:
        step: The step about to be taken.
        state: State of model, optimizer and schedule, and of torch's generator on the CPU.
        batches: The batches of this step and those after it.
        jump: The step at which the loss jumped, or None while it has not.
    """

    step: int
    state: tuple[Any, ...]
    batches: list[Batch] = field(default_factory=list)
    jump: int | None = None

    @staticmethod
    def of(rig: Rig) -> Snapshot:
        """Copies the state of a rig."""
        parts = (rig.model, rig.optimizer, rig.scheduler)
        states = [None if part is None else _copied(part.state_dict()) for part in parts]
        return Snapshot(rig.step, (*states, torch.get_rng_state()))

    def restore(self, rig: Rig) -> None:
        """Puts a rig that was built in the same way into this state."""
        for part, state in zip((rig.model, rig.optimizer, rig.scheduler), self.state[:3], strict=True):
            if part is not None and state is not None:
                part.load_state_dict(copy.deepcopy(state))
        torch.set_rng_state(self.state[3])
        rig.step = self.step


class Rewind:
    """Keeps the last two snapshots while all is well; when the loss jumps, the older one and the batches up to sixteen steps later.

    Of several jumps the first is kept. Batches over 64 MB are not kept: then nothing is.
    """

    def __init__(self) -> None:
        self.kept: Snapshot | None = None
        self._held: list[Snapshot] = []
        self._losses: list[Tensor] = []
        self._seen: list[float] = []
        self._full = False
        self._bytes: list[int] = []  # of the batches that each snapshot holds

    def before(self, rig: Rig, batch: Batch) -> None:
        """Sees a batch, before its step."""
        if self._full:
            return
        if self.kept is None and rig.step % _EVERY == 0:
            self._held, self._bytes = [*self._held[-1:], Snapshot.of(rig)], [*self._bytes[-1:], 0]
        size = sum(t.numel() * t.element_size() for t in tensors_in((batch.inputs, batch.targets)))
        for i, snapshot in enumerate(self._held):
            snapshot.batches.append(batch)
            self._bytes[i] += size
        if self._bytes[0] > _BYTES:
            self._held, self._full = [], True

    def after(self, rig: Rig, loss: Tensor) -> None:
        """Sees the loss of a step; reads it, with others, at every eighth."""
        if self._full or not self._held:
            return
        self._losses.append(loss)
        if len(self._losses) % 8 == 0:
            self._look(rig.step)

    def _look(self, step: int) -> None:
        fresh = torch.stack(self._losses).double().tolist()
        self._losses = []
        for offset, value in enumerate(fresh):
            usual = statistics.median(self._seen[-_BEFORE:]) if len(self._seen) >= _BEFORE else None
            if self.kept is None and usual is not None and not value <= _JUMP * abs(usual):
                self.kept, self._held = self._held[0], self._held[:1]
                self.kept.jump = step - len(fresh) + offset
            self._seen.append(value)
        self._full = self.kept is not None and self.kept.jump is not None and step >= self.kept.jump + _AFTER


def _copied(state: Any) -> Any:
    """A copy that shares no tensor: what deepcopy does, at a fifth of its price for states of many small tensors."""
    if type(state) is Tensor:
        return state.detach().clone()
    if type(state) in {dict, OrderedDict}:
        return {key: _copied(value) for key, value in state.items()}
    if type(state) in {list, tuple}:
        return type(state)(_copied(value) for value in state)
    return state if isinstance(state, (int, float, str, bool, type(None))) else copy.deepcopy(state)
