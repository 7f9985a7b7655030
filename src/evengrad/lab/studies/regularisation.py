"""S9: dropout, weight decay, L1 and early stopping on few noisy points, judged by K-fold cross-validation; learning curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby, product
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from evengrad.errors import InputError
from evengrad.lab import figures
from evengrad.lab.engine.boundary import Boundaries
from evengrad.lab.engine.optimizers import SGD
from evengrad.lab.engine.runs import Runs
from evengrad.lab.jobs import Data, Job, Trained, run_jobs
from evengrad.lab.models import MLP
from evengrad.lab.study import Arm, Cell, Row, Rows, Study, canonical
from evengrad.report.numbers import number, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

Array = npt.NDArray[Any]
POOL = 4000  # points that are drawn once: half to draw training samples from, half to test on
CURVES = ("steps", "loss", "accuracy", "val_loss", "val_accuracy")


@dataclass(frozen=True, kw_only=True)
class Regularisation(Study):
    """A wide network on a hundred points of two noisy moons: about 2 minutes on one core.

    Each seed draws its own samples. A cell trains one network a fold on the others' samples; its accuracies are means over folds, and its
    test accuracy is that of the same networks on 2,000 more points. Early stopping looks at the held-out fold, and restores the weights
    that were best there, so that its held-out numbers are a little too good.

    Attributes:
        dropout: Share of hidden units dropped.
        penalty: `none`, `l2 0.01` (weight decay) or `l1 0.001`.
        early_stopping: Whether to stop at the best validation loss.
        samples: Samples that are drawn, training and held-out ones together.
        curve: Numbers of samples for the learning curve of each of `curve_penalty`, without dropout and early stopping.
        curve_penalty: Penalties whose learning curves are compared.
        folds: K of the cross-validation.
        noise: Standard deviation of the points around the moons.
        width: Units of each of two hidden layers (ReLU, He normal).
        steps: Steps of SGD with momentum 0.9.
        lr: Its rate.
        batch_size: Samples a step.
        patience: Evaluations (one every 20 steps) without a better validation loss before early stopping stops.
    """

    name: ClassVar[str] = "regularisation"
    number: ClassVar[str] = "S9"
    question: ClassVar[str] = (
        "What do dropout, weight decay, L1 and early stopping mend when there are few samples, and does cross-validation tell?"
    )
    shown: ClassVar[tuple[str, ...]] = (
        *("train_accuracy", "val_accuracy", "gap", "test_accuracy", "test_loss"),
        *("stopped_at", "folds_error", "holdout_error"),
    )

    dropout: tuple[float, ...] = (0.0, 0.5)
    penalty: tuple[str, ...] = ("none", "l2 0.001", "l2 0.01", "l1 0.001", "l1 0.01")
    early_stopping: tuple[bool, ...] = (False, True)
    samples: int = 100
    curve: tuple[int, ...] = (25, 50, 200, 400, 1600)
    curve_penalty: tuple[str, ...] = ("none", "l2 0.001", "l2 0.01")
    folds: int = 5
    noise: float = 0.35
    width: int = 64
    steps: int = 2000
    lr: float = 0.1
    batch_size: int = 16
    patience: int = 10
    seeds: int = 12

    @classmethod
    def quick(cls) -> Self:
        """Two penalties with and without early stopping, three folds, 100 steps."""
        penalty = ("none", "l2 0.01")
        few = cls(dropout=(0.0,), penalty=penalty, samples=60, curve=(30,), curve_penalty=penalty, folds=3, seeds=2)
        return replace(few, width=16, steps=100, patience=1)

    def arms(self) -> Sequence[Arm]:
        """Each combination with `samples` samples, and the learning curves."""
        combined = product((self.samples,), self.dropout, self.penalty, self.early_stopping)
        curves = product((n for n in self.curve if n != self.samples), (0.0,), self.curve_penalty, (False,))
        names = ("samples", "dropout", "penalty", "early_stopping")
        return [dict(zip(names, values, strict=True)) for values in (*combined, *curves)]

    def groups(self, cells: Sequence[Cell]) -> list[list[Cell]]:
        """All seeds of an arm as one."""
        return [list(own) for _, own in groupby(cells, key=lambda cell: canonical(cell.arm))]

    def job(self, arm: Arm, seed: int, fold: int) -> Job:
        """The training on all folds but one."""
        l1, l2 = penalties(arm["penalty"])
        batches = -(-(arm["samples"] // self.folds * (self.folds - 1)) // self.batch_size)
        return Job(
            net=MLP(inputs=2, outputs=1, depth=2, width=self.width, initialiser="he_normal", dropout=arm["dropout"]),
            data=Data(name="moons", options=(("n", POOL), ("noise", self.noise)), samples=arm["samples"], fold=(fold, self.folds)),
            optimizer=SGD(lr=self.lr, momentum=0.9, weight_decay=l2),
            l1=l1,
            seed=seed,
            epochs=-(-self.steps // batches),
            batch_size=self.batch_size,
            patience=self.patience if arm["early_stopping"] else None,
            evaluate_steps=20,
            record=0,
        )

    def compute(self, cells: Sequence[Cell]) -> list[Row]:
        """Trains every fold of every cell as one network."""
        jobs = [self.job(cell.arm, cell.seed, fold) for cell in cells for fold in range(self.folds)]
        trained = run_jobs(jobs, chunk=len(jobs), keep=True)
        return [_row(cell, trained[i * self.folds : (i + 1) * self.folds]) for i, cell in enumerate(cells)]

    def answer(self, rows: Rows) -> str:
        """The gap without any remedy, what each remedy alone and the best combination change, cross-validation, learning curves."""
        own = rows.where(samples=self.samples)
        plain = own.where(dropout=0.0, penalty="none", early_stopping=False)
        told = [f"{self.samples} samples, medians. Nothing done: {_accuracies(plain)}."] if plain else []
        told += [f"{name}: {_accuracies(part)}{_stopped(part, self.steps)}." for name, part in alone(own).items()]
        if own:
            best, part = max(own.by_arm(), key=lambda pair: pair[1].median("test_accuracy"))
            told.append(f"The best of {len(own.arms())} on test points is {named(best)}: {_accuracies(part)}.")
            folds, one = (number(100 * own.median(name)) for name in ("folds_error", "holdout_error"))
            told.append(
                f"The mean over {self.folds} folds is {folds} points off the test accuracy, one fold alone {one}. "
                f"Who takes the combination of the highest mean over folds gets {percent(_chosen(own), 1)} on test points."
            )
        told += [self._of_curve(penalty, rows.where(penalty=penalty, dropout=0.0, early_stopping=False)) for penalty in self.curve_penalty]
        return "\n".join(sentence for sentence in told if sentence)

    def _of_curve(self, penalty: str, rows: Rows) -> str:
        if len(rows.arms()) < 2:
            return ""
        sizes = sorted({row.arm["samples"] for row in rows})
        gaps = [number(100 * rows.where(samples=n).median("gap")) for n in (sizes[0], sizes[-1])]
        tests = [percent(rows.where(samples=n).median("test_accuracy"), 1) for n in (sizes[0], sizes[-1])]
        what = f"from {sizes[0]} to {sizes[-1]:,} samples the gap falls from {gaps[0]} to {gaps[1]} points"
        return f"Penalty {penalty}: {what}, test accuracy goes from {tests[0]} to {tests[1]}."

    def figures(self, rows: Rows) -> Mapping[str, Callable[[], Figure]]:
        """Planes, losses over steps, the grid of combinations and learning curves."""
        own = rows.where(samples=self.samples)
        single = {"nothing": own.where(dropout=0.0, penalty="none", early_stopping=False), **alone(own)}
        planes = {name: row for name, part in single.items() for row in part if "boundary" in row.series}
        losses = {name: part for name, part in single.items() if part.where(early_stopping=False)}
        drawn: dict[str, Callable[[], Figure]] = {}
        if planes:
            drawn["What the first seed's network decides, and the points it was trained on"] = partial(_planes, self, planes)
        if losses:
            drawn["Loss on training samples and on the held-out fold: it overfits where they part"] = partial(_losses, losses)
        if own:
            drawn["Test accuracy and gap of each combination (medians)"] = partial(_grid, own)
        if len({row.arm["samples"] for row in rows}) > 1:
            drawn["Learning curves: accuracy over the number of samples"] = partial(_learning, self, rows)
        return drawn


def penalties(text: str) -> tuple[float, float]:
    """Returns the weights of the L1 and of the L2 penalty that `none`, `l1 0.001` or `l2 0.01` names.

    Raises:
        InputError: if the text is none of these.
    """
    kind, _, weight = text.partition(" ")
    try:
        if text == "none" or (kind in {"l1", "l2"} and float(weight) > 0):
            return (float(weight), 0.0) if kind == "l1" else (0.0, float(weight or 0))
    except ValueError:
        pass
    raise InputError(f"a penalty is written as 'none', 'l1 0.001' or 'l2 0.01'; got {text!r}")


def named(arm: Arm) -> str:
    """Returns an arm's remedies in words: `dropout 0.5, l2 0.01, early stopping`."""
    parts = [f"dropout {arm['dropout']:g}"] if arm["dropout"] else []
    parts += [arm["penalty"]] if arm["penalty"] != "none" else []
    return ", ".join(parts + ["early stopping"] * arm["early_stopping"]) or "nothing"


