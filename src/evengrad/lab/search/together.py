"""Trainings of one shape -> trained as one network, which grows smaller as runs are stopped."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from evengrad.errors import InputError
from evengrad.lab.engine.runs import Runs
from evengrad.lab.models.hashing import set_step
from evengrad.lab.search.descent import Descent
from evengrad.lab.search.health import traces
from evengrad.lab.search.joining import CannotJoinError, Joined, loss_of
from evengrad.lab.search.measure import metrics
from evengrad.lab.search.watch import COMPLETE, DIVERGED, HEALTH, LOSS, End, Tell, Watch
from evengrad.trace.batch import Batch
from evengrad.trace.isolation import untouched
from evengrad.training import Experiment
from evengrad.types import Layer, Trace

_NOT_MAPPED = (InputError, RuntimeError, ValueError, TypeError, AttributeError)  # what torch.func raises where it cannot follow


class Together:
    """Trains runs that have one seed, so one order of samples, and differ in weights and numbers.

    Args:
        experiment: What they have in common: data, loss, metric, epochs, batch size.
        joined: The runs.
        layers: The rows of one of them.
        batch: A first batch.

    Raises:
        CannotJoinError: if the networks, or the loss, cannot be run as one.
    """

    def __init__(self, experiment: Experiment, joined: Sequence[Joined], layers: Sequence[Layer], batch: Batch) -> None:
        self._experiment, self._layers, self._rig = experiment, layers, joined[0].rig
        self._places = list(range(len(joined)))
        self._rungs: list[dict[int, float]] = [{} for _ in joined]
        self._descent = Descent([j.optimizer for j in joined], [j.clips for j in joined])
        try:
            self._runs = Runs([j.rig.model for j in joined])
            self._runs.module.train()
            with untouched(self._runs.module, seed=0), torch.no_grad():
                outputs = self._runs.module(self._spread(batch.inputs))
                if not isinstance(outputs, Tensor):
                    raise CannotJoinError("answers with something else than one tensor")
                self._loss = loss_of(experiment.loss_fn, outputs[0], batch.targets, known=isinstance(experiment.data, (tuple, list)))
                self._loss.slope(outputs, self._spread(batch.targets))
        except _NOT_MAPPED as error:
            raise CannotJoinError(f"cannot be run as several networks at once ({_short(error)})") from error
        self.unseen = ""

    def train(self, watch: Watch, tell: Tell, *, spared: Collection[int] = ()) -> None:
        """Trains all runs to their end; `tell` hears of each, by its place, as soon as it has one.

        Args:
            watch: Says who is stopped.
            tell: `tell(place, end)`.
            spared: Places that no policy stops.
        """
        patients = [watch.patient() for _ in self._places]
        step = 0
        with torch.random.fork_rng():
            torch.manual_seed(self._rig.seed + 1)  # as `train` does
            self._runs.module.train()
            for epoch in range(1, self._experiment.epochs + 1):
                for batch in self._rig.batches(epoch - 1):
                    if step in watch.looks and not self.unseen:
                        sick = [patients[self._places[k]].look(t, step) for k, t in enumerate(self._traces(batch, step))]
                        self._stop(self._ends(HEALTH, step, sick, spared), tell)
                        if not self._places:
                            return
                    last = self._step(batch, step)
                    step += 1
                lost = np.flatnonzero(~self._loss.mean(*last).isfinite().cpu().numpy())
                self._stop({int(k): End(DIVERGED, step, reason=f"the loss was not finite at step {step - 1}") for k in lost}, tell)
                if epoch in watch.rungs and self._places:
                    self._stop(self._ends(LOSS, step, self._compared(watch, epoch), spared), tell)
                if not self._places:
                    return
            self._stop({k: _ended(float(m), step) for k, m in enumerate(metrics(self._experiment, self._runs))}, tell)

    def _step(self, batch: Batch, step: int) -> tuple[Tensor, Tensor]:
        """Takes one step; returns outputs and targets (runs, batch, ...)."""
        x, y = self._spread(batch.inputs), self._spread(batch.targets)
        set_step(self._runs.module, torch.full((self._runs.count,), self._rig.seed, device=self._runs.device), step)
        outputs = self._runs.gradients(x, y, self._loss)
        self._descent.step(self._runs)
        return outputs, y

    def _traces(self, batch: Batch, step: int) -> list[Trace]:
        try:
            return traces(self._runs, self._layers, batch, self._experiment.loss_fn, step)
        except _NOT_MAPPED as error:
            self.unseen = f"gradients by layer could not be seen, so health stopped nobody ({_short(error)})"
            return []

    def _compared(self, watch: Watch, epoch: int) -> list[str | None]:
        found = [float(m) for m in metrics(self._experiment, self._runs)]
        for place, metric in zip(self._places, found, strict=True):
            self._rungs[place][epoch] = metric
        return watch.behind(epoch, found)

    def _ends(self, how: str, step: int, reasons: Sequence[str | None], spared: Collection[int]) -> dict[int, End]:
        return {k: End(how, step, reason=why) for k, why in enumerate(reasons) if why and self._places[k] not in spared}

    def _stop(self, ends: Mapping[int, End], tell: Tell) -> None:
        """Lets go of the runs at these places among those that are left."""
        if not ends:
            return
        for k, end in ends.items():
            place = self._places[k]
            tell(place, End(end.how, end.steps, end.metric, end.reason, self._rungs[place]))
        kept = [k for k in range(len(self._places)) if k not in ends]
        self._places = [self._places[k] for k in kept]
        if kept:
            self._runs = self._runs.take(kept)
            self._descent.keep(kept)

    def _spread(self, tensor: Tensor) -> Tensor:
        return tensor.expand(self._runs.count, *tensor.shape)


def _short(error: BaseException) -> str:
    """What torch said, without advice that is for callers of the engine."""
    return str(error.__cause__ or error).splitlines()[0].rstrip(".")


def _ended(metric: float, steps: int) -> End:
    if np.isfinite(metric):
        return End(COMPLETE, steps, metric)
    return End(DIVERGED, steps, reason="the metric of the trained network is not finite")
