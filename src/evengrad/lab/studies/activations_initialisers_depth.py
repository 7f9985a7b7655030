"""S4: which initialiser each activation needs, and how deep it then trains."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from evengrad.lab import figures
from evengrad.lab.engine.optimizers import SGD
from evengrad.lab.jobs import Data, Job, Trained, run_jobs
from evengrad.lab.models import MLP
from evengrad.lab.published import verdict
from evengrad.lab.study import Arm, Cell, Floats, Published, Row, Rows, Study
from evengrad.report.numbers import number, plural
from evengrad.signals.scale import matching_scheme

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class ActivationsInitialisersDepth(Study):
    """Plain networks on scikit-learn's digits: activation x initialiser x depth, about six minutes on one core.

    Every network is trained at each of a few learning rates, by SGD with momentum, and judged by the best of them. A seed trains down to
    the largest depth up to which every network ends with a training accuracy of `learned` or more.

    Attributes:
        activation: Activation of the hidden layers.
        initialiser: What draws all weights.
        depth: Hidden layers.
        lr: Learning rates to choose from.
        width: Units of a hidden layer.
        learned: Training accuracy that counts as trained.
        epochs: Passes over the 1,437 training images.
        momentum: Momentum.
        batch_size: Samples a step.
        chunk: Number of networks that are trained as one.
    """

    name: ClassVar[str] = "activations-initialisers-depth"
    number: ClassVar[str] = "S4"
    question: ClassVar[str] = "Which initialiser does each activation need, how deep does it train with it, and are the textbooks right?"
    shown: ClassVar[tuple[str, ...]] = ("depth_trained",)
    published: ClassVar[tuple[Published, ...]] = (
        Published(
            arm={"activation": "relu", "initialiser": "he_normal"},
            value="depth_trained",
            number=30,
            source="He et al. 2015: 30 layers of convolutions train with He's initialiser and stall with Glorot's",
        ),
    )

    activation: tuple[str, ...] = ("sigmoid", "tanh", "relu", "selu", "gelu")
    initialiser: tuple[str, ...] = ("default", "glorot_normal", "he_normal", "lecun_normal", "orthogonal", "normal_001", "uniform_01")
    depth: tuple[int, ...] = (1, 2, 5, 10, 20, 30, 50)
    lr: tuple[float, ...] = (0.1, 0.01, 0.001)
    width: int = 32
    learned: float = 0.8
    epochs: int = 9
    momentum: float = 0.9
    batch_size: int = 32
    chunk: int = 63
    seeds: int = 6

    @classmethod
    def quick(cls) -> Self:
        """Two activations, two initialisers, depths 1 and 5, two seeds."""
        return cls(activation=("sigmoid", "relu"), initialiser=("he_normal", "uniform_01"), depth=(1, 5), lr=(0.1, 0.01), epochs=5, seeds=2)

    def arms(self) -> Sequence[Arm]:
        """The grid; depth is inside of a cell."""
        return [{"activation": phi, "initialiser": start} for phi, start in product(self.activation, self.initialiser)]

    def groups(self, cells: Sequence[Cell]) -> list[list[Cell]]:
        """Networks of one activation and depth are trained together."""
        size, parts = max(1, self.chunk // len(self.lr)), []
        for phi in self.activation:
            own = [c for c in cells if c.arm["activation"] == phi]
            parts += [own[i : i + size] for i in range(0, len(own), size)]
        return parts

    def compute(self, cells: Sequence[Cell]) -> list[Row]:
        """Trains every depth at every rate."""
        jobs = [self._job(c, depth, lr) for c in cells for depth in self.depth for lr in self.lr]
        trained, each = run_jobs(jobs, chunk=len(cells) * len(self.lr)), len(self.depth) * len(self.lr)
        return [self._row(c, trained[i * each : (i + 1) * each]) for i, c in enumerate(cells)]

    def _job(self, cell: Cell, depth: int, lr: float) -> Job:
        """Gradients are recorded at the first step alone."""
        return Job(
            net=MLP(inputs=64, outputs=10, depth=depth, width=self.width, **cell.arm),
            data=Data(name="digits"),
            optimizer=SGD(lr=lr, momentum=self.momentum),
            seed=cell.seed,
            epochs=self.epochs,
            batch_size=self.batch_size,
            evaluate_every=0,
            record=self.epochs,
        )

    def _row(self, cell: Cell, trained: Sequence[Trained]) -> Row:
        rates = len(self.lr)
        best = [max(trained[i : i + rates], key=lambda t: t.values["train_accuracy"]) for i in range(0, len(trained), rates)]
        accuracy = np.array([t.values["train_accuracy"] for t in best])
        series = {
            "depth": np.array(self.depth),
            "train_accuracy": accuracy,
            "test_accuracy": np.array([t.values["test_accuracy"] for t in best]),
            "lr": np.array([t.job.optimizer.lr for t in best]),
            "first_gradient": np.array([t.series["grad_abs_mean"][0, 0] for t in best]),
        }
        return Row(cell.arm, cell.seed, {"depth_trained": float(reach(self.depth, accuracy >= self.learned))}, series)

    def answer(self, rows: Rows) -> str:
        """How often the textbook's initialiser is the deepest, then every activation's initialisers in the order that was measured."""
        found = {phi: self._deepest(rows.where(activation=phi)) for phi in dict.fromkeys(arm["activation"] for arm in rows.arms())}
        told = [self._of_textbook({phi: own for phi, own in found.items() if textbook(phi) in own})]
        told += [f"Hidden layers that train, medians of {plural(self.seeds, 'seed')}."]
        told += [f"{phi}: {_listed(own)}." for phi, own in found.items()]
        told += [self._of_published(p, rows.where(**p.arm).values(p.value)) for p in self.comparable()]
        return "\n".join(sentence for sentence in told if sentence)

    def _deepest(self, rows: Rows) -> dict[str, float]:
        """Median depth of each initialiser, deepest first."""
        depths = {arm["initialiser"]: own.median("depth_trained") for arm, own in rows.by_arm()}
        return dict(sorted(depths.items(), key=lambda item: -item[1]))

    def _of_textbook(self, found: Mapping[str, dict[str, float]]) -> str:
        if not found:
            return ""
        beaten = {phi: [s for s in own if own[s] > own[textbook(phi)]] for phi, own in found.items()}
        right = sum(not better for better in beaten.values())
        words = [f"For {right} of {plural(len(found), 'activation')} nothing trains deeper than the textbook's initialiser"]
        words += [f"{phi} goes deeper with {' and '.join(better)} than with {textbook(phi)}" for phi, better in beaten.items() if better]
        return "; ".join(words) + "."

    def _of_published(self, p: Published, values: Floats) -> str:
        if not len(values):
            return ""
        claim = f"ReLU with He's initialiser trains {number(p.number)} layers in He et al. 2015, of hundreds of channels"
        return f"{claim}; at {self.width} units here this depth is {verdict(p.number, values)}."

    def figures(self, rows: Rows) -> Mapping[str, Callable[[], Figure]]:
        """The depth that is trained, the accuracy over depth, and the gradient that explains it."""
        return {
            "Depth down to which networks train, median of seeds; framed: the textbook's initialiser": lambda: self._depths(rows),
            f"Training accuracy at the best learning rate by depth, median of seeds ({number(self.learned)} counts as trained)": (
                lambda: self._by_depth(rows, "train_accuracy", 0.0, 1.0)
            ),
            "Mean magnitude of the first layer's gradient before training, powers of ten (–: zero, or not a number)": (
                lambda: self._by_depth(rows, "first_gradient", -10.0, 0.0)
            ),
        }

    def _depths(self, rows: Rows) -> Figure:
        figure, (ax,) = figures.panels(size=(6.8, 3.2))
        grid = [[rows.where(activation=phi, initialiser=s).median("depth_trained") for s in self.initialiser] for phi in self.activation]
        figures.heatmap(ax, np.array(grid), rows=self.activation, columns=[s.replace("_", "\n") for s in self.initialiser], low=0)
        for i, phi in enumerate(self.activation):
            if textbook(phi) in self.initialiser:
                at = self.initialiser.index(textbook(phi))
                ax.plot(at + np.array([-1, 1, 1, -1, -1]) * 0.47, i + np.array([-1, -1, 1, 1, -1]) * 0.46, color=figures.PALETTE[1])
        return figure

    def _by_depth(self, rows: Rows, name: str, low: float, high: float) -> Figure:
        figure, axes = figures.panels(len(self.activation), size=(3.9, 2.7))
        for ax, phi in zip(axes, self.activation, strict=True):
            grid = np.full((len(self.initialiser), len(self.depth)), np.nan)
            for i, start in enumerate(self.initialiser):
                if len(values := rows.where(activation=phi, initialiser=start).series(name)):
                    grid[i] = np.median(values if low == 0 else powers(values), axis=0).round(2 if low == 0 else 1)
            figures.heatmap(ax, grid, rows=self.initialiser, columns=self.depth, low=low, high=high)
            figures.label(ax, title=phi, x="hidden layers")
        return figure


def textbook(activation: str) -> str:
    """Returns the initialiser that textbooks give with an activation, whatever its options."""
    return matching_scheme(activation.partition("(")[0])


def reach(depths: Sequence[int], trained: Iterable[bool | np.bool]) -> int:
    """Returns the largest depth up to which every depth trains, 0 for none."""
    deepest = 0
    for depth, fine in sorted(zip(depths, trained, strict=True)):
        if not fine:
            break
        deepest = depth
    return deepest


def powers(values: Floats) -> Floats:
    """Returns log10, NaN where there is none."""
    return np.log10(values, out=np.full(values.shape, np.nan), where=values > 0)


def _listed(depths: Mapping[str, float]) -> str:
    """`50 with orthogonal; 30 with glorot_normal, he_normal; 0 with uniform_01`."""
    alike = {depth: ", ".join(s for s in depths if depths[s] == depth) for depth in depths.values()}
    return "; ".join(f"{number(depth)} with {starts}" for depth, starts in alike.items())