def alone(rows: Rows) -> dict[str, Rows]:
    """Returns the rows in which one remedy stands alone, by its name."""
    single = [(arm, own) for arm, own in rows.by_arm() if (arm["dropout"] > 0) + (arm["penalty"] != "none") + arm["early_stopping"] == 1]
    return {named(arm): own for arm, own in single}


def _chosen(rows: Rows) -> float:
    """Returns the test accuracy of what cross-validation chooses, the median over seeds."""
    seeds = {row.seed: max((r for r in rows if r.seed == row.seed), key=lambda r: r.values["val_accuracy"]) for row in rows}
    return float(np.median([row.values["test_accuracy"] for row in seeds.values()]))


def _row(cell: Cell, folds: Sequence[Trained]) -> Row:
    """Means over the folds, and how far they are from the test accuracy."""
    values = {name: float(np.mean([t.values[name] for t in folds])) for name in folds[0].values}
    off = np.array([t.values["val_accuracy"] - t.values["test_accuracy"] for t in folds])
    values |= {"gap": values["train_accuracy"] - values["val_accuracy"]}
    values |= {"folds_error": abs(float(off.mean())), "holdout_error": float(np.abs(off).mean())}
    series = {name: np.mean([t.series[name] for t in folds], axis=0) for name in CURVES}
    return Row(cell.arm, cell.seed, values, series | (_plane(folds[0]) if cell.seed == 0 else {}))


