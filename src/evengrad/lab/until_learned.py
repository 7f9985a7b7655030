"""runs in training on sequences -> when each has learned, and its loss and its gradient through time then."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from evengrad.lab.data import Split
from evengrad.lab.engine.evaluate import evaluate
from evengrad.lab.engine.losses import RunsLoss
from evengrad.lab.engine.plan import Samples
from evengrad.lab.engine.runs import Runs
from evengrad.lab.through_time import through_time

Array = npt.NDArray[Any]
_GRADED = 32  # sequences whose gradient is looked at


class UntilLearned:
    """A probe of `fit`: each epoch has sequences of its own, and a run's end is where it has learned, whatever the others do.

    Args:
        data: Sequences; epochs go through those to train on, part by part.
        loss: The loss.
        runs: Number of runs.
        part: Sequences of an epoch.
        goal: Name of a test value (`loss` or `accuracy`) and what it has to reach.

    Attributes:
        samples: What to train on; every epoch is another part of the data.
        epochs: After how many epochs each run's end is, NaN before.
        learned: Whether it had learned then (runs,).
    """

    def __init__(self, data: Split, loss: RunsLoss, runs: int, *, part: int, goal: tuple[str, float]) -> None:
        self._data, self._loss, self._goal = data, loss, goal
        self._parts = torch.arange(len(data.x_train) // part * part).view(-1, part)
        self.samples = Samples(x=data.x_train, y=data.y_train, index=self._parts[:1].repeat(runs, 1))
        self.learned = np.zeros(runs, bool)
        self.epochs = np.zeros(runs)
        self._curves: list[dict[str, Array]] = []
        self._series: list[dict[str, Array]] = [{} for _ in range(runs)]

    def __call__(self, runs: Runs, epoch: int, step: int) -> bool:
        """Looks at the test sequences, notes who has learned, and moves on; True once all have."""
        test = Samples(x=self._data.x_test, y=self._data.y_test)
        seen = {name: v.double().cpu().numpy() for name, v in evaluate(runs, test, self._loss).items()}
        self._curves.append(seen)
        if epoch == 0:
            self._note(runs, "start", np.ones(runs.count, bool))
        name, goal = self._goal
        reached = seen[name] <= goal if name == "loss" else seen[name] >= goal
        new = reached & ~self.learned
        self.epochs[~self.learned] = epoch
        self.learned |= new
        self._note(runs, "end", new)
        if self.samples.index is not None:
            self.samples.index.copy_(self._parts[epoch % len(self._parts)].expand_as(self.samples.index))
        return bool(self.learned.all())

    def finish(self, runs: Runs) -> None:
        """Notes the ends of those that have not learned."""
        self._note(runs, "end", ~self.learned)

    def end(self, k: int) -> tuple[dict[str, float], dict[str, Array]]:
        """Returns values and series of a run, up to its end: `loss` and `accuracy` at each epoch, and its gradients through time."""
        last = int(self.epochs[k])
        curves = {name: np.array([seen[name][k] for seen in self._curves[: last + 1]]) for name in self._curves[0]}
        ends = {f"test_{name}": float(values[-1]) for name, values in curves.items()}
        return {"learned": float(self.learned[k]), **ends}, {**curves, **self._series[k]}

    def _note(self, runs: Runs, when: str, which: Array) -> None:
        if not which.any():
            return
        sizes, zeros = through_time(runs, self._data.x_test[:_GRADED], self._data.y_test[:_GRADED], self._loss)
        for k in np.flatnonzero(which):
            self._series[k] |= {f"gradient_{when}": sizes[k], f"zeros_{when}": zeros[k]}
