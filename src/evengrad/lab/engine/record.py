"""Runs in training -> statistics of every layer of every run, without leaving the batch.

Columns bear the names and meanings of `evengrad.types.Trace`: a row is a layer, here with an axis of runs beside it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from evengrad.lab.engine.losses import RunsLoss
from evengrad.lab.engine.runs import Block, Runs
from evengrad.lab.engine.stack import MappedRuns
from evengrad.trace.isolation import untouched
from evengrad.trace.stats import output_stats, sample_norms

Columns = dict[str, Tensor]  # name -> (layers, runs)
SIGNALS = ("out_spread", "grad_out_norm", "zero_fraction", "dead_fraction")
_WEIGHT = ("grad_abs_max", "grad_abs_mean", "grad_norm", "weight_norm", "weight_change")
_INFO = torch.finfo(torch.float32)


@torch.no_grad()
def weight_columns(runs: Runs, previous: Tensor | None = None) -> Columns:
    """Returns mean magnitude, norm and largest magnitude of each layer's gradient, its weight norm and its mean change.

    Args:
        runs: Their gradients are those of the step in progress.
        previous: Clone of `runs.flat` at the last record; adds `weight_change`, the mean magnitude of the change since.
    """
    joined = torch.cat([_block_columns(runs, block, previous) for block in runs.recorded], dim=1)  # (columns, layers, runs)
    return dict(zip(_WEIGHT, joined.index_select(1, runs.order), strict=False))


def _block_columns(runs: Runs, block: Block, previous: Tensor | None) -> Tensor:
    w, g = block.flat
    size = g.abs()
    largest = size.amax(2)
    unit = largest.clamp(_INFO.tiny, _INFO.max)  # squares of what vanishes would be zero
    columns = [
        largest,
        size.mean(2),
        torch.linalg.vector_norm(size.div_(unit.unsqueeze(2)), dim=2) * unit,
        torch.linalg.vector_norm(w, dim=2),
    ]
    if previous is not None:
        columns.append((w - runs.part_of(previous, block).view_as(w)).abs_().mean(2))
    return torch.stack(columns)


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
