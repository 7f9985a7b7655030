"""A rig and its batches -> Trace: one measured pass, or the sampled steps of a whole training."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from evengrad.rig import Rig
from evengrad.trace import facts as evidence
from evengrad.trace.batch import Batch
from evengrad.trace.recorder import COLUMNS, Measurement, measure, stored
from evengrad.trace.stats import tensor_stats
from evengrad.types import Curve, Facts, Floats, Run, Series, Trace

_CONSUMED = {f"grad_{x}": f"grad_raw_{x}" for x in ("norm", "mean", "abs_mean", "abs_max")}


def trace_of(rig: Rig, batch: Batch, *, columns: frozenset[str] = COLUMNS, facts: bool = True, name: str = "") -> Trace:
    """Measures one pass and returns it as a trace of one step; fewer columns, or no facts, cost less."""
    found = measure(rig.model, batch, rig.loss_fn, columns=columns, seed=rig.seed)
    return Trace(
        run=_run(rig, batch, name),
        layers=found.structure.layers,
        facts=_facts(rig, batch, found) if facts else Facts(mode="train"),
        steps=np.zeros(1, np.int64),
        columns=found.columns,
    )


class Recording:
    """A `Watcher` that measures sampled steps of a training: a pass before the step, the true update after it."""

    def __init__(self, *, name: str = "", dense: int = 20, growth: float = 1.08) -> None:
        self._name, self._dense, self._growth = name, dense, growth
        self._next = 0
        self._steps: list[int] = []
        self._columns: list[dict[str, Floats]] = []
        self._first: tuple[Run, Facts, Measurement] | None = None
        self._before: list[Tensor] = []
        self._weights: list[torch.nn.Parameter] = []

    def before(self, rig: Rig, batch: Batch) -> None:
        """Measures the step about to be taken, if it is one of the sample."""
        if rig.step != self._next:
            return
        found = measure(rig.model, batch, rig.loss_fn, seed=rig.seed)
        if self._first is None:
            self._first = (_run(rig, batch, self._name), _facts(rig, batch, found), found)
        if found.structure.layers != self._first[2].structure.layers:  # data-dependent control flow took another way
            self._plan_next(rig.step)
            return
        parameters = dict(rig.model.named_parameters(remove_duplicate=True))
        self._weights = [parameters[layer.weight] for layer in found.structure.layers]
        self._before = [w.detach().clone() for w in self._weights]
        self._steps.append(rig.step)
        self._columns.append({_CONSUMED.get(k, k): v for k, v in found.columns.items()})

    def after(self, rig: Rig, batch: Batch) -> None:
        """Adds what the step did: the gradients that the optimizer consumed, and the true change of the weights."""
        if not self._before:
            return
        with torch.no_grad():
            moved = tensor_stats([w.detach() - old for w, old in zip(self._weights, self._before, strict=True)])
            grads = tensor_stats([torch.zeros(()) if w.grad is None else w.grad for w in self._weights])
            rows = [torch.cat((m, g.to(m.device))) for m, g in zip(moved, grads, strict=True)]
            host = torch.cat(rows).cpu().double().numpy().reshape(len(rows), -1)  # (L, 8)
        frozen = [w.grad is None for w in self._weights]
        names = ("update_norm", None, None, "update_abs_max", "grad_norm", "grad_mean", "grad_abs_mean", "grad_abs_max")
        for k, name in enumerate(names):
            if name:
                kept = [math.nan if gone and k >= 4 else stored(float(v), name) for v, gone in zip(host[:, k], frozen, strict=True)]
                self._columns[-1][name] = np.array([kept], np.float32)
        self._before = []
        self._plan_next(rig.step - 1)

    def _plan_next(self, step: int) -> None:
        """Every step at first, then spaced geometrically: at least 60 of the first 1,000."""
        self._next = step + 1 if step < self._dense else max(step + 1, int(step * self._growth))

    def trace(self, losses: Series, *, seconds: float = 0.0) -> Trace:
        """Returns what was recorded."""
        assert self._first is not None  # training takes at least one step
        run, found_facts, found = self._first
        names = self._columns[0].keys() | self._columns[-1].keys()
        unseen = np.full((1, len(found.structure.layers)), np.nan, np.float32)
        columns = {name: np.concatenate([c.get(name, unseen) for c in self._columns]) for name in sorted(names)}
        curves = {"loss": Curve(np.arange(len(losses), dtype=np.int64), losses)}
        return Trace(
            run=replace(run, seconds=seconds, verb="diagnose"),
            layers=found.structure.layers,
            facts=found_facts,
            steps=np.array(self._steps, np.int64),
            columns=columns,
            curves=curves,
        )


def _run(rig: Rig, batch: Batch, name: str) -> Run:
    return Run(
        name=name or type(rig.model).__name__,
        model=type(rig.model).__name__,
        parameters=sum(p.numel() for p in rig.model.parameters() if p.requires_grad),
        samples=batch.samples,
        seed=rig.seed,
        device=str(rig.device),
    )


def _facts(rig: Rig, batch: Batch, found: Measurement) -> Facts:
    return Facts(
        inputs=evidence.input_facts(batch, rig.model, found.structure),
        targets=evidence.target_facts(batch),
        head=evidence.head_facts(found.structure, found.output),
        loss=evidence.loss_facts(rig.loss_fn, found.loss),
        optimizer=evidence.optimizer_facts(rig.optimizer, rig.model),
        mode="train",
        edges=found.structure.edges,
    )
