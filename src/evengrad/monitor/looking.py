"""Calls of a watched model -> its structure and, at some steps, columns of what flows through its layers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from evengrad.monitor import layers
from evengrad.monitor.cadence import Clock
from evengrad.monitor.log import Log
from evengrad.monitor.replay import Call
from evengrad.monitor.rows import Rows
from evengrad.trace.structure import Structure
from evengrad.types import Floats

_PROJECTED = "the model is compiled: that of a random projection was measured, uncompiled"


class Looking:
    """Looks at the layers: from inside the user's own pass or, where the model is compiled, by a pass of its own.

    Args:
        model: What the user calls.
        core: The network inside.
        optimizers: Its optimizers.
        log: Told of layers and facts once they are known.
        clock: Keeps the time.

    Attributes:
        rows: The rows of the trace.
        unseen: Topic -> why it was not looked at.
    """

    def __init__(self, model: nn.Module, core: nn.Module, optimizers: Sequence[torch.optim.Optimizer], log: Log, clock: Clock) -> None:
        self.rows = Rows(core)
        self.unseen: dict[str, str] = {}
        self._model, self._core, self._optimizers, self._log, self._clock = model, core, optimizers, log, clock
        self._compiled = layers.compiled(model)
        self._look: layers.Look | None = None

    @property
    def failed(self) -> bool:
        """True if the call that was looked at raised."""
        return self._look is not None and self._look.failed

    def begin(self, call: Call, samples: int, step: int) -> None:
        """Looks on while the coming call runs, if its step is due for it."""
        self.end()
        if not self._compiled and self._clock.layers_due(step):
            columns, ended = layers.SIGNALS if self.rows.known else layers.COLUMNS, self._returned(call)
            inputs = (call.args, call.kwargs)
            self._look = layers.Look(self._model, self._core, max(1, samples), inputs, columns=columns, ended=ended)

    def _returned(self, call: Call) -> Callable[[layers.Look, Any], None]:
        def returned(look: layers.Look, output: Any) -> None:
            began = time.perf_counter()
            if not self.rows.known:
                call.see_numbers()
                self._known(look.structure(output), call, output, layers.signature(look.capture))
            elif not layers.same(look.capture, self.rows.signature):
                self._look = None  # data-dependent control flow took another way
            self._clock.spent += time.perf_counter() - began

        return returned

    def columns(self, call: Call | None, step: int, scale: float) -> dict[str, Floats]:
        """Returns what was seen at this step, by layer (L,); gradients are divided by `scale`. Empty where nothing was looked at."""
        began = time.perf_counter()
        if self._look is not None and self.rows.known:
            found = self._look.columns(self.rows.structure, scale)
            self.end()
            self._clock.looked_inside(time.perf_counter() - began)
            return found
        if not self._compiled or call is None or not self._clock.layers_due(step):
            return {}
        structure, found, output = layers.probe(self._core, call.args, call.kwargs)
        self.unseen["gradient of the layers' outputs"] = _PROJECTED
        if not self.rows.known:
            self._known(structure, call, output, ())
        self._clock.layers_took(time.perf_counter() - began)
        return found if structure.layers == self.rows.layers else {}

    def _known(self, structure: Structure, call: Call, output: Any, signature: tuple[tuple[str, str], ...]) -> None:
        self.rows.read(structure, signature)
        self._log.layers, self._log.facts = structure.layers, call.facts(self._core, structure, output, self._optimizers)

    def end(self) -> None:
        """Ends a look that is still open."""
        if self._look is not None:
            self._look.close()
            self._look = None
