"""factors -> cells -> rows: what a study is."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from evengrad.lab.jobs import Job, Trained

NOT_SIZES = frozenset({"seeds", "chunk", "device"})  # fields that do not change what a row means
Arm = Mapping[str, Any]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Cell:
    """One arm under one seed.

    Attributes:
        arm: What distinguishes the arm, JSON values in the order of the factors: `{"depth": 5, "activation": "tanh"}`.
        seed: Seed of weights, data order and dropout.
    """

    arm: Arm
    seed: int

    def __str__(self) -> str:
        return f"{described(self.arm)}, seed {self.seed}"


@dataclass(frozen=True, eq=False)
class Row:
    """What was measured in one cell.

    Attributes:
        arm: The cell's.
        seed: The cell's.
        values: A number each; NaN where it does not apply or is not finite.
        series: Arrays of numbers, such as an accuracy at each epoch or a gradient of each layer at each epoch.
    """

    arm: Arm
    seed: int
    values: Mapping[str, float] = field(default_factory=dict)
    series: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        """Equal in every bit of every number; NaN equals NaN."""
        if not isinstance(other, Row):
            return NotImplemented
        return (canonical(self.arm), self.seed) == (canonical(other.arm), other.seed) and all(
            mine.keys() == theirs.keys() and all(np.array_equal(v, theirs[k], equal_nan=True) for k, v in mine.items())
            for mine, theirs in ((self.values, other.values), (self.series, other.series))
        )

    __hash__ = None  # type: ignore[assignment]  # holds arrays


class Rows(tuple[Row, ...]):
    """Rows with a few ways to pick from them."""

    __slots__ = ()

    def where(self, **arm: Any) -> Rows:
        """Returns the rows whose arm has these values; none, where the run left that arm out."""
        return Rows(r for r in self if matches(arm, r.arm))

    def by_arm(self) -> list[tuple[Arm, Rows]]:
        """Returns every arm with its rows, in the order of the study."""
        parts: dict[str, list[Row]] = {}
        for row in self:
            parts.setdefault(canonical(row.arm), []).append(row)
        return [(part[0].arm, Rows(part)) for part in parts.values()]

    def arms(self) -> list[Arm]:
        """Lists the arms that have rows, in the order of the study."""
        return [arm for arm, _ in self.by_arm()]

    def values(self, name: str) -> Floats:
        """Returns one value of every row that has it, as float64 (rows,)."""
        return np.array([r.values[name] for r in self if name in r.values], dtype=np.float64)

    def median(self, name: str) -> float:
        """Returns the median over rows of one value, NaN left out; NaN of none."""
        return quantile(self.values(name), 0.5)

    def share(self, name: str, at_least: float) -> float:
        """Returns the share of rows whose value is at least this, in [0, 1]; NaN is not, NaN of no rows."""
        values = self.values(name)
        return float(np.mean(values >= at_least)) if len(values) else math.nan

    def series(self, name: str) -> npt.NDArray[Any]:
        """Returns one series of every row that has it, cut to the shortest: (rows, length, ...)."""
        found = [r.series[name] for r in self if name in r.series]
        shortest = min((len(s) for s in found), default=0)
        return np.stack([s[:shortest] for s in found]) if found else np.empty((0, 0))


@dataclass(frozen=True, kw_only=True)
class Published:
    """A number from the literature that stands beside what is measured here.

    Attributes:
        arm: What identifies the arm that it belongs to; an arm with these values and more matches.
        value: Name of the row's value that it is compared with.
        number: The published number, in the unit of that value.
        source: Where it was published.
    """

    arm: Arm
    value: str
    number: float
    source: str


@dataclass(frozen=True)
class Source:
    """Where a user's own study comes from.

    Attributes:
        path: Its file, absolute.
        code: Hash of what the file computes: rows of other code are not used.
    """

    path: str
    code: str


@dataclass(frozen=True, kw_only=True)
class Study(ABC):
    """A declared comparison: arms times seeds, each cell computed once and kept.

    Subclasses are frozen dataclasses in a file of their own; their fields are the factors (tuples) and sizes (numbers, text), with the full
    size as defaults. A field whose name is a key of the arms is a factor; every other field is a size, and part of what a stored row is.

    Attributes:
        name: What it is called on the command line.
        number: Its number in the lists, such as `S1`.
        question: What it asks, one sentence.
        published: Numbers to compare with.
        shown: Names of the values that the table shows.
        timed: Names of values that are wall-clock times, which differ from run to run; with any, cells are computed one after the other.
        version: Raise it when the meaning of a row changes: rows of other versions are not used.
        source: The user's file that it comes from, set when it is loaded; None for a study of ours or of a package.
        seeds: Number of seeds an arm.
    """

    name: ClassVar[str]
    question: ClassVar[str]
    shown: ClassVar[tuple[str, ...]]
    number: ClassVar[str] = ""
    published: ClassVar[tuple[Published, ...]] = ()
    timed: ClassVar[tuple[str, ...]] = ()
    version: ClassVar[int] = 1
    source: ClassVar[Source | None] = None

    seeds: int = 24

    @classmethod
    @abstractmethod
    def quick(cls) -> Self:
        """Returns a size for tests: a few seconds on one core."""

    @abstractmethod
    def arms(self) -> Sequence[Arm]:
        """Lists the arms, all different, as JSON values."""

    @abstractmethod
    def compute(self, cells: Sequence[Cell]) -> list[Row]:
        """Returns a row for each cell, in order; the same for the same cells, whatever else runs or ran before."""

    @abstractmethod
    def answer(self, rows: Rows) -> str:
        """Answers the question in words, with the measured numbers: in short on the first line; any part of the arms may be missing."""

    @abstractmethod
    def figures(self, rows: Rows) -> Mapping[str, Callable[[], Figure]]:
        """Returns pictures by caption, drawn when they are called (`evengrad.lab.figures`)."""

    def cells(self) -> list[Cell]:
        """Lists every cell: arm by arm, seed by seed."""
        return [Cell(arm, seed) for arm in self.arms() for seed in range(self.seeds)]

    def comparable(self) -> tuple[Published, ...]:
        """Returns the published numbers, if every size is the full one: none after fewer epochs, say."""
        factors, full = {name for arm in self.arms() for name in arm}, type(self)()
        sizes = [f.name for f in fields(self) if f.name not in {*factors, *NOT_SIZES}]
        return self.published if all(getattr(self, name) == getattr(full, name) for name in sizes) else ()

    def groups(self, cells: Sequence[Cell]) -> list[list[Cell]]:
        """Cuts cells into chunks that are computed as one, stored as one and lost as one; by default one cell each."""
        return [[cell] for cell in cells]

    def memory(self, cells: Sequence[Cell]) -> int | None:
        """Estimates the bytes that computing this chunk needs; None if that is not known."""
        return None


def present_device() -> str:
    """Returns `cuda` where there is one, else `cpu`."""
    from torch import cuda

    return "cuda" if cuda.is_available() else "cpu"


@dataclass(frozen=True, kw_only=True)
class TrainingStudy(Study):
    """A study in which every cell is one training: networks of one shape are trained together, `chunk` at a time.

    Attributes:
        chunk: Number of networks that are trained as one; part of a row's address, since it decides about rounding.
        device: Device to train on; `cuda` where there is one, else `cpu`.
        keep: Whether `extra` needs the trained networks (`trained.network`).
    """

    keep: ClassVar[bool] = False

    chunk: int = 64
    device: str = field(default_factory=present_device)

    @abstractmethod
    def job(self, arm: Arm, seed: int) -> Job:
        """Returns the training of a cell."""

    def extra(self, job: Job, trained: Trained) -> tuple[Mapping[str, float], Mapping[str, npt.NDArray[Any]]]:
        """Returns values and series of one's own beside those of the training."""
        return {}, {}

    def groups(self, cells: Sequence[Cell]) -> list[list[Cell]]:
        """Cuts the cells whose trainings have one shape into chunks."""
        from evengrad.lab.jobs import chunks

        jobs = [self.job(c.arm, c.seed) for c in cells]
        return [[cells[i] for i in places] for places in chunks(jobs, self.chunk, self.device)]

    def memory(self, cells: Sequence[Cell]) -> int:
        """Estimates what the cells' networks take, trained as one."""
        from evengrad.lab.jobs import memory

        return len(cells) * memory(self.job(cells[0].arm, cells[0].seed))

    def compute(self, cells: Sequence[Cell]) -> list[Row]:
        """Trains the cells' networks as one."""
        from evengrad.lab.jobs import run_jobs

        jobs = [self.job(c.arm, c.seed) for c in cells]
        trained = run_jobs(jobs, chunk=len(jobs), device=self.device, keep=self.keep)
        return [self._row(cell, job, done) for cell, job, done in zip(cells, jobs, trained, strict=True)]

    def _row(self, cell: Cell, job: Job, trained: Trained) -> Row:
        values, series = self.extra(job, trained)
        return Row(cell.arm, cell.seed, {**trained.values, **values}, {**trained.series, **series})


def matches(part: Arm, arm: Arm) -> bool:
    """Whether an arm has every value of `part`."""
    return all(k in arm and canonical(arm[k]) == canonical(v) for k, v in part.items())


def canonical(value: Any) -> str:
    """Returns the one JSON text of a value: keys sorted, tuples as lists."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=dict)


def described(arm: Arm) -> str:
    """Returns an arm in words: `depth 5, activation tanh`."""
    return ", ".join(f"{k} {written(v)}" for k, v in arm.items())


def written(value: Any) -> str:
    """Returns a factor's value as text."""
    if isinstance(value, list | tuple):
        return ", ".join(map(written, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def quantile(values: Iterable[float], q: float) -> float:
    """Returns the linear quantile of the numbers that are not NaN; NaN of none."""
    known = np.array([v for v in values if not math.isnan(v)], dtype=np.float64)
    method: Literal["linear", "inverted_cdf"] = (
        "linear" if np.isfinite(known).all() else "inverted_cdf"
    )  # there is nothing between a number and infinity
    return float(np.quantile(known, q, method=method)) if known.size else float("nan")
