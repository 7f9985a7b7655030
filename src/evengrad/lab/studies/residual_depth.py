"""S10: plain and residual networks at growing depth, with batch norm, and without any norm by Fixup and ReZero."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from evengrad.errors import InputError, unknown
from evengrad.lab import figures
from evengrad.lab.data import load
from evengrad.lab.engine.optimizers import SGD
from evengrad.lab.jobs import Data, Job, Trained, run_jobs
from evengrad.lab.models import MLP, Net, ResidualMLP
from evengrad.lab.study import Arm, Cell, Row, Rows, Study, canonical
from evengrad.report.numbers import number, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]
LEARNED = 0.9  # training accuracy from which a network counts as trained
KINDS: dict[str, dict[str, str]] = {
    "plain": {},
    "plain + batch norm": {"norm": "batch"},
    "skip": {"branch": "plain"},
    "skip + batch norm": {"branch": "plain", "norm": "batch"},
    "fixup": {"branch": "fixup"},
    "rezero": {"branch": "rezero"},
}


@dataclass(frozen=True, kw_only=True)
class ResidualDepth(Study):
    """Perceptrons of equal layers on digits, 6 to 102 layers deep: about 4 minutes on one core.

    Skips reach over two layers with the activation in front of each (He et al. 2016). Every seed trains under each rate of the grid, and
    the one that was best on its held-out samples stands for it. The gradients are those of the first batch; Fixup and ReZero start with
    branches that give nothing, so that there theirs are zero in most layers.

    Attributes:
        network: `plain` or `skip`, each also `+ batch norm`; `fixup` (Zhang et al. 2019); `rezero` (Bachlechner et al. 2021).
        depth: Layers with weights, first and last one included; even numbers of at least 4.
        width: Units of a hidden layer (ReLU, He normal).
        lr: Rates of SGD with momentum 0.9.
        epochs: Passes over the training samples.
        batch_size: Samples a step.
        data: Data set of images as vectors.
    """

    name: ClassVar[str] = "residual-depth"
    number: ClassVar[str] = "S10"
    question: ClassVar[str] = "How deep can a network be before it no longer trains, and is it the skip or the norm that helps?"
    shown: ClassVar[tuple[str, ...]] = ("train_accuracy", "test_accuracy", "rate", "first_gradient", "gradient_ratio")

    network: tuple[str, ...] = tuple(KINDS)
    depth: tuple[int, ...] = (6, 12, 22, 52, 102)
    width: int = 32
    lr: tuple[float, ...] = (0.1, 0.01, 0.001)
    epochs: int = 15
    batch_size: int = 64
    data: str = "digits"
    seeds: int = 10

    @classmethod
    def quick(cls) -> Self:
        """Two depths, one rate, one epoch."""
        return cls(depth=(6, 12), width=16, lr=(0.05,), epochs=2, seeds=2)

    def arms(self) -> Sequence[Arm]:
        """Each network at each depth."""
        return [{"network": network, "depth": depth} for network in self.network for depth in self.depth]

    def groups(self, cells: Sequence[Cell]) -> list[list[Cell]]:
        """All seeds of an arm as one."""
        return [list(own) for _, own in groupby(cells, key=lambda cell: canonical(cell.arm))]

    def net(self, arm: Arm) -> Net:
        """The network of an arm."""
        kind, depth, split = arm["network"], arm["depth"], load(self.data)
        if kind not in KINDS:
            raise unknown("network", kind, KINDS)
        if depth < 4 or depth % 2:
            raise InputError(f"a depth is an even number of at least 4: a first layer, blocks of two, a last one; got {depth}")
        sizes: dict[str, Any] = {"inputs": split.x_train.shape[1], "outputs": len(split.classes), "width": self.width, **KINDS[kind]}
        return (
            ResidualMLP(**sizes, blocks=(depth - 2) // 2) if "branch" in sizes else MLP(**sizes, depth=depth - 1, initialiser="he_normal")
        )

    def compute(self, cells: Sequence[Cell]) -> list[Row]:
        """Trains all seeds under all rates as one network."""
        same = partial(Job, data=Data(name=self.data, validation=0.1), epochs=self.epochs, batch_size=self.batch_size)
        runs = [(cell, rate) for cell in cells for rate in self.lr]
        trained = run_jobs([same(net=self.net(c.arm), optimizer=SGD(lr=rate, momentum=0.9), seed=c.seed) for c, rate in runs])
        parts = [trained[i : i + len(self.lr)] for i in range(0, len(runs), len(self.lr))]
        return [_row(cell, max(part, key=lambda t: t.values["val_accuracy"])) for cell, part in zip(cells, parts, strict=True)]

    def answer(self, rows: Rows) -> str:
        """How deep each network still trains, what they come to at the greatest depth, and where the gradient goes."""
        told = f"A network trains where most seeds reach {percent(LEARNED)} of their training samples, each at its best rate."
        return "\n".join([*(self._of_network(network, own) for network, own in _networks(rows).items()), told])

    def _of_network(self, network: str, rows: Rows) -> str:
        depths = sorted({row.arm["depth"] for row in rows})
        trained = [d for d in depths if rows.where(depth=d).share("train_accuracy", LEARNED) > 0.5]
        reach = f"trains at {', '.join(map(str, trained))} layers" if trained else "trains at no depth that was tried"
        first, deepest = rows.where(depth=depths[0]), rows.where(depth=depths[-1])
        lost = deepest.share("diverged", 1)
        end = "diverges under every rate" if lost > 0.5 else f"reaches {percent(deepest.median('test_accuracy'), 1)} on test samples"
        ratio, started = deepest.median("gradient_ratio"), [number(part.median("first_gradient")) for part in (first, deepest)]
        much = f", {number(ratio)} times the last hidden layer's" if np.isfinite(ratio) else ""
        gradient = f"its first layer's gradient starts at {started[1]} ({started[0]} at {depths[0]}){much}"
        return f"{network}: {reach}; at {depths[-1]} it {end}, {gradient}."

    def figures(self, rows: Rows) -> Mapping[str, Callable[[], Figure]]:
        """Accuracy and first gradient over depth; gradients of the layers and curves at the greatest depth."""
        deepest = max(row.arm["depth"] for row in rows)
        return {
            "Accuracy and gradient of the first layer over depth": partial(_depths, rows),
            f"Mean gradient of each layer's weights at {deepest} layers, median over seeds": partial(_gradients, rows.where(depth=deepest)),
            f"Training accuracy at {deepest} layers": partial(_curves, rows.where(depth=deepest)),
        }


def _row(cell: Cell, best: Trained) -> Row:
    gradient = best.series["grad_abs_mean"][0]
    ratio = gradient[0] / gradient[-2] if gradient[0] > 0 and gradient[-2] > 0 else np.nan
    values = {"rate": best.job.optimizer.lr, "first_gradient": gradient[0], "gradient_ratio": ratio}
    kept = ("steps", "accuracy", "val_accuracy", "record_steps", "grad_abs_mean")
    return Row(cell.arm, cell.seed, {**best.values, **values}, {name: best.series[name] for name in kept})


def _networks(rows: Rows) -> dict[str, Rows]:
    return {network: rows.where(network=network) for network in dict.fromkeys(row.arm["network"] for row in rows)}


def _depths(rows: Rows) -> Figure:
    figure, axes = figures.panels(3, size=(3.9, 3.6))
    words = {
        "train_accuracy": "training accuracy",
        "test_accuracy": "test accuracy",
        "first_gradient": "mean |gradient| of the first layer",
    }
    for ax, (value, said) in zip(axes, words.items(), strict=True):
        lines = {}
        for network, own in _networks(rows).items():
            depths = sorted({row.arm["depth"] for row in own})
            lines[network] = (np.array(depths), np.stack([own.where(depth=d).values(value) for d in depths], axis=1))
        figures.curves(ax, lines, log=value == "first_gradient")
        ax.set_xscale("log")
        ax.set_xticks(sorted({row.arm["depth"] for row in rows}), sorted({row.arm["depth"] for row in rows}))
        ax.minorticks_off()
        figures.label(ax, x="layers", y=said)
    return figure


def _gradients(rows: Rows) -> Figure:
    arms = _networks(rows)
    figure, axes = figures.panels(len(arms))
    for ax, (network, own) in zip(axes, arms.items(), strict=True):
        values = own.series("grad_abs_mean")
        known = np.isfinite(values).any((0, 2))  # a network that diverged has no more gradients
        figures.gradients(ax, own.series("record_steps")[0][known], values[:, known])
        figures.label(ax, title=network, x="step")
    return figure


def _curves(rows: Rows) -> Figure:
    figure, (ax,) = figures.panels()
    figures.curves(ax, {network: (own.series("steps")[0], own.series("accuracy")) for network, own in _networks(rows).items()})
    figures.label(ax, x="step", y="training accuracy")
    return figure
