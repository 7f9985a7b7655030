"""S5: how many times fewer steps a norm needs, at each network's best learning rate and at one rate for both."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from evengrad.errors import InputError
from evengrad.lab import figures
from evengrad.lab.engine.optimizers import SGD
from evengrad.lab.jobs import Data, Job, Trained, run_jobs
from evengrad.lab.models import MLP
from evengrad.lab.published import verdict
from evengrad.lab.study import Arm, Cell, Published, Row, Rows, Study, matches
from evengrad.report.numbers import number, plural
from evengrad.signals.scale import matching_scheme

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SOURCE = "Ioffe & Szegedy 2015, Inception on ImageNet"


@dataclass(frozen=True, kw_only=True)
class BatchNorm(Study):
    """Three hidden layers of 100 units, as in the first figure of Ioffe & Szegedy 2015, on 5,000 images of clothes; SGD, batches of 60.

    Every network is trained at each of a few learning rates; what is counted are the steps until `target` of the 1,000 test images are
    right, looked at every 20 steps. A norm is compared with no norm under the same seed twice: each at the rate that is best for it, and
    both at the rate that is best without a norm. About six minutes on one core.

    Attributes:
        activation: Activation of the hidden layers, whose matching initialiser draws the weights.
        norm: none, or batch, layer or rms with `before` or `after` (the activation).
        lr: Learning rates to choose from.
        target: Test accuracy to reach.
        depth: Hidden layers.
        width: Units of each.
        epochs: Passes over the training images.
        batch_size: Samples a step.
        chunk: Number of networks that are trained as one.
    """

    name: ClassVar[str] = "batch-norm"
    number: ClassVar[str] = "S5"
    question: ClassVar[str] = "How many times fewer steps does batch norm need to the same accuracy, before or after the activation?"
    shown: ClassVar[tuple[str, ...]] = ("steps_to_target", "best_lr", "times_fewer", "times_fewer_same_lr")
    published: ClassVar[tuple[Published, ...]] = (
        Published(arm={"norm": "batch before"}, value="times_fewer", number=14, source=f"{SOURCE}, at five times the learning rate"),
        Published(
            arm={"norm": "batch before"}, value="times_fewer_same_lr", number=2.3, source=f"{SOURCE}, 13.3 against 31.0 million steps"
        ),
    )

    activation: tuple[str, ...] = ("sigmoid", "tanh", "relu")
    norm: tuple[str, ...] = ("none", "batch before", "batch after", "layer before")
    lr: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0, 3.0)
    target: float = 0.8
    depth: int = 3
    width: int = 100
    epochs: int = 16
    batch_size: int = 60
    chunk: int = 25
    seeds: int = 5

    @classmethod
    def quick(cls) -> Self:
        """Sigmoid, with and without batch norm, two rates and seeds, an easy target."""
        return cls(activation=("sigmoid",), norm=("none", "batch before"), lr=(0.3, 1.0), target=0.6, width=30, epochs=6, seeds=2)

    def arms(self) -> Sequence[Arm]:
        """Activation x norm; the learning rates are inside of a cell."""
        return [{"activation": phi, "norm": norm} for phi, norm in product(self.activation, self.norm)]

    def groups(self, cells: Sequence[Cell]) -> list[list[Cell]]:
        """All norms of one activation and some seeds, for they are compared with the same networks without a norm."""
        size, parts = max(1, self.chunk // len(self.lr)), []
        for phi, start in product(self.activation, range(0, self.seeds, size)):
            parts.append([c for c in cells if c.arm["activation"] == phi and start <= c.seed < start + size])
        return parts

    def compute(self, cells: Sequence[Cell]) -> list[Row]:
        """Trains every network at every rate, and those without a norm that they are compared with."""
        plain = {(c.arm["activation"], c.seed): Cell({**c.arm, "norm": "none"}, c.seed) for c in cells}
        wanted = [*plain.values(), *(c for c in cells if c.arm["norm"] != "none")]
        trained, rates = run_jobs([self._job(c, lr) for c in wanted for lr in self.lr], chunk=self.chunk), len(self.lr)
        found = {(*c.arm.values(), c.seed): trained[i * rates : (i + 1) * rates] for i, c in enumerate(wanted)}
        return [self._row(c, found[*c.arm.values(), c.seed], found[c.arm["activation"], "none", c.seed]) for c in cells]

    def _job(self, cell: Cell, lr: float) -> Job:
        """Batch norm takes the mean away, so there is no bias in front of it."""
        phi, (kind, at) = cell.arm["activation"], parsed(cell.arm["norm"])
        start, bias = matching_scheme(phi), cell.arm["norm"] != "batch before"
        net = MLP(inputs=784, outputs=10, depth=self.depth, width=self.width, activation=phi, initialiser=start, bias=bias)
        return Job(
            net=replace(net, norm=kind, norm_at=at),
            data=Data(name="fashion_mnist"),
            optimizer=SGD(lr=lr),
            seed=cell.seed,
            epochs=self.epochs,
            batch_size=self.batch_size,
            target=self.target,
            evaluate_steps=20,
            record=0,
        )

    def _row(self, cell: Cell, own: Sequence[Trained], plain: Sequence[Trained]) -> Row:
        steps, without = (np.nan_to_num([t.values["steps_to_target"] for t in runs], nan=math.inf) for runs in (own, plain))
        best, rate = int(np.argmin(steps)), int(np.argmin(without))
        values = {
            "steps_to_target": steps[best],
            "steps_without": without[rate],
            "best_lr": self.lr[best] if np.isfinite(steps[best]) else math.nan,
            "times_fewer": _times(without[rate], steps[best]),
            "times_fewer_same_lr": _times(without[rate], steps[rate]),
        }
        curve = {name: own[best].series[name] for name in ("steps", "test_accuracy")}
        return Row(cell.arm, cell.seed, values, {"lr": np.array(self.lr), "steps_by_lr": steps, **curve})

    def answer(self, rows: Rows) -> str:
        """How many times fewer steps each norm needs, both ways, and where the published numbers are among the seeds."""
        norms = [norm for norm in dict.fromkeys(arm["norm"] for arm in rows.arms()) if norm != "none"]
        if not norms:
            return "No norm was run, so there is nothing to compare."
        lead = "; ".join(f"{described(norm)}: {_fewer(rows.where(norm=norm))}" for norm in norms)
        told = [f"Times fewer steps to a test accuracy of {self.target}, each network at its best rate. {lead}."]
        told += [self._of_norm(norm, rows.where(norm=norm)) for norm in norms]
        told += [_of_published(p, rows.where(**p.arm)) for p in self.comparable() if rows.where(**p.arm)]
        return "\n".join(told)

    def _of_norm(self, norm: str, rows: Rows) -> str:
        best, same = [], []
        for arm, own in rows.by_arm():
            steps, without = own.median("steps_to_target"), own.median("steps_without")
            best.append(f"{arm['activation']} {_told(own.median('times_fewer'))} ({number(steps)} in place of {number(without)})")
            same.append(f"{arm['activation']} {_told(own.median('times_fewer_same_lr'))}")
        return (
            f"{described(norm)}, medians of {plural(self.seeds, 'seed')}, each at its best learning rate: {', '.join(best)}; "
            f"at the rate that is best without it: {', '.join(same)}."
        )

    def figures(self, rows: Rows) -> Mapping[str, Callable[[], Figure]]:
        """Steps by learning rate, accuracy over steps, and every seed beside the published number."""
        return {
            f"Steps to a test accuracy of {self.target} by learning rate, median and 10-90% of the seeds that reach it": (
                lambda: self._panels(rows, "lr", "steps_by_lr", "learning rate", "steps")
            ),
            "Test accuracy at each network's best learning rate": (
                lambda: self._panels(rows, "steps", "test_accuracy", "step", "test accuracy")
            ),
            "How many times fewer steps every seed needs, each network at its best learning rate": lambda: self._seeds(rows, "times_fewer"),
            "The same at the learning rate that is best without a norm": lambda: self._seeds(rows, "times_fewer_same_lr"),
        }

    def _panels(self, rows: Rows, x: str, y: str, across: str, up: str) -> Figure:
        figure, axes = figures.panels(len(self.activation), size=(4.0, 3.3))
        for ax, phi in zip(axes, self.activation, strict=True):
            arms = {arm["norm"]: own for arm, own in rows.where(activation=phi).by_arm()}
            figures.curves(ax, {norm: (own.series(x)[0], own.series(y)) for norm, own in arms.items()}, log=x == "lr")
            figures.label(ax, title=phi, x=across, y=up)
        if x == "lr":
            ends = [end for ax in axes for end in ax.get_ylim()]
            for ax in axes:
                ax.set(xscale="log", ylim=(min(ends), max(ends)))
        return figure

    def _seeds(self, rows: Rows, value: str) -> Figure:
        arms = {f"{arm['activation']}, {arm['norm']}": own for arm, own in rows.by_arm() if arm["norm"] != "none"}
        known = [p for p in self.comparable() if p.value == value]
        published = {name: p.number for name, own in arms.items() for p in known if matches(p.arm, own[0].arm)}
        figure, (ax,) = figures.panels(size=(6.8, 1.2 + 0.32 * len(arms)))
        figures.distributions(ax, {name: own.values(value) for name, own in arms.items()}, published=published)
        figures.label(ax, x="times fewer steps")
        return figure


def parsed(norm: str) -> tuple[str, str]:
    """Returns kind and place of the norm that `batch before` names.

    Raises:
        InputError: if the text is neither `none` nor a kind and a place.
    """
    match norm.split():
        case ["none"]:
            return "none", "before"
        case [kind, ("before" | "after") as at]:
            return kind, at
    raise InputError(f"a norm is written as none, or as its kind and place, such as 'batch before' (the activation); got {norm!r}")


def described(norm: str) -> str:
    """Returns `Batch norm before the activation` for `batch before`."""
    kind, at = parsed(norm)
    return f"{kind.capitalize()} norm {at} the activation"


def _of_published(p: Published, rows: Rows) -> str:
    where = [f"{arm['activation']}: {verdict(p.number, own.values(p.value), rounding=0.05)}" for arm, own in rows.by_arm()]
    return f"Published: {number(p.number)} times fewer ({p.source}); here, {'; '.join(where)}."


def _fewer(rows: Rows) -> str:
    return ", ".join(f"{arm['activation']} {number(own.median('times_fewer'))}" for arm, own in rows.by_arm())


def _told(times: float) -> str:
    if math.isnan(times):
        return "reaches it neither with nor without"
    return {0.0: "reaches it only without", math.inf: "reaches it only with"}.get(times, f"{number(times)} times fewer")


def _times(without: float, steps: float) -> float:
    """How many times fewer: NaN if neither reaches the target, 0 or infinite if one of them does."""
    return math.nan if math.isinf(without) and math.isinf(steps) else without / steps
