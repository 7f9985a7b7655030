"""Runs in training -> which of them are sick, by the rules of `check`: long before their loss shows it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from evengrad import rules
from evengrad.errors import InputError
from evengrad.examine import errors
from evengrad.judge import judge
from evengrad.lab.engine.runs import Runs
from evengrad.rules import Rule
from evengrad.trace.batch import Batch, Loss
from evengrad.trace.isolation import untouched
from evengrad.trace.stats import CUT_OFF, output_stats, sample_norms
from evengrad.types import Facts, Layer, Run, Trace

_AT_ONCE = {"NUM001"}  # a NaN does not go away
_COLUMNS = ("out_spread", "out_abs_max", "dead_fraction", "grad_out_norm", "grad_out_abs_max")


def _usual() -> tuple[Rule, ...]:
    return (
        rules.NonFinite(),
        rules.VanishingGradient(),
        rules.ZeroGradient(),
        rules.ExplodingGradient(),
        rules.SignalCollapse(),
        rules.DeadRelu(),
    )


@dataclass(frozen=True, kw_only=True)
class Health:
    """Stops a run whose gradients are sick at error level twice in a row.

    Twice, since a network may heal in its first steps (a head that starts at zero passes nothing back at step 0); what is not finite
    counts at once. The thresholds of these rules come from networks that were trained: at error level they flag 1% of those that can be.

    Attributes:
        rules: What to look for.
        steps: Steps before which to look, ascending.
    """

    rules: tuple[Rule, ...] = field(default_factory=_usual)
    steps: tuple[int, ...] = (0, 5, 20, 50)

    def __post_init__(self) -> None:
        if not self.steps or list(self.steps) != sorted(set(self.steps)) or self.steps[0] < 0:
            raise InputError(f"health is looked at before ascending steps, at least one; got {self.steps}")

    def sick(self, trace: Trace) -> dict[str, str]:
        """Returns the codes of what is wrong at error level, each with its message."""
        return {finding.code: finding.message for finding in errors(judge(trace, self.rules).findings)}


class Patient:
    """What one run's looks have shown so far."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._before: dict[str, str] = {}

    def look(self, trace: Trace, step: int) -> str | None:
        """Returns why the run is to be stopped, or None."""
        now = self._health.sick(trace)
        sure = [code for code in now if code in _AT_ONCE or code in self._before]
        self._before = now
        return f"{sure[0]} before step {step}: {now[sure[0]]}" if sure else None


def traces(runs: Runs, layers: Sequence[Layer], batch: Batch, loss_fn: Loss, step: int) -> list[Trace]:
    """Measures one pass of every run, together, and returns a trace of each; nothing of the runs is changed.

    Args:
        runs: The runs.
        layers: The rows of one of them.
        batch: The batch, the same for all.
        loss_fn: `loss_fn(output, targets) -> scalar`.
        step: Number of the step.
    """
    columns = {name: v.cpu().numpy() for name, v in _columns(runs, layers, batch, loss_fn).items()}  # (runs, layers)
    run = Run(name="", model="", parameters=0, samples=batch.samples)
    at = np.array([step], np.int64)
    return [
        Trace(run=run, layers=tuple(layers), facts=Facts(mode="train"), steps=at, columns={n: v[k : k + 1] for n, v in columns.items()})
        for k in range(runs.count)
    ]


def _columns(runs: Runs, layers: Sequence[Layer], batch: Batch, loss_fn: Loss) -> dict[str, Tensor]:
    """Columns (runs, layers) by one mapped pass; the gradient at a layer's output is that of a zero that is added to it."""
    single, x, samples = runs.template, batch.inputs, batch.samples
    known = dict(single.named_modules())
    rows = {i: known[layer.name] for i, layer in enumerate(layers) if layer.name in known and layer.depth is not None}
    names = [name for tensors in (single.named_parameters(), single.named_buffers()) for name, _ in tensors]
    held = {**dict(runs.module.named_parameters()), **dict(runs.module.named_buffers())}
    state = {name: held[name].detach().clone() for name in names}

    def one(added: dict[int, Tensor], own: dict[str, Tensor]) -> tuple[Tensor, dict[int, Tensor]]:
        with _seen({i: rows[i] for i in added}, added) as found:
            loss = loss_fn(functional_call(single, own, (x,)), batch.targets)
        return loss, {i: _of_output(z, layers[i], samples) for i, z in found.items()}

    with untouched(single, seed=0):
        single.train()
        with torch.no_grad(), _seen(rows, {}) as outputs:
            single(x)
        zeros = {i: z.new_zeros(runs.count, *z.shape) for i, z in outputs.items()}
        slopes, stats = vmap(grad(one, has_aux=True), randomness="different")(zeros, state)
    columns = torch.full((len(_COLUMNS), runs.count, len(layers)), torch.nan, device=runs.device)
    for i, slope in slopes.items():
        columns[:3, :, i] = stats[i].mT
        columns[3:, :, i] = vmap(lambda g: _of_slope(g, samples))(slope).mT
    return dict(zip(_COLUMNS, columns, strict=True))


@contextmanager
def _seen(rows: dict[int, nn.Module], added: dict[int, Tensor]) -> Iterator[dict[int, Tensor]]:
    """Collects each row's first output, after adding what is to be added to it."""
    outputs: dict[int, Tensor] = {}

    def hook(row: int) -> Any:
        def keep(module: nn.Module, inputs: Any, output: Any) -> Any:
            if row in outputs or not isinstance(output, Tensor):
                return None
            outputs[row] = output
            return output + added[row] if row in added else None

        return keep

    hooks = [module.register_forward_hook(hook(row)) for row, module in rows.items()]
    try:
        yield outputs
    finally:
        for one in hooks:
            one.remove()


def _of_output(z: Tensor, layer: Layer, samples: int) -> Tensor:
    """Spread across samples, largest magnitude, and share of units that the rectifier right behind cuts off for all samples."""
    _, _, largest, spread = output_stats(z, samples)
    dead = torch.full_like(largest, torch.nan)
    if layer.activation in CUT_OFF and layer.norm == "none":
        units = 1 if layer.kind == "conv" else -1
        dead = (z.movedim(units, 0).flatten(1) <= 0).all(1).to(largest.dtype).mean()
    return torch.stack((spread, torch.nan_to_num(largest, nan=torch.inf), dead))


def _of_slope(g: Tensor, samples: int) -> Tensor:
    norms, largest = sample_norms(g, samples)
    return torch.stack((norms.mean(), largest))
