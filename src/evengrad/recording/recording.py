"""The steps of a training, as they are taken -> Trace."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from evengrad.recording.checkpoints import Checkpoints, right_share
from evengrad.recording.loop import Loop
from evengrad.recording.one_pass import facts_of, run_of
from evengrad.recording.rewind import Rewind, Snapshot
from evengrad.recording.sequences import Sequences
from evengrad.recording.stepping import Accumulation, Step
from evengrad.rig import Rig
from evengrad.trace import facts as evidence
from evengrad.trace.again import descent, noise_share, unowned
from evengrad.trace.batch import Batch
from evengrad.trace.neighbours import Samples
from evengrad.trace.recorder import Measurement, measure
from evengrad.trace.structure import Structure
from evengrad.types import Curve, Facts, Floats, Run, Series, Trace

_CONSUMED = {f"grad_{x}": f"grad_raw_{x}" for x in ("norm", "mean", "abs_mean", "abs_max")}


class Recording:
    """A `Watcher` that measures sampled steps of a training: a pass before the step, the true update after it.

    Args:
        name: What the run is called.
        dense: Number of steps at the beginning that are all measured.
        growth: From there, each measured step is this many times as late as the one before; None fits it to the planned steps.
        loop: What is known of the training, for `Facts.loop`; its `steps` space the evaluations. None is a short replay: no
            evaluations, no sample of the targets, no snapshots.
        validation: Epoch number -> batches of validation data, or None.
    """

    def __init__(
        self,
        *,
        name: str = "",
        dense: int = 4,
        growth: float | None = None,
        loop: dict[str, Any] | None = None,
        validation: Callable[[int], Iterator[Batch]] | None = None,
    ) -> None:
        self._name, self._dense = name, dense
        self._growth = growth or _growth(dense, (loop or {}).get("steps"))
        self._loop = loop
        self._checkpoints = None if loop is None else Checkpoints(loop.get("steps"), validation)
        self._next = 0
        self._steps: list[int] = []
        self._columns: list[dict[str, Floats]] = []
        self._rates: list[float] = []
        self._accuracy: list[tuple[int, float]] = []
        self._first: tuple[Run, Facts, Structure] | None = None
        self._modules: evidence.Modules | None = None
        self._samples = None if loop is None else Samples()
        self._accumulation = Accumulation(dense)
        self._step: Step | None = None
        self._standard: list[torch.Tensor | None] = []
        self._sequences = Sequences()
        self._rewind = None if loop is None else Rewind()
        self._own = Loop() if loop is not None and not loop.get("standard", True) else None

    def before(self, rig: Rig, batch: Batch) -> None:
        """Measures the step about to be taken, if it is one of the sample."""
        rate = None if rig.optimizer is None else evidence.rate_of(rig.optimizer)
        self._rates.append(math.nan if rate is None else float(rate))
        if self._samples is not None:
            self._samples.add(batch)
        if self._checkpoints is not None:
            self._checkpoints.see(rig, batch)
        if self._rewind is not None:
            self._rewind.before(rig, batch)
        if rig.step == self._next:
            self._measure(rig, batch)
        if self._own is not None:
            self._own.enter(rig)

    def _measure(self, rig: Rig, batch: Batch) -> None:
        if self._first is None:
            self._modules = evidence.Modules(rig.model)
            with self._modules.seen():
                found = measure(rig.model, batch, rig.loss_fn, seed=rig.seed)
            facts = facts_of(rig, batch, found, self._modules)
            if self._loop is not None:
                facts = _asked_again(rig, batch, found, facts)
            self._first = (run_of(rig, batch, self._name), facts, found.structure)
        else:
            found = measure(rig.model, batch, rig.loss_fn, seed=rig.seed, known=self._first[2])
        if found.structure.layers != self._first[2].layers:  # data-dependent control flow took another way
            self._plan_next(rig.step)
            return
        parameters = dict(rig.model.named_parameters(remove_duplicate=True))
        self._standard = [found.gradients.get(layer.weight) for layer in found.structure.layers]
        self._step = Step(
            [parameters[layer.weight] for layer in found.structure.layers], self._standard, rig.optimizer, own=self._own is not None
        )
        self._steps.append(rig.step)
        self._columns.append({_CONSUMED.get(k, k): v for k, v in found.columns.items()})
        if self._loop is not None:
            self._columns[-1] |= self._sequences.see(rig, batch, self._first[2].layers)
        share = right_share(found.output, batch.targets)
        if share is not None:
            self._accuracy.append((rig.step, share))

    @property
    def snapshot(self) -> Snapshot | None:
        """The state shortly before the loss jumped, and the batches since; None if it did not."""
        return None if self._rewind is None else self._rewind.kept

    def after(self, rig: Rig, batch: Batch, loss: torch.Tensor) -> None:
        """Adds what the step did: the gradients that the optimizer consumed, and the true change of the weights."""
        if self._own is not None:
            self._own.leave()
        if self._rewind is not None:
            self._rewind.after(rig, loss)
        if self._modules is not None and self._first is not None:
            run, facts, structure = self._first
            self._first, self._modules = (run, replace(facts, modules=(facts.modules or {}) | self._modules.facts()), structure), None
        if self._step is None:
            return
        self._columns[-1] |= self._step.columns()
        assert self._step.used is not None  # columns looked
        held = set() if rig.optimizer is None else {id(p) for group in rig.optimizer.param_groups for p in group["params"]}
        used = [g if id(w) in held else None for w, g in zip(self._step.weights, self._step.used, strict=True)]
        self._accumulation.see(self._standard, used)  # what the optimizer does not have, its zero_grad leaves alone
        self._step, self._standard = None, []
        self._plan_next(rig.step - 1)

    def _plan_next(self, step: int) -> None:
        """Every step at first, then ever wider."""
        self._next = step + 1 if step < self._dense else max(step + 1, int(step * self._growth))

    def trace(self, losses: Series, *, seconds: float = 0.0) -> Trace:
        """Returns what was recorded."""
        assert self._first is not None  # training takes at least one step
        if self._own is not None:
            self._own.close()
        run, facts, structure = self._first
        layers, names = structure.layers, self._columns[0].keys() | self._columns[-1].keys()
        unseen = np.full((1, len(layers)), np.nan, np.float32)
        curves = {"loss": Curve(np.arange(len(losses), dtype=np.int64), losses)}
        if not np.isnan(self._rates).all():
            curves["lr"] = Curve(np.arange(len(self._rates), dtype=np.int64), np.array(self._rates))
        points = {} if self._checkpoints is None else dict(self._checkpoints.values)
        for name, seen in (points | ({"accuracy": self._accuracy} if self._accuracy else {})).items():
            curves[name] = Curve(np.array([s for s, _ in seen], np.int64), np.array([v for _, v in seen], np.float64))
        return Trace(
            run=replace(run, seconds=seconds, verb="diagnose"),
            layers=layers,
            facts=self._facts(facts),
            steps=np.array(self._steps, np.int64),
            columns={name: np.concatenate([c.get(name, unseen) for c in self._columns]) for name in sorted(names)},
            curves=curves,
            planes=self._sequences.planes(len(self._steps), len(layers)),
        )

    def _facts(self, facts: Facts) -> Facts:
        """The first pass's facts, with targets from more than its batch, and with what the steps showed of the loop."""
        targets = facts.targets if facts.targets is None or self._samples is None else facts.targets | self._samples.facts()
        accumulated = self._accumulation.value
        seen = {} if accumulated is None else {"accumulated": accumulated}
        seen |= {} if self._own is None else self._own.facts()
        return replace(facts, targets=targets, loop=(self._loop or {}) | seen)


def _asked_again(rig: Rig, batch: Batch, found: Measurement, facts: Facts) -> Facts:
    """Adds what more passes of the first batch tell: noise, and whether the gradient points where the loss grows."""
    noise = noise_share(rig.model, batch, seed=rig.seed)
    falls = descent(rig.model, batch, rig.loss_fn, found.structure, found.gradients, seed=rig.seed)
    outside = unowned(rig.model, batch, rig.loss_fn, rig.optimizer, seed=rig.seed)
    optimizer = facts.optimizer if not outside or facts.optimizer is None else facts.optimizer | {"unowned": outside}
    head = facts.head if noise is None or facts.head is None else facts.head | {"noise": noise}
    loss = facts.loss if falls is None or facts.loss is None else facts.loss | {"descent": falls}
    return replace(facts, head=head, loss=loss, optimizer=optimizer)


def _growth(dense: int, steps: int | None) -> float:
    """What spaces six and a hundredth of the planned steps out to the last: a look costs up to ten steps of a small network."""
    if steps is None or steps <= dense:
        return 1.2
    return float((steps / dense) ** (1 / max(1, 6 + steps // 100 - dense)))
