"""S8: batch sizes from one sample to all of them, with a fixed rate and with one that grows along."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from evengrad.errors import unknown
from evengrad.lab import figures
from evengrad.lab.data import load
from evengrad.lab.engine.fit import fit
from evengrad.lab.engine.losses import runs_loss
from evengrad.lab.engine.optimizers import SGD
from evengrad.lab.engine.plan import Plan, Samples
from evengrad.lab.engine.runs import Runs
from evengrad.lab.jobs import Data, Job, Trained
from evengrad.lab.models import MLP
from evengrad.lab.study import Arm, Rows, TrainingStudy
from evengrad.report.numbers import number, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]
REFERENCE = 32  # the batch size at which every rule has the rate `lr`
RULES = {"fixed": 0.0, "sqrt": 0.5, "linear": 1.0}  # the power of the batch size that the rate grows with


@dataclass(frozen=True, kw_only=True)
class BatchSize(TrainingStudy):
    """A perceptron on 1,024 digits, from one sample a step to all of them: about 2 minutes on one core.

    Every run gets `epochs` passes and at least `steps` steps, so that large batches are not judged by a handful of steps. Accuracy is
    looked at eight times an epoch, on held-out samples. The time of an epoch is processor time, of one network trained alone on one thread.

    Attributes:
        batch_size: Samples a step; as many as `samples` is plain gradient descent.
        rule: How the rate grows with the batch size: `fixed`, `sqrt` (Hoffer et al. 2017) or `linear` (Goyal et al. 2017).
        lr: Rate of plain SGD at a batch size of 32.
        samples: Samples to train on; a quarter as many are held out.
        epochs: Passes over them, at least.
        steps: Steps, at least.
        target: Validation accuracy to reach.
        width: Units of each of two hidden layers (ReLU, He normal).
        data: Data set.
    """

    name: ClassVar[str] = "batch-size"
    number: ClassVar[str] = "S8"
    question: ClassVar[str] = "What does a larger batch cost and save: in steps, in passes over the data, in time, in final accuracy?"
    shown: ClassVar[tuple[str, ...]] = (
        *("lr", "steps_to_target", "epochs_to_target", "seconds_to_target", "epoch_seconds"),
        *("accuracy_after_epochs", "test_accuracy"),
    )
    timed: ClassVar[tuple[str, ...]] = ("epoch_seconds", "seconds_to_target")

    rule: tuple[str, ...] = ("fixed", "linear")
    batch_size: tuple[int, ...] = (1, 8, 32, 128, 512, 1024)
    lr: float = 0.05
    samples: int = 1024
    epochs: int = 30
    steps: int = 1000
    target: float = 0.9
    width: int = 64
    data: str = "digits"
    seeds: int = 16

    @classmethod
    def quick(cls) -> Self:
        """Three batch sizes, four passes, three seeds."""
        return cls(batch_size=(8, 64, 256), samples=256, epochs=4, steps=60, target=0.6, seeds=3)

    def arms(self) -> Sequence[Arm]:
        """Each batch size under each rule."""
        return [{"rule": rule, "batch_size": size} for rule in self.rule for size in self.batch_size]

    def job(self, arm: Arm, seed: int) -> Job:
        """Long enough for both limits."""
        if arm["rule"] not in RULES:
            raise unknown("rule for the rate", arm["rule"], RULES)
        split, size, per_epoch = load(self.data), arm["batch_size"], -(-self.samples // arm["batch_size"])
        return Job(
            net=MLP(inputs=split.x_train.shape[1], outputs=len(split.classes), depth=2, width=self.width, initialiser="he_normal"),
            data=Data(name=self.data, samples=self.samples + self.samples // 4, validation=0.2),
            optimizer=SGD(lr=self.lr * (size / REFERENCE) ** RULES[arm["rule"]]),
            seed=seed,
            epochs=max(self.epochs, -(-self.steps // per_epoch)),
            batch_size=size,
            target=self.target,
            evaluate_steps=max(1, per_epoch // 8),
            record=0,
        )

    def extra(self, job: Job, trained: Trained) -> tuple[Mapping[str, float], Mapping[str, Array]]:
        """Steps as passes, the accuracy after `epochs` of them, and what a pass takes."""
        per_epoch = -(-self.samples // job.batch_size)
        after = np.searchsorted(trained.series["steps"], self.epochs * per_epoch)
        epochs = trained.values["steps_to_target"] / per_epoch
        seconds = min(epoch_seconds(job) for _ in range(3))  # what disturbs a clock makes it late, never early
        values = {
            "lr": job.optimizer.lr,
            "epochs_to_target": epochs,
            "epoch_seconds": seconds,
            "seconds_to_target": epochs * seconds,
            "accuracy_after_epochs": trained.series["val_accuracy"][after],
        }
        return values, {}

    def answer(self, rows: Rows) -> str:
        """Steps, passes, accuracies and seconds from the smallest batch to the largest."""
        told = [self._of_rule(rule, rows.where(rule=rule)) for rule in self.rule if rows.where(rule=rule)]
        times = {size: rows.where(batch_size=size).median("epoch_seconds") for size in _sizes(rows)}
        said = ", ".join(f"{number(1000 * seconds)} ms at {size}" for size, seconds in times.items())
        return "\n".join([*told, f"One network alone on one thread takes for a pass over {self.samples:,} samples: {said}."])

    def _of_rule(self, rule: str, rows: Rows) -> str:
        sizes = {size: rows.where(batch_size=size) for size in _sizes(rows)}
        passes = {size: own.median("epochs_to_target") for size, own in sizes.items() if _most_reach(own)}
        said = ", ".join(f"{size}: {number(sizes[size].median('steps_to_target'))} steps, {number(n)} passes" for size, n in passes.items())
        missed = [str(size) for size in sizes if size not in passes]
        lost = f"; not reached by most seeds: {', '.join(missed)}" if missed else ""
        free = list(takewhile(lambda size: passes[size] < 2 * min(passes.values()), passes))
        scaling = f" Up to batch {free[-1]} the passes stay below twice the fewest." if free else ""
        names = {f"Validation accuracy after {self.epochs} passes": "accuracy_after_epochs", "test accuracy at the end": "test_accuracy"}
        ends = "; ".join(f"{when}: {_range({size: own.median(name) for size, own in sizes.items()})}" for when, name in names.items())
        rate = "the same rate" if rule == "fixed" else f"a rate that grows ({rule})"
        return f"With {rate}, until {percent(self.target)} validation accuracy (medians): batch {said or 'none'}{lost}.{scaling} {ends}."

    def figures(self, rows: Rows) -> Mapping[str, Callable[[], Figure]]:
        """Cost of the target over batch sizes, and curves over passes and over steps."""
        return {
            "Steps, passes and time to the target": partial(_costs, rows),
            "Validation accuracy over passes and over steps": partial(_curves, rows, self.samples),
        }


def epoch_seconds(job: Job) -> float:
    """Returns the processor time that one network takes for one pass over a job's training samples."""
    split = job.data.split()
    places, _ = job.data.parts(split, job.seed)
    samples = Samples(x=split.x_train[places], y=split.y_train[places])
    runs, loss = Runs([job.net.build(job.seed)]), runs_loss(job.loss, samples.y, len(split.classes))
    plan = Plan(loss=loss, optimizers=(job.optimizer,), seeds=(job.seed,), epochs=1, batch_size=job.batch_size)
    started = time.process_time()
    fit(runs, samples, plan)
    return time.process_time() - started


