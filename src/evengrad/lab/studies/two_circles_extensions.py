"""S2: the tutorial's five extensions on two circles: initialiser, optimizer, weight changes, depth, width."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product, zip_longest
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from evengrad.lab import figures
from evengrad.lab.engine.optimizers import SGD, Adam
from evengrad.lab.jobs import Data, Job
from evengrad.lab.models import MLP
from evengrad.lab.studies.two_circles import LEARNED
from evengrad.lab.study import Arm, Rows, TrainingStudy
from evengrad.report.numbers import number, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class TwoCirclesExtensions(TrainingStudy):
    """What the tutorial leaves to its reader, with its data, rate, batch and epochs; about ten minutes on one core.

    Tanh networks over depth x width x initialiser; at the tutorial's size (five layers of five units) Adam in place of SGD and ReLU in
    place of tanh too, with the change of each layer's weights recorded.

    Attributes:
        depth: Hidden layers.
        width: Units of a hidden layer.
        initialiser: Initialisers of the tanh networks.
        optimizer: SGD has the tutorial's rate of 0.01 and momentum of 0.9; Adam has its default rate of 0.001.
        activation: Tanh runs over the whole grid, any other at the tutorial's size only, with He's initialiser.
        epochs: Passes over the 500 training points.
        batch_size: Samples a step.
    """

    name: ClassVar[str] = "two-circles-extensions"
    number: ClassVar[str] = "S2"
    question: ClassVar[str] = "What do a better initialiser, Adam, more layers and wider layers do to the tanh network that failed?"
    shown: ClassVar[tuple[str, ...]] = ("train_accuracy", "test_accuracy")

    depth: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
    width: tuple[int, ...] = (5, 10, 15, 20, 25)
    initialiser: tuple[str, ...] = ("uniform_01", "glorot_uniform")
    optimizer: tuple[str, ...] = ("SGD", "Adam")
    activation: tuple[str, ...] = ("tanh", "relu")
    epochs: int = 500
    batch_size: int = 32
    seeds: int = 20

    @classmethod
    def quick(cls) -> Self:
        """Three depths, two widths, two seeds, six epochs."""
        return cls(depth=(1, 3, 5), width=(5, 10), seeds=2, epochs=6)

    def arms(self) -> Sequence[Arm]:
        """The grid of tanh networks under SGD, then the variants of the smallest width at the tutorial's depth."""
        arms = [_arm(*which, "SGD", "tanh") for which in product(self.depth, self.width, self.initialiser)]
        size = (self._deep, min(self.width))
        arms += [_arm(*size, start, how, "tanh") for start, how in product(self.initialiser, self.optimizer) if how != "SGD"]
        return arms + [_arm(*size, "he_uniform", "SGD", phi) for phi in self.activation if phi != "tanh"]

    @property
    def _deep(self) -> int:
        """The tutorial's depth, or the nearest there is."""
        return min(self.depth, key=lambda d: abs(d - 5))

    def job(self, arm: Arm, seed: int) -> Job:
        """Weight changes are recorded at the tutorial's size only."""
        small = (arm["depth"], arm["width"]) == (self._deep, min(self.width))
        sizes = {"inputs": 2, "outputs": 1, "depth": arm["depth"], "width": arm["width"]}
        return Job(
            net=MLP(**sizes, activation=arm["activation"], initialiser=arm["initialiser"]),
            data=Data(name="two_circles"),
            optimizer=SGD(lr=0.01, momentum=0.9) if arm["optimizer"] == "SGD" else Adam(),
            seed=seed,
            epochs=self.epochs,
            batch_size=self.batch_size,
            evaluate_every=max(1, self.epochs // 20),
            record=max(1, self.epochs // 100) if small else 0,
        )

    def answer(self, rows: Rows) -> str:
        """One sentence an extension."""
        deep, narrow = self._deep, min(self.width)
        at = rows.where(depth=deep, width=narrow)
        told = [f"At {deep} layers of {narrow} units a training accuracy of {LEARNED} is reached by "]
        told[0] += "; ".join(f"{_named(arm)} in {_share(at.where(**arm))}" for arm in at.arms()) + "."
        changes = [f"{_named(arm)} {_changes(at.where(**arm))}" for arm in at.arms() if len(at.where(**arm).series("weight_change"))]
        told += ["Mean change of a weight over training, first and last layer: " + "; ".join(changes) + "."] if changes else []
        for start in self.initialiser:
            reach = [f"{self._deepest(rows.where(initialiser=start, width=w, optimizer='SGD'))} at width {w}" for w in self.width]
            told.append(f"Tanh, {start}: half of the seeds or more learn down to a depth of " + ", ".join(reach) + ".")
        return "\n".join(told)

    def _deepest(self, rows: Rows) -> str:
        """The largest depth up to which half of the seeds or more learn at every depth."""
        reached = 0
        for depth in sorted(self.depth):
            if not rows.where(depth=depth).share("train_accuracy", LEARNED) >= 0.5:
                break
            reached = depth
        return str(reached) if reached else f"under {min(self.depth)}"

    def figures(self, rows: Rows) -> Mapping[str, Callable[[], Figure]]:
        """Depth x width, depth alone, weight changes by layer."""
        return {
            f"Share of seeds that learn (training accuracy {LEARNED} or more), tanh under SGD": lambda: self._grid(rows),
            "Test accuracy by depth at the smallest width, median and 10-90% of seeds": lambda: self._depths(rows),
            "Mean change of each layer's weights between records, median over seeds": lambda: self._changes(rows),
        }

    def _grid(self, rows: Rows) -> Figure:
        figure, axes = figures.panels(len(self.initialiser), columns=2, size=(4.2, 3.6))
        for ax, start in zip(axes, self.initialiser, strict=True):
            own = rows.where(initialiser=start, optimizer="SGD", activation="tanh")
            share = [[own.where(depth=d, width=w).share("train_accuracy", LEARNED) for w in self.width] for d in self.depth]
            figures.heatmap(ax, np.array(share), rows=self.depth, columns=self.width, low=0, high=1)
            figures.label(ax, title=start, x="units a layer", y="hidden layers")
        return figure

    def _depths(self, rows: Rows) -> Figure:
        figure, (ax,) = figures.panels()
        own = rows.where(width=min(self.width), optimizer="SGD", activation="tanh")
        lines: dict[str, tuple[Array, Array]] = {}
        for start in self.initialiser:
            known = [own.where(initialiser=start, depth=d).values("test_accuracy") for d in self.depth]
            lines[start] = np.array(self.depth), np.array(list(zip_longest(*known, fillvalue=np.nan)))  # (seeds, depths)
        figures.curves(ax, lines)
        figures.label(ax, x="hidden layers", y="test accuracy")
        return figure

    def _changes(self, rows: Rows) -> Figure:
        at = rows.where(depth=self._deep, width=min(self.width))
        arms = [arm for arm in at.arms() if len(at.where(**arm).series("weight_change"))]
        figure, axes = figures.panels(max(1, len(arms)))
        for ax, arm in zip(axes, arms, strict=False):  # one empty panel where none was recorded
            own = at.where(**arm)
            figures.gradients(ax, own.series("record_steps")[0][1:], own.series("weight_change")[:, 1:])
            figures.label(ax, title=_named(arm), x="step", y="mean |change of a weight|")
        return figure


def _arm(depth: int, width: int, initialiser: str, optimizer: str, activation: str) -> Arm:
    return {"depth": depth, "width": width, "initialiser": initialiser, "optimizer": optimizer, "activation": activation}


def _named(arm: Arm) -> str:
    return f"{arm['activation']} {arm['initialiser']} {arm['optimizer']}"


def _share(rows: Rows) -> str:
    return f"{percent(rows.share('train_accuracy', LEARNED))} of {len(rows)} seeds (median {number(rows.median('train_accuracy'))})"


def _changes(rows: Rows) -> str:
    total = np.median(rows.series("weight_change").sum(1), axis=0)  # over the records; (layers,)
    return f"{number(float(total[0]))} and {number(float(total[-1]))}"
