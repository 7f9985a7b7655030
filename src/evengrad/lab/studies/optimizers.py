"""S7: paths of optimizers over four surfaces, and the same optimizers on images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from evengrad.errors import InputError
from evengrad.lab import figures
from evengrad.lab.data import load
from evengrad.lab.engine.optimizers import SGD, Adadelta, Adagrad, Adam, AdamW, Optimizer, RMSprop
from evengrad.lab.jobs import Data, Job, run_jobs
from evengrad.lab.models import MLP
from evengrad.lab.models.names import parse
from evengrad.lab.study import Arm, Cell, Published, Row, Rows, Study, canonical
from evengrad.lab.surfaces import SURFACES, descend
from evengrad.report.numbers import number, percent, plural

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]
Run = tuple[Optimizer, int]  # and the seed
Found = tuple[dict[str, float], dict[str, Array]]  # values and series of a run
SOURCE = "Zhang, Lipton, Li & Smola 2023, Dive into Deep Learning, ch. 12"
REACHED = 0.01  # share of the start's height that counts as down
TUNING = 1_000_000  # seeds from here on choose rates and are not reported
METHODS: dict[str, Callable[..., Optimizer]] = {
    "SGD": SGD,
    "momentum": lambda momentum=0.9, **rate: SGD(momentum=momentum, **rate),
    "NAG": lambda momentum=0.9, **rate: SGD(momentum=momentum, nesterov=True, **rate),
    "Adagrad": Adagrad,
    "RMSprop": lambda alpha=0.9, **rate: RMSprop(alpha=alpha, **rate),  # Tieleman & Hinton 2012
    "Adadelta": Adadelta,
    "Adam": Adam,
    "AdamW": AdamW,
}


@dataclass(frozen=True, kw_only=True)
class Optimizers(Study):
    """Eight optimizers on four surfaces and on images: about 2 minutes on one core.

    On the bowl, rates are those of the textbook's example. On the saddle, on Rosenbrock's and Beale's functions and on images each
    optimizer has the rate of the grid that was best on seeds of their own, which are not reported. The first seed starts from the usual
    point, the others from points around it.

    Attributes:
        task: Surfaces (`bowl`, `saddle`, `rosenbrock`, `beale`) and data sets.
        bowl: Optimizers on the bowl as `name at rate`, with an option of theirs in parentheses: `momentum(0.5) at 0.6`.
        optimizer: Optimizers on the other tasks; without `at` they have the best rate of the grid.
        rates: The grid.
        tuning: Number of seeds that choose a rate.
        spread: How far starts lie around the usual one, as a share of its numbers.
        width: Units of each of two hidden layers (ReLU, He normal).
        epochs: Passes over the training set.
        batch_size: Samples a step.
        target: Validation accuracy to reach; on surfaces the target is 1% of the start's height, for good.
    """

    name: ClassVar[str] = "optimizers"
    number: ClassVar[str] = "S7"
    question: ClassVar[str] = "How do optimizers move over a valley, a saddle and a curved ravine, and does it matter on a real task?"
    shown: ClassVar[tuple[str, ...]] = ("rate", "steps_to_target", "height", "x1", "x2", "train_loss", "test_accuracy")
    published: ClassVar[tuple[Published, ...]] = tuple(
        Published(arm={"task": "bowl", "optimizer": optimizer}, value=value, number=end, source=SOURCE)
        for optimizer, ends in {
            "SGD at 0.4": (-0.943467, -0.000073),
            "SGD at 0.6": (-0.387814, -1673.365109),
            "momentum(0.5) at 0.6": (0.007188, 0.002553),
            "Adagrad at 0.4": (-2.382563, -0.158591),
            "RMSprop at 0.4": (-0.010599, 0.0),
        }.items()
        for value, end in zip(("x1", "x2"), ends, strict=True)
    )

    task: tuple[str, ...] = (*SURFACES, "fashion_mnist")
    bowl: tuple[str, ...] = (
        *("SGD at 0.4", "SGD at 0.6", "momentum(0.5) at 0.6", "NAG(0.5) at 0.6"),
        *("Adagrad at 0.4", "RMSprop at 0.4", "Adadelta at 1", "Adam at 0.4", "AdamW at 0.4"),
    )
    optimizer: tuple[str, ...] = tuple(METHODS)
    rates: tuple[float, ...] = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
    tuning: int = 4
    spread: float = 0.1
    width: int = 64
    epochs: int = 8
    batch_size: int = 64
    target: float = 0.8
    seeds: int = 12

    @classmethod
    def quick(cls) -> Self:
        """Two optimizers on the bowl's example, the saddle and digits."""
        tasks, bowl = ("bowl", "saddle", "digits"), ("SGD at 0.4", "SGD at 0.6", "momentum(0.5) at 0.6")
        return cls(task=tasks, bowl=bowl, optimizer=("SGD", "Adam"), rates=(0.01, 0.1), tuning=1, width=16, epochs=3, seeds=3)

    def arms(self) -> Sequence[Arm]:
        """Each optimizer on each task."""
        return [{"task": task, "optimizer": o} for task in self.task for o in (self.bowl if task == "bowl" else self.optimizer)]

    def groups(self, cells: Sequence[Cell]) -> list[list[Cell]]:
        """All seeds of an arm as one."""
        return [list(own) for _, own in groupby(cells, key=lambda cell: canonical(cell.arm))]

    def compute(self, cells: Sequence[Cell]) -> list[Row]:
        """Chooses the arm's rate, then lets every seed go down from its start, or train."""
        run = partial(self._descended if cells[0].arm["task"] in SURFACES else self._trained, cells[0].arm["task"])
        make, rate = parsed(cells[0].arm["optimizer"])
        tried: dict[str, Array] = {}
        if rate is None:
            costs = self._costs(run([(make(lr=r), seed) for r in self.rates for seed in range(TUNING, TUNING + self.tuning)]))
            rate = self.rates[min(range(len(costs)), key=costs.__getitem__)]
            tried = {"rates": np.array(self.rates), "costs": np.array(costs)}
        found = run([(make(lr=rate), cell.seed) for cell in cells])
        return [Row(c.arm, c.seed, {"rate": rate, **v}, {**s, **tried}) for c, (v, s) in zip(cells, found, strict=True)]

    def _costs(self, found: Sequence[Found]) -> list[tuple[float, float]]:
        """Returns what each rate costs its worst seed: the share of wrong answers, or steps to the target; then what is left at the end."""
        each = [(1 - v["val_accuracy"], v["val_loss"]) if "val_loss" in v else (v["steps_to_target"], v["height"]) for v, _ in found]
        worst = np.nan_to_num(each, nan=np.inf, posinf=np.inf).reshape(len(self.rates), self.tuning, 2).max(1)
        return [(float(first), float(then)) for first, then in worst]

    def _descended(self, task: str, runs: Sequence[Run]) -> list[Found]:
        surface = SURFACES[task]
        paths = descend(surface, surface.starts([seed for _, seed in runs], self.spread), [o for o, _ in runs], surface.steps)
        found: list[Found] = []
        for path, height in zip(paths.numpy(), surface.height(paths).numpy(), strict=True):
            above = np.flatnonzero(height > REACHED * height[0])
            steps = above[-1] + 1.0 if above[-1] < surface.steps else np.nan
            values = {"x1": path[-1, 0], "x2": path[-1, 1], "height": height[-1], "steps_to_target": steps}
            found.append((values, {"path": path, "heights": height}))
        return found

    def _trained(self, task: str, runs: Sequence[Run]) -> list[Found]:
        split = load(task)
        net = MLP(inputs=tuple(split.x_train.shape[1:]), outputs=len(split.classes), depth=2, width=self.width, initialiser="he_normal")
        same = partial(Job, net=net, data=Data(name=task, validation=0.1), epochs=self.epochs, batch_size=self.batch_size)
        jobs = [same(optimizer=o, seed=seed, target=self.target, record=0) for o, seed in runs]
        return [(trained.values, trained.series) for trained in run_jobs(jobs)]

    def answer(self, rows: Rows) -> str:
        """Compares the bowl with the textbook, names the first and last on each surface, and what is between them on a real task."""
        tasks = dict.fromkeys(row.arm["task"] for row in rows)
        told = [self._of_task(task, rows.where(task=task)) for task in tasks if task not in SURFACES]
        told += [self._of_bowl(rows.where(task="bowl"))] if "bowl" in tasks else []
        told += [_of_surface(task, rows.where(task=task)) for task in tasks if task in SURFACES and task != "bowl"]
        return "\n".join(told)

    def _of_bowl(self, rows: Rows) -> str:
        said = []
        for arm, own in rows.by_arm():
            height, crossings = own.median("height"), _crossings(own)
            much = f", crossing the valley on {percent(crossings)} of the steps" if crossings > 0.5 else ""
            said.append(f"{arm['optimizer']} {'diverges to' if height > own.series('heights')[0, 0] else 'ends at'} {number(height)}{much}")
        first = {row.arm["optimizer"]: row for row in rows if row.seed == 0}
        known = [p for p in self.published if p.arm["optimizer"] in first]
        met = sum(abs(first[p.arm["optimizer"]].values[p.value] - p.number) < 5e-6 for p in known)
        book = f" Of {plural(len(known), 'coordinate')} printed in {SOURCE}, {met} are met to 0.000005 from its start." if known else ""
        return f"Bowl {SURFACES['bowl'].formula}, height after {SURFACES['bowl'].steps} steps: {'; '.join(said)}.{book}"

    def _of_task(self, task: str, rows: Rows) -> str:
        best = sorted(((own.median("test_accuracy"), arm["optimizer"], own.median("rate")) for arm, own in rows.by_arm()), reverse=True)
        said = ", ".join(f"{name} {percent(accuracy, 1)} (rate {number(rate)})" for accuracy, name, rate in best)
        spread = float(np.median([np.ptp(np.quantile(own.values("test_accuracy"), (0.1, 0.9))) for _, own in rows.by_arm()]))
        first = f"{number(100 * (best[0][0] - best[-1][0]))} points between first and last"
        between = f"{first}, {number(100 * spread)} between the 10% and 90% quantile of one optimizer's seeds"
        return f"{task}, median test accuracy after {plural(self.epochs, 'epoch')}: {said}; {between}."

    def figures(self, rows: Rows) -> Mapping[str, Callable[[], Figure]]:
        """Paths on each surface, heights over steps, curves and rates on the other tasks."""
        surfaces = [task for task in SURFACES if rows.where(task=task)]
        drawn: dict[str, Callable[[], Figure]] = {}
        for task in surfaces:
            drawn[f"Path of the first seed on the {task}, {SURFACES[task].formula}"] = partial(_paths, rows.where(task=task))
        if surfaces:
            drawn["Height above the minimum, over all starts"] = partial(_heights, rows, surfaces)
        for task in dict.fromkeys(row.arm["task"] for row in rows if row.arm["task"] not in SURFACES):
            drawn[f"{task}: learning at the best rate, and what each rate of the grid gives"] = partial(_learning, rows.where(task=task))
        return drawn