def _plane(trained: Trained) -> dict[str, Array]:
    """What the network decides at its end, over the plane."""
    assert trained.network is not None
    look = Boundaries([(1,)], _points(trained.job)[0])
    look(Runs([trained.network]), 1, 0)
    return look.series(0)


def _accuracies(rows: Rows) -> str:
    train, held, test = (percent(rows.median(f"{part}_accuracy"), 1) for part in ("train", "val", "test"))
    return f"{train} on training samples, {held} on held-out ones, {test} on test points (loss {number(rows.median('test_loss'))})"


def _stopped(rows: Rows, steps: int) -> str:
    return f", from step {number(rows.median('stopped_at'))} of {steps:,}" if rows[0].arm["early_stopping"] else ""


def _points(job: Job) -> tuple[Tensor, Tensor]:
    """The samples and labels that a job trains on."""
    split = job.data.split()
    places, _ = job.data.parts(split, job.seed)
    return split.x_train[places], split.y_train[places]


def _planes(study: Regularisation, rows: Mapping[str, Row]) -> Figure:
    figure, axes = figures.panels(len(rows), columns=4, size=(2.8, 2.8))
    for ax, (name, row) in zip(axes, rows.items(), strict=True):
        x, y = (part.numpy() for part in _points(study.job(row.arm, row.seed, 0)))
        figures.boundary(ax, row.series["boundary"][0], row.series["boundary_box"], x=x, y=y)
        figures.label(ax, title=name)
    return figure


def _losses(arms: Mapping[str, Rows]) -> Figure:
    figure, axes = figures.panels(len(arms))
    for ax, (name, own) in zip(axes, arms.items(), strict=True):
        steps = own.series("steps")[0]
        figures.curves(ax, {"training": (steps, own.series("loss")), "held out": (steps, own.series("val_loss"))}, log=True)
        figures.label(ax, title=name, x="step", y="loss")
    _level(axes)
    return figure


def _level(axes: Sequence[Axes]) -> None:
    """Gives all panels one scale."""
    limits = [ax.get_ylim() for ax in axes]
    for ax in axes:
        ax.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))


def _grid(rows: Rows) -> Figure:
    penalty = list(dict.fromkeys(row.arm["penalty"] for row in rows))
    others = list(dict.fromkeys((row.arm["dropout"], row.arm["early_stopping"]) for row in rows))
    columns = [named({"dropout": d, "penalty": "none", "early_stopping": e}).replace(", ", ",\n") for d, e in others]
    figure, axes = figures.panels(2, size=(5, 3))
    for ax, (value, title) in zip(axes, {"test_accuracy": "test accuracy", "gap": "training minus held-out"}.items(), strict=True):
        medians = [[rows.where(penalty=p, dropout=d, early_stopping=e).median(value) for d, e in others] for p in penalty]
        figures.heatmap(ax, np.array(medians), rows=penalty, columns=columns)
        figures.label(ax, title=title)
    return figure


def _learning(study: Regularisation, rows: Rows) -> Figure:
    figure, axes = figures.panels(len(study.curve_penalty), size=(3.9, 3.4))
    for ax, penalty in zip(axes, study.curve_penalty, strict=True):
        own = rows.where(penalty=penalty, dropout=0.0, early_stopping=False)
        sizes = sorted({row.arm["samples"] for row in own})
        words = {"train_accuracy": "training", "val_accuracy": "held out", "test_accuracy": "test"}
        lines = {said: [own.where(samples=n).values(name) for n in sizes] for name, said in words.items()}
        figures.curves(ax, {said: (np.array(sizes), np.stack(values, 1)) for said, values in lines.items() if sizes})
        ax.set_xscale("log")
        ax.set_xticks(sizes, [str(n) for n in sizes])
        ax.minorticks_off()
        figures.label(ax, title=f"penalty {penalty}", x="samples", y="accuracy")
    _level(axes)
    return figure
