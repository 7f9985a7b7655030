"""S15: the same perceptron trained here, in plain torch, in Keras and in scikit-learn, against the clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from evengrad.lab import figures
from evengrad.lab.frameworks import FRAMEWORKS, LEARNING, Work, installed, measure, measure_apart
from evengrad.lab.study import Arm, Cell, Row, Rows, Study
from evengrad.report.numbers import number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BASE = "torch"  # what the others are set beside
ALIKE = 1.25  # losses of frameworks that do the same from other weights, in another order, differ by less


@dataclass(frozen=True, kw_only=True)
class FrameworkTiming(Study):
    """ReLU perceptrons, batches of 32, SGD 0.01 with momentum 0.9: about 3 minutes on one core.

    A model-step is one step of one network. Every measurement is made in a process of its own with one thread, in processor time, after
    ten epochs that are not on the clock, and set beside plain torch in the same round. Only ours trains more than one network as one;
    the rate of the others does not depend on how many follow each other. Frameworks that are not installed are left out.

    Attributes:
        work: Data sets and hidden layers: `digits 64-64`.
        framework: `evengrad`, `torch`, `keras` (on torch, if KERAS_BACKEND names no other), `scikit-learn`.
        networks: How many networks evengrad trains as one.
        seconds: Time on the clock, each.
        apart: Measure in processes of their own.
        seeds: Rounds.
    """

    name: ClassVar[str] = "framework-timing"
    number: ClassVar[str] = "S15"
    question: ClassVar[str] = (
        "How many training steps a second does the same perceptron take here, in plain torch, in Keras and in scikit-learn?"
    )
    shown: ClassVar[tuple[str, ...]] = ("model_steps_per_second", "times_torch", "start_seconds", "loss")
    timed: ClassVar[tuple[str, ...]] = ("model_steps_per_second", "times_torch", "start_seconds")

    work: tuple[str, ...] = ("two_circles 5-5-5-5-5", "digits 64-64")
    framework: tuple[str, ...] = tuple(FRAMEWORKS)
    networks: tuple[int, ...] = (1, 10, 100)
    seconds: float = 0.5
    apart: bool = True
    seeds: int = 4

    @classmethod
    def quick(cls) -> Self:
        """Ours and plain torch in this process, a twentieth of a second each."""
        return cls(work=("two_circles 5-5",), framework=("evengrad", "torch"), networks=(1, 10), seconds=0.05, apart=False, seeds=2)

    def arms(self) -> Sequence[Arm]:
        """Each framework that is installed, at each work."""
        here = [(f, n) for f in self.framework if installed(f) for n in (self.networks if f == "evengrad" else (1,))]
        return [{"work": work, "framework": f, "networks": n} for work in self.work for f, n in here]

    def groups(self, cells: Sequence[Cell]) -> list[list[Cell]]:
        """A round each: one seed of all arms of a work."""
        rounds: dict[tuple[str, int], list[Cell]] = {}
        for cell in cells:
            rounds.setdefault((cell.arm["work"], cell.seed), []).append(cell)
        return list(rounds.values())

    def compute(self, cells: Sequence[Cell]) -> list[Row]:
        """Measures one after the other."""
        found = [self._measured(cell) for cell in cells]
        base = [v["model_steps_per_second"] for cell, v in zip(cells, found, strict=True) if cell.arm["framework"] == BASE]
        beside = [{"times_torch": v["model_steps_per_second"] / base[0] if base else np.nan} for v in found]
        return [Row(cell.arm, cell.seed, v | b) for cell, v, b in zip(cells, found, beside, strict=True)]

    def _measured(self, cell: Cell) -> dict[str, float]:
        framework, work, networks = cell.arm["framework"], cell.arm["work"], cell.arm["networks"]
        if self.apart:
            return measure_apart(framework, work, networks, cell.seed, self.seconds)
        return measure(framework, Work.parsed(work), networks, cell.seed, self.seconds)

    def answer(self, rows: Rows) -> str:
        """Rates beside plain torch, whether all learn the same, and what is not installed."""
        told = [_of_work(work, rows.where(work=work)) for work in dict.fromkeys(row.arm["work"] for row in rows)]
        lacking = [f for f in self.framework if not rows.where(framework=f)]
        return "\n".join(told + ([f"Left out, since not installed or not asked for: {', '.join(lacking)}."] if lacking else []))

    def figures(self, rows: Rows) -> Mapping[str, Callable[[], Figure]]:
        """Every round."""
        return {"Model-steps a second of processor time, every round": lambda: _rates(rows)}


def named(arm: Arm) -> str:
    """Returns a framework, and how many networks it trains as one: `evengrad (10 networks)`."""
    return f"{arm['framework']} ({arm['networks']} networks)" if arm["networks"] > 1 else f"{arm['framework']}"


def _of_work(work: str, rows: Rows) -> str:
    base = rows.where(framework=BASE)
    value, unit = ("times_torch", "times") if base else ("model_steps_per_second", "model-steps a second")
    said = [f"{named(arm)} {number(own.median(value))} {unit}" for arm, own in rows.by_arm() if arm["framework"] != BASE]
    first = [f"plain torch takes {number(base.median('model_steps_per_second'))} model-steps a second"] if base else []
    losses = [own.median("loss") for _, own in rows.by_arm()]
    alike = "alike, so that the work is the same" if max(losses) < ALIKE * min(losses) else "too far apart to be the same work"
    learned = f"After {LEARNING} epochs median losses lie from {number(min(losses))} to {number(max(losses))}, {alike}."
    return f"{work}: {'; '.join([*first, ', '.join(said)] if said else first)}. {learned}"


def _rates(rows: Rows) -> Figure:
    works = list(dict.fromkeys(row.arm["work"] for row in rows))
    figure, axes = figures.panels(len(works), columns=1, size=(6.8, 2.8))
    for ax, work in zip(axes, works, strict=True):
        figures.distributions(ax, {named(arm): own.values("model_steps_per_second") for arm, own in rows.where(work=work).by_arm()})
        ax.set_xscale("log")
        figures.label(ax, title=work, x="model-steps a second")
    return figure
