"""The steps of a user's own loop -> how often each calls the model and the optimizer, and with how many samples."""

from __future__ import annotations

import statistics
from contextlib import suppress
from typing import Any

import torch
from torch import nn

from evengrad.errors import EvengradError
from evengrad.rig import Rig
from evengrad.trace.batch import Batch


class Loop:
    """Counts the calls of one training; nothing is counted while evengrad itself looks at the model."""

    def __init__(self) -> None:
        self._inside = False
        self._handles: list[Any] | None = None
        self._taken, self._seen, self._calls = 0, 0, 0
        self._pieces: list[int] = []

    def __deepcopy__(self, memo: dict[int, Any]) -> Loop:
        return self  # a copy of the model is no model of this loop's, and needs no copy of it

    def enter(self, rig: Rig) -> None:
        """The user's step begins."""
        if self._handles is None:
            self._handles = [rig.model.register_forward_pre_hook(self._called, with_kwargs=True)]
            self._handles += [] if rig.optimizer is None else [rig.optimizer.register_step_pre_hook(self._stepped)]
        self._inside = True
        self._seen += 1

    def leave(self) -> None:
        """It is over."""
        self._inside = False

    def close(self) -> None:
        """Removes what was hung onto the model."""
        for handle in self._handles or ():
            handle.remove()
        self._handles = []

    def _called(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not self._inside or not torch.is_grad_enabled():
            return
        self._calls += 1
        if len(self._pieces) < 256:
            with suppress(EvengradError):  # no axis of samples
                self._pieces.append(Batch(args or kwargs).samples)

    def _stepped(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self._taken += self._inside

    def facts(self) -> dict[str, float]:
        """Returns `optimizer_steps` and `model_calls` a batch, and `piece`: the median number of samples of a call."""
        if not self._seen:
            return {}
        found = {"optimizer_steps": self._taken / self._seen, "model_calls": self._calls / self._seen}
        return found | ({"piece": float(statistics.median(self._pieces))} if self._pieces else {})