def parsed(text: str) -> tuple[Callable[..., Optimizer], float | None]:
    """Returns what makes the optimizer that `momentum(0.5) at 0.6` names from a rate, and its rate, None where none is given.

    Raises:
        UnknownNameError: if there is no such optimizer; the nearest is offered.
        InputError: if the option or the rate does not fit.
    """
    name, _, rate = text.partition(" at ")
    base, options = parse("optimizer", name, METHODS)
    make = partial(METHODS[base], *options)
    try:
        make(lr=float(rate or 1))
        return make, float(rate) if rate else None
    except (TypeError, ValueError) as error:
        raise InputError(f"an optimizer is written as 'Adam at 0.1', 'momentum(0.5) at 0.6' or without a rate; got {text!r}") from error


def _of_surface(task: str, rows: Rows) -> str:
    steps = {arm["optimizer"]: np.nan_to_num(own.values("steps_to_target"), nan=np.inf) for arm, own in rows.by_arm()}
    order = sorted(steps, key=lambda name: float(np.median(steps[name])))
    said = [f"{name} {number(float(np.median(steps[name])))}" for name in order if np.isfinite(np.median(steps[name]))]
    never = [name for name in order if not np.isfinite(np.median(steps[name]))]
    lost = f"; not within {SURFACES[task].steps} steps: {', '.join(never)}" if never else ""
    return f"{task.capitalize()}, median steps until {percent(REACHED)} of the start's height is left: {', '.join(said) or 'none'}{lost}."