def _most_reach(rows: Rows) -> bool:
    return bool(np.mean(np.isfinite(rows.values("steps_to_target"))) > 0.5)


def _sizes(rows: Rows) -> list[int]:
    return sorted({row.arm["batch_size"] for row in rows})


def _range(accuracies: Mapping[int, float]) -> str:
    """Says where the least and the greatest accuracy are."""
    low, high = min(accuracies, key=accuracies.__getitem__), max(accuracies, key=accuracies.__getitem__)
    return f"{percent(accuracies[low], 1)} (batch {low}) to {percent(accuracies[high], 1)} (batch {high})"


def _costs(rows: Rows) -> Figure:
    figure, axes = figures.panels(4, columns=2, size=(5, 3.2))
    words = {"steps_to_target": "steps to the target", "epochs_to_target": "passes to the target"}
    words |= {"epoch_seconds": "seconds for one pass", "seconds_to_target": "seconds to the target"}
    rules = dict.fromkeys(row.arm["rule"] for row in rows)
    for ax, (value, said) in zip(axes, words.items(), strict=True):
        own = {rule: [rows.where(rule=rule, batch_size=size).values(value) for size in _sizes(rows.where(rule=rule))] for rule in rules}
        lines = {f"{rule} rate": (np.array(_sizes(rows.where(rule=rule))), np.stack(values, 1)) for rule, values in own.items()}
        figures.curves(ax, lines, log=True)
        ax.set_xscale("log", base=2)
        ax.set_xticks(_sizes(rows), [str(size) for size in _sizes(rows)])
        ax.minorticks_off()
        figures.label(ax, x="batch size", y=said)
    return figure


def _curves(rows: Rows, samples: int) -> Figure:
    rules = list(dict.fromkeys(row.arm["rule"] for row in rows))
    figure, axes = figures.panels(2 * len(rules), columns=2, size=(5, 3.4))
    for i, rule in enumerate(rules):
        own = {size: rows.where(rule=rule, batch_size=size) for size in _sizes(rows.where(rule=rule))}
        for ax, unit in zip(axes[2 * i :], ("passes over the data", "steps"), strict=False):
            scale = {size: 1 if unit == "steps" else size / samples for size in own}
            lines = {f"batch {n}": (part.series("steps")[0] * scale[n], part.series("val_accuracy")) for n, part in own.items()}
            figures.curves(ax, lines)
            ax.set_xscale("log")
            figures.label(ax, title=f"{rule} rate", x=unit, y="validation accuracy")
    return figure
