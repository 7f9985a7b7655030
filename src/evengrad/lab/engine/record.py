"""Runs in training -> statistics of every layer of every run, without leaving the batch.

Columns bear the names and meanings of `evengrad.types.Trace`: a row is a layer, here with an axis of runs beside it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from evengrad.lab.engine.losses import RunsLoss
from evengrad.lab.engine.plan import History, Plan
from evengrad.lab.engine.runs import Block, Runs
from evengrad.lab.engine.stack import MappedRuns
from evengrad.trace.isolation import untouched
from evengrad.trace.stats import output_stats, sample_norms

Columns = dict[str, Tensor]  # name -> (..., layers, runs)
SIGNALS = ("out_spread", "grad_out_norm", "zero_fraction", "dead_fraction")
_WEIGHT = ("grad_abs_max", "grad_abs_mean", "grad_norm", "weight_norm", "weight_change")
_INFO = torch.finfo(torch.float32)
_STEPS_HELD = 64  # before they are measured
_VALUES_HELD = 2**21  # 8 MB


class Recorder:
    """Keeps the gradients and weights of some steps and measures them together: a few large operations in place of many small ones.

    Columns: mean magnitude, norm and largest magnitude of each layer's gradient, its weights' norm, and the mean magnitude of their change
    since the record before (since the recorder was made, for the first).

    Args:
        runs: Whose gradients are recorded.
        plan: How often, and whether with what flows through the layers.
        history: Where the columns are added.
    """

    def __init__(self, runs: Runs, plan: Plan, history: History) -> None:
        self._runs, self._plan, self._history = runs, plan, history
        if not plan.record_every:
            return
        held = max(1, min(_STEPS_HELD, _VALUES_HELD // runs.flat.numel()))
        self._grads = runs.flat.new_empty(held, runs.flat.numel())
        self._weights = runs.flat.new_empty(held + 1, runs.flat.numel())  # the first line is the record before
        self._weights[0] = runs.flat
        self._held = 0

    def see(self, x: Tensor, y: Tensor, step: int) -> None:
        """Records the step in progress, whose gradients are there and whose weights are not yet changed, if its turn has come."""
        if not self._plan.record_every or step % self._plan.record_every:
            return
        self._history.record_steps.append(step)
        self._grads[self._held] = self._runs.grad
        self._held += 1
        self._weights[self._held] = self._runs.flat
        if self._held == len(self._grads):
            self._measure()
        if self._plan.signals:
            self._history.add(self._history.columns, signal_columns(self._runs, x, y, self._plan.loss))

    def close(self) -> None:
        """Measures what has not been measured yet."""
        if self._plan.record_every:
            self._measure()

    @torch.no_grad()
    def _measure(self) -> None:
        n, self._held = self._held, 0
        joined = torch.cat([self._block(block, n) for block in self._runs.recorded], dim=2)  # (columns, records, layers, runs)
        self._weights[0] = self._weights[n]
        self._history.extend(dict(zip(_WEIGHT, joined.index_select(2, self._runs.order), strict=True)))

    def _block(self, block: Block, n: int) -> Tensor:
        grads, weights = (self._runs.part_of(kept, block).flatten(3) for kept in (self._grads[:n], self._weights[: n + 1]))
        size = grads.abs()  # (records, layers, runs, elements)
        largest = size.amax(3)
        unit = largest.clamp(_INFO.tiny, _INFO.max)  # squares of what vanishes would be zero
        return torch.stack(
            [
                largest,
                size.mean(3),
                torch.linalg.vector_norm(size.div_(unit.unsqueeze(3)), dim=3) * unit,
                torch.linalg.vector_norm(weights[1:], dim=3),
                torch.sub(weights[1:], weights[:-1], out=size).abs_().mean(3),
            ]
        )


def signal_columns(runs: Runs, x: Tensor, y: Tensor, loss: RunsLoss) -> Columns:
    """Returns `out_spread`, `grad_out_norm`, `zero_fraction` and `dead_fraction` of each layer, from one pass that changes nothing.

    Rows that are not called as a module stay NaN: a recurrent level's hidden weights, all of a network that is mapped over its runs.
    """
    outputs: dict[int, Tensor] = {}
    active: dict[int, Tensor] = {}
    rows = {name: row for row, name in enumerate(runs.layers)}

    def on_layer(row: int) -> Callable[[nn.Module, object, object], None]:
        def keep(module: nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, Tensor):
                outputs[row] = output

        return keep

    def on_activation(module: nn.Module, inputs: object, output: object) -> None:
        if outputs and isinstance(output, Tensor):
            active.setdefault(next(reversed(outputs)), output.detach())

    hooks = []
    mapped = {part for module in runs.module.modules() if isinstance(module, MappedRuns) for part in module.modules()}
    for name, module in runs.module.named_modules():
        if module in mapped:
            continue
        if name in rows:
            hooks.append(module.register_forward_hook(on_layer(rows[name])))
        elif type(module).__module__ == "torch.nn.modules.activation":
            hooks.append(module.register_forward_hook(on_activation))
    try:
        with torch.enable_grad(), untouched(runs.module):
            found = runs.module(x)
            wanted, given = list(outputs.values()), loss.slope(found.detach(), y)
            slopes = torch.autograd.grad(found, wanted, given, allow_unused=True) if wanted else ()
    finally:
        for hook in hooks:
            hook.remove()
    return _signals(runs, outputs, active, dict(zip(outputs, slopes, strict=True)))


@torch.no_grad()
def _signals(runs: Runs, outputs: dict[int, Tensor], active: dict[int, Tensor], slopes: dict[int, Tensor | None]) -> Columns:
    found = {name: torch.full((len(runs.layers), runs.count), torch.nan, device=runs.device) for name in SIGNALS}
    for row, z in outputs.items():
        samples = z.shape[1]
        found["out_spread"][row] = torch.vmap(lambda one, n=samples: output_stats(one, n)[3])(z)
        if (slope := slopes[row]) is not None:
            found["grad_out_norm"][row] = torch.vmap(lambda one, n=samples: sample_norms(one, n)[0].mean())(slope)
        if row in active:
            zero = active[row].flatten(2) == 0
            found["zero_fraction"][row] = zero.float().mean((1, 2))
            found["dead_fraction"][row] = zero.all(1).float().mean(1)
    return found