def _crossings(rows: Rows) -> float:
    """Returns on what share of the steps x2 changes its sign, the median over seeds."""
    return float(np.median(np.mean(np.diff(np.sign(rows.series("path")[..., 1]), axis=1) != 0, axis=1)))


def _paths(rows: Rows) -> Figure:
    first = [row for row in rows if row.seed == 0]
    figure, axes = figures.panels(len(first))
    for ax, row in zip(axes, first, strict=True):
        surface = SURFACES[row.arm["task"]]
        figures.trajectory(ax, surface.f, {"": row.series["path"]}, box=surface.box, minimum=surface.minimum)
        figures.label(ax, title=f"{row.arm['optimizer'].partition(' at ')[0]} at {number(row.values['rate'])}", x="x1", y="x2")
    return figure


def _heights(rows: Rows, surfaces: Sequence[str]) -> Figure:
    figure, axes = figures.panels(len(surfaces), columns=2, size=(5, 3.6))
    for ax, task in zip(axes, surfaces, strict=True):
        arms = rows.where(task=task).by_arm()
        steps = np.arange(SURFACES[task].steps + 1)
        figures.curves(ax, {arm["optimizer"]: (steps, own.series("heights")) for arm, own in arms}, log=True)
        ax.set_ylim(bottom=max(ax.get_ylim()[0], 1e-12))
        figures.label(ax, title=task, x="step", y="height above the minimum")
    return figure


def _learning(rows: Rows) -> Figure:
    figure, (left, right) = figures.panels(2, size=(5, 3.6))
    arms = {arm["optimizer"]: own for arm, own in rows.by_arm()}
    figures.curves(left, {name: (own.series("steps")[0], own.series("val_accuracy")) for name, own in arms.items()})
    figures.label(left, title="at the best rate", x="step", y="validation accuracy")
    tried = {name: own[0].series for name, own in arms.items() if "rates" in own[0].series}
    figures.curves(right, {name: (s["rates"], 1 - s["costs"][None, :, 0]) for name, s in tried.items()})
    right.set_xscale("log")
    figures.label(right, title="at each rate, the worst seed for tuning", x="learning rate", y="validation accuracy")
    return figure
