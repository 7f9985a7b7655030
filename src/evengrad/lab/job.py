"""One training as plain data, and what it came to."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

import numpy.typing as npt
from torch import nn

from evengrad.errors import InputError
from evengrad.lab import data as sources
from evengrad.lab.engine.optimizers import Optimizer
from evengrad.lab.engine.plan import CONSTANT, Clip, Schedule
from evengrad.lab.models.base import Net

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Data:
    """Which samples a job trains on and is judged by.

    Attributes:
        name: A name that `evengrad.lab.data.load` knows, or the path of a CSV or NPZ file.
        options: Its options, as pairs.
        samples: Train on this many samples only, drawn by the job's seed, stratified; None for all.
        validation: Share of the training samples that is held out, drawn by the job's seed, stratified, in [0, 1).
        fold: (i, k): hold out the i-th of k folds instead.
    """

    name: str
    options: tuple[tuple[str, Any], ...] = ()
    samples: int | None = None
    validation: float = 0.0
    fold: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.validation < 1:
            raise InputError(f"validation is the share of training samples held out, in [0, 1); got {self.validation}")
        if self.fold is not None and (self.validation or not 0 <= self.fold[0] < self.fold[1]):
            raise InputError(f"fold is (i, k) with 0 <= i < k, and takes the place of validation; got {self.fold} with {self.validation}")

    def split(self) -> sources.Split:
        """Loads the data set; the last few are remembered."""
        return _loaded(self.name, self.options)

    def parts(self, split: sources.Split, seed: int) -> tuple[Array | None, Array | None]:
        """Returns the places of this seed's training and validation samples, None for all and for none."""
        y = split.y_train.numpy()
        places = None if self.samples is None else sources.few_index(y, self.samples, seed)
        if self.fold is None and not self.validation:
            return places, None
        among = y if places is None else y[places]
        if self.fold is not None:
            train, held = sources.fold_index(among, self.fold[1], self.fold[0], seed)
        else:
            train, held = sources.hold_out_index(among, self.validation, seed)
        return (train, held) if places is None else (places[train], places[held])


@lru_cache(maxsize=4)
def _loaded(name: str, options: tuple[tuple[str, Any], ...]) -> sources.Split:
    return sources.load(name, **dict(options))


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training, as plain data: what it comes to depends on this, and (by rounding) on its place in the chunk it is trained in.

    Attributes:
        net: The network.
        data: The samples.
        optimizer: How weights follow gradients.
        seed: Seed of the weights, the order of samples, dropout, and which samples are drawn.
        loss: `auto`, `bce`, `cross_entropy` or `mse`; auto goes by the targets and outputs.
        epochs: Passes over the training samples.
        batch_size: Samples a step.
        clip: Gradient clipping, or None.
        schedule: The learning rate over the training.
        l1: Weight of the sum of magnitudes of all weights.
        patience: Evaluations without a better validation loss before a run has stopped; its best weights are restored. None: never.
        target: Accuracy whose first evaluation is returned as `steps_to_target`; None for none.
        evaluate_every: Epochs between evaluations on validation samples (on test samples where there are none); 0 for none.
        evaluate_steps: Steps between them, in place of epochs, where above 0.
        evaluate_samples: Evaluate on the first so many samples of a set only, but for the test set at the end; None for all.
        record: Epochs between records of gradients by layer; 0 for none.
        record_steps: Steps between them, in place of epochs, where above 0.
        signals: Record forward spread, gradient by sample, zero and dead shares too.
        boundary: Epochs after which the decision over the plane is kept (two-dimensional inputs only).
    """

    net: Net
    data: Data
    optimizer: Optimizer
    seed: int = 0
    loss: str = "auto"
    epochs: int = 10
    batch_size: int = 32
    clip: Clip | None = None
    schedule: Schedule = CONSTANT
    l1: float = 0.0
    patience: int | None = None
    target: float | None = None
    evaluate_every: int = 1
    evaluate_steps: int = 0
    evaluate_samples: int | None = None
    record: int = 1
    record_steps: int = 0
    signals: bool = False
    boundary: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if (value := getattr(self, name)) < 1:
                raise InputError(f"a job's {name} must be at least 1; got {value}")
        if self.evaluate_samples is not None and self.evaluate_samples < 1:
            raise InputError(f"a job's evaluate_samples must be at least 1, or None for all; got {self.evaluate_samples}")
        if self.patience is not None and not (self.data.validation or self.data.fold):
            raise InputError("early stopping (patience) needs validation samples: give Data a validation share or a fold")

    def describe(self) -> dict[str, Any]:
        """Returns everything as JSON values."""
        plain = {f: getattr(self, f) for f in self.__dataclass_fields__ if f not in {"net", "optimizer", "data", "clip", "schedule"}}
        parts = {"data": asdict(self.data), "clip": self.clip and asdict(self.clip), "schedule": asdict(self.schedule)}
        return {"net": self.net.describe(), "optimizer": self.optimizer.describe(), **parts, **plain}

    def shape(self) -> Hashable:
        """Returns what must be equal for jobs that are trained as one."""
        data = replace(self.data, fold=None if self.data.fold is None else (0, self.data.fold[1]))
        same = (
            "loss",
            "epochs",
            "batch_size",
            "schedule",
            "patience",
            "evaluate_every",
            "evaluate_steps",
            "evaluate_samples",
            "record",
            "record_steps",
            "signals",
        )
        kind = self.clip and self.clip.kind
        return (self.net.shape(), data, self.optimizer.shape(), kind, bool(self.l1), *(getattr(self, name) for name in same))


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What one job came to.

    Attributes:
        job: The job.
        values: train_loss, test_loss, train_accuracy, test_accuracy, val_...; `diverged` (0 or 1), `stopped_at` (step of the weights),
            `steps_to_target`. NaN where it does not apply; a diverged run has an accuracy of 0 and an infinite loss.
        series: `steps` (E,) and beside it loss, accuracy (means over the steps since the last evaluation), val_loss, val_accuracy or
            test_loss, test_accuracy; `record_steps` (R,) and beside it a column (R, L) for each statistic of the layers; `boundary`.
        layers: Names of the rows of these columns (L).
        network: The trained network, on the CPU, if `keep` asked for it.
    """

    job: Job
    values: dict[str, float]
    series: dict[str, Array]
    layers: tuple[str, ...]
    network: nn.Module | None = None
