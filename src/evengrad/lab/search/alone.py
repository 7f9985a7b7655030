"""A training that cannot share a network -> trained by itself, and stopped by the same policies."""

from __future__ import annotations

import math
from typing import Any

import torch

from evengrad.batches import batches_of
from evengrad.lab.search.watch import COMPLETE, DIVERGED, HEALTH, LOSS, End, Watch
from evengrad.recording import trace_of
from evengrad.rig import Rig
from evengrad.trace.batch import Batch
from evengrad.training import Experiment, evaluate, train

_COLUMNS = frozenset({"out_spread", "out_abs_max", "dead_fraction", "grad_out_norm", "grad_out_abs_max"})


def train_alone(experiment: Experiment, seed: int, watch: Watch, per_epoch: int) -> End:
    """Trains an experiment, of so many steps an epoch, by `eg.train` and returns how that ended."""
    look = _Looking(experiment, watch, per_epoch)
    try:
        result = train(experiment, seed=seed, watcher=look)
    except _StoppedError as stopped:
        return stopped.end
    steps = len(result.losses)
    if math.isfinite(result.metric):
        return End(COMPLETE, steps, result.metric, rungs=look.rungs)
    return End(DIVERGED, steps, reason=f"the loss was not finite at step {steps - 1}", rungs=look.rungs)


class _StoppedError(Exception):
    def __init__(self, end: End) -> None:
        super().__init__(end.reason)
        self.end = end


class _Looking:
    """A watcher that raises `_StoppedError` where a policy says so."""

    def __init__(self, experiment: Experiment, watch: Watch, per_epoch: int) -> None:
        self._experiment, self._watch, self._per_epoch = experiment, watch, per_epoch
        self._patient = watch.patient()
        self.rungs: dict[int, float] = {}

    def before(self, rig: Rig, batch: Batch) -> None:
        if rig.step in self._watch.looks:
            why = self._patient.look(trace_of(rig, batch, columns=_COLUMNS, facts=False), rig.step)
            if why:
                raise _StoppedError(End(HEALTH, rig.step, reason=why, rungs=self.rungs))

    def after(self, rig: Rig, batch: Batch, loss: torch.Tensor) -> None:
        epoch, left = divmod(rig.step, self._per_epoch)
        if left or epoch not in self._watch.rungs:
            return
        self.rungs[epoch] = evaluate(self._experiment, rig)
        (why,) = self._watch.behind(epoch, [self.rungs[epoch]])
        if why:
            raise _StoppedError(End(LOSS, rig.step, reason=why, rungs=self.rungs))


def steps_an_epoch(data: Any, batch_size: int) -> int:
    """Returns how many batches an epoch has; a function, or a stream, is run once to count them."""
    first = data[0] if isinstance(data, (tuple, list)) else data
    if hasattr(first, "__len__") and not callable(first):
        return math.ceil(len(first) / batch_size)
    with torch.random.fork_rng():
        return sum(1 for _ in batches_of(data, batch_size, 0)(0))
