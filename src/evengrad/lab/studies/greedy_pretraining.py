"""S12: deep networks grown layer by layer, then fine-tuned, against the same networks trained all at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from evengrad.errors import InputError, unknown
from evengrad.lab import figures
from evengrad.lab.data import load
from evengrad.lab.engine.optimizers import SGD
from evengrad.lab.models import MLP
from evengrad.lab.pretraining import Pretraining
from evengrad.lab.published import verdict
from evengrad.lab.study import Arm, Cell, Floats, Published, Row, Rows, Study, canonical, quantile
from evengrad.report.numbers import number, plural

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]
SOURCE = "Brownlee 2019, How to Develop Deep Learning Neural Networks With Greedy Layer-Wise Pretraining"
TUTORIAL = "relu he_uniform"
TASKS = ("digits", "blobs")
PROCEDURES = {"at once": Pretraining.at_once, "supervised": Pretraining.supervised, "autoencoder": Pretraining.autoencoder}
GROWN = ("supervised", "autoencoder")
HELPS = 0.01  # a gain in accuracy that is called help


@dataclass(frozen=True, kw_only=True)
class GreedyPretraining(Study):
    """Eight layers on scikit-learn's digits, eleven on the tutorial's blobs, three ways of training, equal numbers of steps.

    `at once` trains all layers together. `supervised` adds a layer at a time, trains it and the head while those below rest, then trains
    all. `autoencoder` does so with a decoder to the network's inputs in place of the head; a classifier trained on top of each stage shows
    what it is worth, and a new head is trained together with all layers. Layers start from the same weights each way
    (`evengrad.lab.pretraining`). On digits every network is trained at each of a few learning rates, and judged by the one of the best
    training accuracy.

    About 3 minutes on one core.

    Attributes:
        task: `digits`, and `blobs` for the tutorial's data and sizes (10 units, rate 0.01).
        network: Networks on digits as `activation initialiser`; blobs have the tutorial's, `relu he_uniform`.
        procedure: Ways to train.
        depth: Hidden layers on digits.
        width: Units of each.
        lr: Learning rates to choose from.
        momentum: Momentum.
        epochs: Passes over the data for each layer on digits.
        tuning: Passes with all layers at the end.
        tutorial_depth: Hidden layers on blobs.
        tutorial_epochs: Passes for each layer, and for the fine-tuning.
        batch_size: Samples a step.
    """

    name: ClassVar[str] = "greedy-pretraining"
    number: ClassVar[str] = "S12"
    question: ClassVar[str] = "Does growing a deep network layer by layer before fine-tuning still help, given a good initialiser?"
    shown: ClassVar[tuple[str, ...]] = ("test_after_1", "test_after_6", "test_after_11", "train_accuracy", "test_accuracy")
    published: ClassVar[tuple[Published, ...]] = tuple(
        Published(arm={"task": "blobs", "procedure": procedure}, value=f"test_after_{layers}", number=accuracy, source=SOURCE)
        for procedure, layers, accuracy in (
            ("supervised", 1, 0.830),
            ("supervised", 6, 0.826),
            ("supervised", 11, 0.826),
            ("autoencoder", 1, 0.832),
            ("autoencoder", 6, 0.760),
        )
    )

    task: tuple[str, ...] = TASKS
    network: tuple[str, ...] = (
        *("relu he_normal", "relu default", "tanh glorot_normal", "tanh default"),
        *("sigmoid glorot_normal", "sigmoid default"),
    )
    procedure: tuple[str, ...] = tuple(PROCEDURES)
    depth: int = 8
    width: int = 32
    lr: tuple[float, ...] = (0.1, 0.01)
    momentum: float = 0.9
    epochs: int = 5
    tuning: int = 15
    tutorial_depth: int = 11
    tutorial_epochs: int = 100
    batch_size: int = 32
    seeds: int = 12

    @classmethod
    def quick(cls) -> Self:
        """One network on digits and blobs, two layers, two seeds."""
        return cls(network=("sigmoid default",), depth=2, width=16, epochs=1, tuning=1, tutorial_epochs=1, seeds=2)

    def __post_init__(self) -> None:
        for kind, names, known in (("task", self.task, TASKS), ("procedure", self.procedure, PROCEDURES)):
            for name in names:
                if name not in known:
                    raise unknown(kind, name, known)

    def arms(self) -> Sequence[Arm]:
        """Each network and procedure on each task."""
        return [
            {"task": task, "network": network, "procedure": procedure}
            for task in self.task
            for network in ((TUTORIAL,) if task == "blobs" else self.network)
            for procedure in self.procedure
        ]

    def groups(self, cells: Sequence[Cell]) -> list[list[Cell]]:
        """All seeds of an arm as one."""
        return [list(own) for _, own in groupby(cells, key=lambda cell: canonical(cell.arm))]

    def compute(self, cells: Sequence[Cell]) -> list[Row]:
        """Trains the seeds at every rate together and keeps each seed's best."""
        training = self._training(cells[0].arm, [cell.seed for cell in cells])
        trained = PROCEDURES[cells[0].arm["procedure"]](training)
        train, test = (training.accuracy(trained, *part) for part in (training.data.train, training.data.test))
        best = [max(range(k, len(trained), len(cells)), key=train.__getitem__) for k in range(len(cells))]
        stages = np.array(training.stages).reshape(-1, len(trained))
        return [self._row(cell, train[k], test[k], stages[:, k]) for cell, k in zip(cells, best, strict=True)]

    def _training(self, arm: Arm, seeds: Sequence[int]) -> Pretraining:
        phi, start = parsed(arm["network"])
        blobs = arm["task"] == "blobs"
        inputs, outputs, depth, width = (2, 3, self.tutorial_depth, 10) if blobs else (64, 10, self.depth, self.width)
        rates = (0.01,) if blobs else self.lr
        return Pretraining(
            net=MLP(inputs=inputs, outputs=outputs, depth=depth, width=width, activation=phi, initialiser=start),
            data=load(arm["task"]),
            seeds=tuple(seeds) * len(rates),
            optimizers=tuple(SGD(lr=lr, momentum=self.momentum) for lr in rates for _ in seeds),
            epochs=self.tutorial_epochs if blobs else self.epochs,
            tuning=self.tutorial_epochs if blobs else self.tuning,
            batch_size=self.batch_size,
        )

    def _row(self, cell: Cell, train: float, test: float, stages: Array) -> Row:
        after = {f"test_after_{i}": float(v) for i, v in enumerate(stages, 1)}
        return Row(cell.arm, cell.seed, {"train_accuracy": float(train), "test_accuracy": float(test), **after}, {"stages": stages})

    def answer(self, rows: Rows) -> str:
        """Which networks it helps, what each procedure reaches, and where the tutorial's runs lie."""
        told, helped = [], {}
        for task, network in dict.fromkeys((arm["task"], arm["network"]) for arm in rows.arms()):
            own = rows.where(task=task, network=network)
            gains = {p: gain for p in GROWN if len(gain := _gains(own, p))}
            if gains:
                helped[f"{network} on {task}"] = any(np.mean(gain > HELPS) > 0.5 for gain in gains.values())
                ends = [f"{p} {number(own.where(procedure=p).median('test_accuracy'))} ({_share(gain)})" for p, gain in gains.items()]
                once = number(own.where(procedure="at once").median("test_accuracy"))
                told.append(f"{network} on {task}: {once} at once, grown {', '.join(ends)}.")
        told = [" ".join(_summary(helped)), *told, *(self._of_published(rows, p) for p in self.comparable() if len(rows.where(**p.arm)))]
        return "\n".join(filter(None, told)) or f"{len(rows)} rows, and none to compare them with: add procedures"

    @staticmethod
    def _of_published(rows: Rows, p: Published) -> str:
        values, layers = rows.where(**p.arm).values(p.value), plural(int(p.value.rpartition("_")[2]), "layer")
        here = f"published {number(p.number)}, median here {number(quantile(values, 0.5))}"
        return f"Blobs, {p.arm['procedure']}, {layers}: {here}; {verdict(p.number, values)}."

    def figures(self, rows: Rows) -> Mapping[str, Callable[[], Figure]]:
        """Every seed's end, and the accuracy as layers are added."""
        return {
            "Test accuracy after the same number of steps, every seed": lambda: self._ends(rows),
            "Test accuracy as layers are added, before fine-tuning; band: 10% to 90% of seeds": lambda: self._stages(rows),
        }

    def _ends(self, rows: Rows) -> Figure:
        pairs = list(dict.fromkeys((arm["task"], arm["network"]) for arm in rows.arms()))
        figure, axes = figures.panels(len(pairs), size=(3.9, 1.9))
        for ax, (task, network) in zip(axes, pairs, strict=True):
            own = rows.where(task=task, network=network)
            figures.distributions(ax, {arm["procedure"]: part.values("test_accuracy") for arm, part in own.by_arm()})
            figures.label(ax, title=f"{task}: {network}", x="test accuracy")
            ax.set_xlim(-0.02, 1.02)
        return figure

    def _stages(self, rows: Rows) -> Figure:
        grown = [(t, p) for t in self.task for p in GROWN if len(rows.where(task=t, procedure=p))]
        figure, axes = figures.panels(max(1, len(grown)), columns=2, size=(4.6, 3.0))
        for ax, (task, procedure) in zip(axes, grown, strict=False):
            parts = rows.where(task=task, procedure=procedure).by_arm()
            lines = {arm["network"]: own.series("stages") for arm, own in parts}
            figures.curves(ax, {name: (np.arange(1, values.shape[1] + 1), values) for name, values in lines.items()})
            figures.label(ax, title=f"{task}: {procedure}", x="hidden layers", y="test accuracy")
            known = [p for p in self.comparable() if p.arm == {"task": task, "procedure": procedure}]
            at = [int(p.value.rpartition("_")[2]) for p in known]
            ax.plot(at, [p.number for p in known], "D", color=figures.PALETTE[1], fillstyle="none", label="published" if known else None)
            figures.legend(ax, loc="center left", bbox_to_anchor=(1, 0.5))
            if procedure != grown[-1][1] and (named := ax.get_legend()) is not None:
                named.remove()  # the last panel of a line names what both have
        return figure


def parsed(network: str) -> tuple[str, str]:
    """Returns activation and initialiser that `relu he_normal` names.

    Raises:
        InputError: if the text is not two words.
    """
    match network.split():
        case [activation, initialiser]:
            return activation, initialiser
    raise InputError(f"a network is written as activation and initialiser, such as 'relu he_normal'; got {network!r}")


def _gains(rows: Rows, procedure: str) -> Floats:
    """What a procedure gains in test accuracy, seed by seed."""
    once, grown = (rows.where(procedure=p).values("test_accuracy") for p in ("at once", procedure))
    return grown - once if len(grown) == len(once) else np.empty(0)


def _share(gain: Floats) -> str:
    return f"better in {int(np.sum(gain > HELPS))} of {plural(len(gain), 'seed')}"


def _summary(helped: Mapping[str, bool]) -> list[str]:
    yes, no = ([name for name, helps in helped.items() if helps is kind] for kind in (True, False))
    found = [f"Growing layer by layer raises test accuracy by over {number(HELPS)} in most seeds for {', '.join(yes)}."] if yes else []
    return (
        [*found, f"It does not for {', '.join(no)}."]
        if no and yes
        else [f"Growing layer by layer helps none of {', '.join(no)}."]
        if no
        else found
    )
