"""two StudyResults -> the arms that both have, side by side."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from evengrad.errors import InputError
from evengrad.lab.result import StudyResult
from evengrad.lab.study import Arm, Floats, canonical, described
from evengrad.lab.table import Summary, finite, summarised
from evengrad.report.numbers import number, percent


@dataclass(frozen=True)
class Line:
    """One value of one arm in both runs.

    Attributes:
        arm: The arm.
        value: Name of the value.
        first: Over the seeds of the first run.
        second: Over those of the second.
        higher: Share of all pairs (one seed of each) in which the second's is higher, ties half, in [0, 1]: 0.5 is no difference. This is
            the statistic of the rank test of Mann and Whitney (1947) over the number of pairs.
    """

    arm: Arm
    value: str
    first: Summary
    second: Summary
    higher: float

    @property
    def difference(self) -> float:
        """The second's median minus the first's."""
        return self.second.median - self.first.median


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side.

    Attributes:
        names: Of the two runs.
        factors: What differs: name -> value in each; None where a study does not have it.
        lines: Each arm that both have, each value that both show.
    """

    names: tuple[str, str]
    factors: dict[str, tuple[Any, Any]]
    lines: tuple[Line, ...]

    def header(self) -> list[str]:
        """Names of the columns."""
        return ["arm", "value", *self.names, "difference", "second higher in"]

    def texts(self) -> Iterator[list[str]]:
        """Yields each line as text."""
        for line in self.lines:
            higher = f"{percent(line.higher)} of pairs" if math.isfinite(line.higher) else "–"
            ends = [str(line.first), str(line.second), number(line.difference), higher]
            yield [described(line.arm), line.value.replace("_", " "), *ends]

    def to_json(self) -> str:
        """Returns one JSON document; what is not a finite number is null."""
        lines = [
            {"arm": line.arm, "value": line.value, "first": _json(line.first), "second": _json(line.second)}
            | {"difference": finite(line.difference), "second_higher": finite(line.higher)}
            for line in self.lines
        ]
        return json.dumps({"runs": self.names, "factors": self.factors, "lines": lines}, indent=2, allow_nan=False, default=list)


def compared(first: StudyResult, second: StudyResult, names: tuple[str, str]) -> Comparison:
    """Puts two runs side by side.

    Raises:
        InputError: if they have no arm, or no shown value, in common.
    """
    theirs = {canonical(arm): rows for arm, rows in second.rows.by_arm()}
    both = [(arm, rows, theirs[canonical(arm)]) for arm, rows in first.rows.by_arm() if canonical(arm) in theirs]
    values = [v for v in first.study.shown if any(v in row.values for row in second.rows)]
    if not both or not values:
        what = "arm" if not both else "shown value"
        ends = [
            f"{name} has {described(r.rows[0].arm)} …: {', '.join(r.study.shown)}" for name, r in zip(names, (first, second), strict=True)
        ]
        raise InputError(f"the two runs have no {what} in common: {'; '.join(ends)}")
    lines = (_line(arm, v, a.values(v), b.values(v)) for arm, a, b in both for v in values)
    return Comparison(names, _differing(first, second), tuple(lines))


def _line(arm: Arm, value: str, first: Floats, second: Floats) -> Line:
    return Line(arm, value, summarised(first), summarised(second), higher(first, second))


def higher(first: Floats, second: Floats) -> float:
    """Returns the share of pairs in which the second is higher, ties half; NaN if one has no number."""
    a, b = (x[~np.isnan(x)] for x in (first, second))
    wins = (b[:, None] > a) + 0.5 * (b[:, None] == a)  # (second, first)
    return float(wins.mean()) if wins.size else math.nan


def _differing(first: StudyResult, second: StudyResult) -> dict[str, tuple[Any, Any]]:
    a, b = ({"study": r.study.name, "version": r.study.version, **r.run.fields} for r in (first, second))
    pairs = {name: (a.get(name), b.get(name)) for name in {**a, **b}}
    return {name: (x, y) for name, (x, y) in pairs.items() if canonical(x) != canonical(y)}


def _json(summary: Summary) -> dict[str, Any]:
    return {k: finite(v) for k, v in asdict(summary).items() if k != "published"}
