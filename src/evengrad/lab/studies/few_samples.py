"""S16: what to do with few labelled samples, against training on them from scratch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from torch import nn

from evengrad.errors import unknown
from evengrad.lab import figures
from evengrad.lab.data import load
from evengrad.lab.engine.evaluate import evaluate
from evengrad.lab.engine.fit import fit
from evengrad.lab.engine.losses import LOSSES
from evengrad.lab.engine.optimizers import SGD, Adam
from evengrad.lab.engine.plan import Plan, Samples
from evengrad.lab.engine.runs import Runs
from evengrad.lab.few import METHODS, FewLabels
from evengrad.lab.models import MLP
from evengrad.lab.published import position
from evengrad.lab.study import Arm, Cell, Floats, Published, Row, Rows, Study
from evengrad.lab.transfer import of_first_layers
from evengrad.report.numbers import fixed, number, plural

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SOURCE = "Brownlee 2019, How to Improve Performance With Transfer Learning for Deep Learning Neural Networks"
TUTORIAL = {  # published mean and standard deviation of 30 runs, and how many layers rest
    "scratch": (0.787, 0.101, 0),
    "fine-tuned": (0.805, 0.004, 0),
    "first layer frozen": (0.817, 0.005, 1),
    "frozen": (0.750, 0.014, 2),
}
TASKS = ("images", "blobs")
WON = 0.005  # half a percentage point: less is not called better


@dataclass(frozen=True, kw_only=True)
class FewSamples(Study):
    """Five classes of Fashion-MNIST with 20 to 500 labels in all, tested on 500 other images of them; a ReLU network of two hidden layers.

    Every seed draws its five classes, its labelled images and its weights; the methods are those of `evengrad.lab.few.FewLabels`. Beside
    it stands a tutorial on transfer: 500 points in three clouds, a network of two layers of five units, and one that knows three other
    clouds. The tutorial's 30 runs all start from one such network; here every seed trains its own.

    About 3 minutes on one core.

    Attributes:
        task: `images`, and `blobs` for the tutorial's data, sizes and methods.
        labelled: Labelled images in all.
        method: What to do with them.
        widths: Units of the hidden layers.
        steps: Steps on the new classes, whatever the method.
        pretraining: Passes over the 2,500 images of the other classes.
        lr: Adam's learning rate.
        batch_size: Images a step at most.
        rounds: How often the network labels anew.
        shift: Pixels that an image is moved by at most.
        noise: Standard deviation of the noise on pixels, which lie in [0, 1].
        ratio: Learning rate of a layer over that of the layer below.
        tutorial_epochs: Passes over the points.
        chunk: Seeds that are trained together.
    """

    name: ClassVar[str] = "few-samples"
    number: ClassVar[str] = "S16"
    question: ClassVar[str] = (
        "With few labelled samples, what beats training from scratch: a pre-trained network, augmentation or pseudo-labels?"
    )
    shown: ClassVar[tuple[str, ...]] = ("train_accuracy", "test_accuracy", "test_loss")
    published: ClassVar[tuple[Published, ...]] = tuple(
        Published(arm={"task": "blobs", "method": method}, value="test_accuracy", number=mean, source=f"{SOURCE} (mean of 30 runs)")
        for method, (mean, _, _) in TUTORIAL.items()
    )

    task: tuple[str, ...] = TASKS
    labelled: tuple[int, ...] = (20, 50, 100, 500)
    method: tuple[str, ...] = METHODS
    widths: tuple[int, ...] = (128, 64)
    steps: int = 300
    pretraining: int = 10
    lr: float = 3e-3
    batch_size: int = 64
    rounds: int = 3
    shift: int = 1
    noise: float = 0.1
    ratio: float = 2.6
    tutorial_epochs: int = 100
    chunk: int = 8
    seeds: int = 24

    @classmethod
    def quick(cls) -> Self:
        """Two numbers of labels, two seeds, narrow layers, few steps."""
        return cls(labelled=(20, 50), widths=(32, 16), steps=30, pretraining=1, tutorial_epochs=3, seeds=2)

    def __post_init__(self) -> None:
        for kind, names, known in (("task", self.task, TASKS), ("method", self.method, METHODS)):
            for name in names:
                if name not in known:
                    raise unknown(kind, name, known)

    def arms(self) -> Sequence[Arm]:
        """Each method with each number of labels; on blobs the tutorial's methods with all labels."""
        images = [{"task": "images", "labelled": n, "method": method} for n in self.labelled for method in self.method]
        blobs = [{"task": "blobs", "labelled": 500, "method": method} for method in self.method if method in TUTORIAL]
        return [arm for arm in (*images, *blobs) if arm["task"] in self.task]

    def groups(self, cells: Sequence[Cell]) -> list[list[Cell]]:
        """Some seeds of a task with all their arms, which start from one pre-trained network a seed."""
        parts: dict[tuple[str, int], list[Cell]] = {}
        for cell in cells:
            parts.setdefault((cell.arm["task"], cell.seed // self.chunk), []).append(cell)
        return list(parts.values())

    def compute(self, cells: Sequence[Cell]) -> list[Row]:
        """Trains arm by arm."""
        seeds, rows = tuple(dict.fromkeys(cell.seed for cell in cells)), []
        images = FewLabels(
            data=load("fashion_mnist"),
            seeds=seeds,
            optimizer=Adam(lr=self.lr),
            **{name: getattr(self, name) for name in ("widths", "steps", "pretraining", "batch_size", "rounds", "shift", "noise", "ratio")},
        )
        knowing = self._fitted([BLOBS.build(seed) for seed in seeds], 1, seeds) if cells[0].arm["task"] == "blobs" else []
        for _, own in groupby(cells, key=lambda cell: (cell.arm["labelled"], cell.arm["method"])):
            arm = (part := list(own))[0].arm
            ends = images.ends(arm["method"], arm["labelled"]) if arm["task"] == "images" else self._blobs(arm["method"], knowing, seeds)
            rows += [Row(cell.arm, cell.seed, end) for cell, end in zip(part, ends, strict=True)]
        return rows

    def _blobs(self, method: str, knowing: Sequence[nn.Module], seeds: tuple[int, ...]) -> list[dict[str, float]]:
        """The tutorial's second clouds, learned by networks that know the first, or by new ones."""
        start = [BLOBS.build(seed) for seed in seeds] if method == "scratch" else knowing
        trained, data, loss = Runs(self._fitted(start, 2, seeds, TUTORIAL[method][2])), load("blobs", seed=2), LOSSES["cross_entropy"]
        parts = {"train_": data.train, "test_": data.test}
        found = {k: v for name, (x, y) in parts.items() for k, v in evaluate(trained, Samples(x=x, y=y), loss, name).items()}
        return [{name: float(v[k]) for name, v in found.items()} for k in range(trained.count)]

    def _fitted(self, networks: Sequence[nn.Module], problem: int, seeds: tuple[int, ...], resting: int = 0) -> list[nn.Module]:
        runs, (x, y) = Runs(networks), load("blobs", seed=problem).train
        plan = Plan(
            loss=LOSSES["cross_entropy"],
            optimizers=(SGD(lr=0.01),) * runs.count,
            seeds=seeds,
            epochs=self.tutorial_epochs,
            batch_size=32,
            frozen=of_first_layers(runs.network(0), resting),
        )
        fit(runs, Samples(x=x, y=y), plan)
        return [runs.network(k) for k in range(runs.count)]

    def answer(self, rows: Rows) -> str:
        """What each method gains, for each number of labels; what a pre-trained network is worth; the tutorial's runs."""
        images, blobs = rows.where(task="images"), rows.where(task="blobs")
        told = [self._of_size(images.where(labelled=n), plural(n, "label")) for n in self.labelled]
        told = list(filter(None, [*told, _worth(images), *(self._of_published(blobs, p) for p in self.comparable())]))
        return "\n".join(told) or f"{len(rows)} rows, and none to compare them with: add methods"

    def _of_size(self, rows: Rows, labels: str) -> str:
        gains, scratch = _gains(rows), rows.where(method="scratch").median("test_accuracy")
        if not gains:
            return ""
        ordered = sorted(gains.items(), key=lambda item: -float(np.median(item[1])))
        listed = ", ".join(f"{m} {_signed(gain)} (better in {int(np.sum(gain > 0))} of {plural(len(gain), 'seed')})" for m, gain in ordered)
        best, most = ordered[0][0], ordered[0][1]
        won = f"{best} beats it" if np.mean(most > 0) > 0.5 and np.median(most) > WON else "nothing clearly beats it"
        return f"With {labels}, training from scratch reaches {number(scratch)} and {won}: {listed}."

    @staticmethod
    def _of_published(rows: Rows, p: Published) -> str:
        values = rows.where(method=p.arm["method"]).values(p.value)
        if not len(values):
            return ""
        mean, spread, _ = TUTORIAL[p.arm["method"]]
        one = "" if p.arm["method"] == "scratch" else ", all from one pre-trained network"
        here = f"mean {number(float(values.mean()))}, standard deviation {number(float(values.std()))}"
        return f"Blobs, {p.arm['method']}: {here}; published {number(mean)} and {number(spread)}{one} ({position(mean, values)})."

    def figures(self, rows: Rows) -> Mapping[str, Callable[[], Figure]]:
        """Accuracy over labels, what every seed gains, and the tutorial's comparison."""
        found = {
            "Test accuracy by number of labelled images, median of seeds": lambda: self._by_labels(rows.where(task="images")),
            "Test accuracy gained over training from scratch, every seed": lambda: self._gained(rows.where(task="images")),
            "Blobs: test accuracy of every seed": lambda: self._tutorial(rows.where(task="blobs")),
        }
        shown = ["images", "images", "blobs"]
        return {caption: draw for (caption, draw), task in zip(found.items(), shown, strict=True) if rows.where(task=task)}

    def _by_labels(self, rows: Rows) -> Figure:
        figure, (ax,) = figures.panels()
        lines = {}
        for method in dict.fromkeys(arm["method"] for arm in rows.arms()):
            parts = [(arm["labelled"], own.median("test_accuracy")) for arm, own in rows.where(method=method).by_arm()]
            lines[method] = (np.array([n for n, _ in parts]), np.array([[v for _, v in parts]]))
        figures.curves(ax, lines)
        ax.set_xscale("log")
        ax.set_xticks(self.labelled, [str(n) for n in self.labelled])
        ax.minorticks_off()
        figures.label(ax, x="labelled images in all", y="test accuracy")
        figures.legend(ax, loc="center left", bbox_to_anchor=(1, 0.5))
        return figure

    def _gained(self, rows: Rows) -> Figure:
        sizes = [n for n in self.labelled if _gains(rows.where(labelled=n))]
        figure, axes = figures.panels(max(1, len(sizes)), columns=2, size=(4.6, 2.2))
        for ax, n in zip(axes, sizes, strict=False):
            figures.distributions(ax, _gains(rows.where(labelled=n)))
            ax.axvline(0, color=figures.INK, linewidth=1, linestyle=":")
            figures.label(ax, title=plural(n, "label"), x="test accuracy gained")
        return figure

    def _tutorial(self, rows: Rows) -> Figure:
        figure, (ax,) = figures.panels(size=(6.8, 2.6))
        parts = {arm["method"]: own.values("test_accuracy") for arm, own in rows.by_arm()}
        figures.distributions(ax, parts)
        told = [(p.number, list(parts).index(p.arm["method"])) for p in self.comparable() if p.arm["method"] in parts]
        if told:
            ax.plot(*zip(*told, strict=True), "D", color=figures.PALETTE[1], fillstyle="none", label="published mean of 30 runs")
        figures.label(ax, x="test accuracy")
        figures.legend(ax)
        return figure


BLOBS = MLP(inputs=2, outputs=3, depth=2, width=5, initialiser="he_uniform")


def _gains(rows: Rows) -> dict[str, Floats]:
    """Test accuracy of each method less that of training from scratch, seed by seed."""
    scratch = rows.where(method="scratch").values("test_accuracy")
    ends = {arm["method"]: own.values("test_accuracy") for arm, own in rows.by_arm() if arm["method"] != "scratch"}
    return {method: values - scratch for method, values in ends.items() if len(values) == len(scratch)}


def _worth(rows: Rows) -> str:
    """With how many labels training from scratch does as well as fine-tuning with the fewest."""
    medians = {arm["labelled"]: own.median("test_accuracy") for arm, own in rows.where(method="scratch").by_arm()}
    few = min(medians, default=0)
    tuned = rows.where(method="fine-tuned", labelled=few).median("test_accuracy")
    if len(medians) < 2 or math.isnan(tuned):
        return ""
    labels, reached = list(medians), np.maximum.accumulate(list(medians.values()))
    start = f"A network that knows other classes, fine-tuned with {plural(few, 'label')}, is worth"
    if tuned > reached[-1]:
        return f"{start} more than {labels[-1]} labels from scratch."
    if tuned <= reached[0]:
        return f"{start} no more labels from scratch."
    return f"{start} about {math.exp(np.interp(tuned, reached, np.log(labels))):.0f} labels from scratch."


def _signed(gain: Floats) -> str:
    value = float(np.median(gain))
    return f"{'+' if value >= 0 else ''}{fixed(value, 3)}"
