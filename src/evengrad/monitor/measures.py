"""The gradients and weights of a step that is due, before and after it is taken -> columns and points of its log."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from evengrad.monitor import gauges
from evengrad.monitor.log import Log
from evengrad.monitor.outlets import Outlets
from evengrad.monitor.rows import Rows
from evengrad.types import Floats


class Measures:
    """Measures one step after the other; several optimizers fill the rows of one step.

    Args:
        rows: The rows of the trace.
        log: Where what is measured goes.
    """

    def __init__(self, rows: Rows, log: Log) -> None:
        self._rows, self._log = rows, log
        self._columns: gauges.Columns = {}
        self._held: dict[int, tuple[list[int], Tensor, bool]] = {}
        self._owned: dict[int, tuple[tuple[int, int], list[int]]] = {}

    def read(self, optimizer: torch.optim.Optimizer, *, sampled: bool) -> gauges.Reading:
        """Reads the gradients of an optimizer as they are now; `sampled` for a step that is measured, so that they can be known again."""
        own = self._own(optimizer) if sampled else []
        ends = self._rows.gauge.sample(own, ends=True) if own else None
        return gauges.read([g for _, g in gauges.with_gradient(optimizer)], ends)

    def before(
        self, optimizer: torch.optim.Optimizer, step: int, *, scale: float, norm: float | Tensor | None, reading: gauges.Reading | None
    ) -> None:
        """Measures the gradients that are used, and holds the weights.

        Args:
            optimizer: The optimizer that is about to step.
            step: Its number.
            scale: What the gradients are multiplied by.
            norm: Their norm before clipping, without a scale; None if it is not known.
            reading: The gradients when backward had ended.
        """
        self._log.point("lr", step, float(optimizer.param_groups[0]["lr"]))
        consumed = self._gradients(optimizer, scale, reading) / scale
        self.hold(optimizer)
        self._log.point("grad_norm_used", step, consumed)
        if norm is not None and math.isfinite(float(norm)):
            self._log.point("clipped", step, float(consumed < 0.999 * float(norm)))

    def hold(self, optimizer: torch.optim.Optimizer, *, closure: bool = False) -> None:
        """Measures the weights and holds a sample of them until the step is over; with a closure it computes its gradients itself."""
        own = self._own(optimizer)
        if own:
            self._held[id(optimizer)] = own, self._rows.gauge.before(own, self._columns), closure

    def after(self, optimizer: torch.optim.Optimizer) -> None:
        """Measures how far the step moved what was held."""
        if id(optimizer) in self._held:
            own, held, closure = self._held.pop(id(optimizer))
            self._rows.gauge.after(own, self._columns, held)
            if closure:
                self._gradients(optimizer, 1.0, None)

    def _gradients(self, optimizer: torch.optim.Optimizer, scale: float, reading: gauges.Reading | None) -> float:
        """Measures gradients, and returns the norm of all of them; a reading that still holds is not taken again."""
        own, moved = self._own(optimizer), gauges.with_gradient(optimizer)
        sample, gradients = self._rows.gauge.sample(own) if own else None, [g for _, g in moved]
        if reading is None or sample is None or not reading.holds(gradients, sample):
            reading = gauges.read(gradients)
        if own:
            norms = {id(p): norm for (p, _), norm in zip(moved, reading.norms, strict=False)}
            self._rows.gauge.gradients(own, self._columns, sample=sample, norms=norms, scale=scale)
        return float(reading.total)

    def over(self, step: int, inside: Mapping[str, Floats]) -> None:
        """Logs what was measured at a step, beside what was seen from inside it."""
        found = dict(zip(self._columns, np.array(list(self._columns.values()), np.float32), strict=True))
        for name, column in inside.items():
            own = found.get(name)
            found[name] = column if own is None else np.where(np.isnan(own), column, own)
        if found:
            self._log.add(step, found)
        self._columns = {}

    def histograms(self, step: int, outlets: Outlets) -> None:
        """Hands the distributions of gradients and weights to the sinks."""
        for layer, weight in zip(self._rows.layers, self._rows.weights, strict=True):
            for kind, values in (("gradients", weight.grad), ("weights", weight)):
                found = gauges.histogram(values) if values is not None else None
                if found is not None:
                    outlets.histogram(step, kind, layer, *found)

    def _own(self, optimizer: torch.optim.Optimizer) -> list[int]:
        """The rows whose weights are this optimizer's."""
        sizes = len(self._rows.weights), sum(len(group["params"]) for group in optimizer.param_groups)  # both can grow
        known = self._owned.get(id(optimizer))
        if known is None or known[0] != sizes:
            owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
            known = self._owned[id(optimizer)] = sizes, [i for i, weight in enumerate(self._rows.weights) if id(weight) in owned]
        return known[1]
