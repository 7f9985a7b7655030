"""rows -> table: an arm a line, the median and spread over seeds of each value, published numbers beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evengrad.lab.published import position
from evengrad.lab.study import Arm, Floats, Published, Rows, Study, matches, quantile, written
from evengrad.report.numbers import number


@dataclass(frozen=True)
class Summary:
    """One value of one arm over its seeds.

    Attributes:
        seeds: Number of seeds that have the value.
        median: Median over them; NaN of none.
        low: 10% quantile.
        high: 90% quantile.
        published: Published numbers that belong here, each with where it lies.
    """

    seeds: int
    median: float
    low: float
    high: float
    published: tuple[tuple[Published, str], ...] = ()

    def __str__(self) -> str:
        if self.seeds == 0:
            return "–"
        spread = f" [{number(self.low)}, {number(self.high)}]" if self.seeds > 1 else ""
        return f"{number(self.median)}{spread}"


@dataclass(frozen=True)
class Table:
    """What was measured, arm by arm.

    Attributes:
        factors: Names of what distinguishes the arms.
        values: Names of the values that are shown.
        lines: Each arm, its number of seeds and a summary of each value.
    """

    factors: tuple[str, ...]
    values: tuple[str, ...]
    lines: tuple[tuple[Arm, int, tuple[Summary, ...]], ...]

    @property
    def header(self) -> list[str]:
        """Names of the columns."""
        columns = [
            column for i, value in enumerate(self.values) for column in (self._words(value), *(["published"] if self._has(i) else []))
        ]
        return [*map(self._words, self.factors), "seeds", *columns]

    def texts(self) -> Iterator[list[str]]:
        """Yields the cells of each line as text, median [10%, 90%] over seeds."""
        for arm, seeds, summaries in self.lines:
            cells = [written(arm[f]) if f in arm else "" for f in self.factors] + [str(seeds)]
            for i, summary in enumerate(summaries):
                partly = f" ({summary.seeds} seeds)" if 0 < summary.seeds < seeds else ""
                cells.append(f"{summary}{partly}")
                if self._has(i):
                    cells.append("; ".join(f"{number(p.number)}, {words}" for p, words in summary.published))
            yield cells

    def to_json(self) -> list[dict[str, Any]]:
        """Returns a JSON object an arm; what is not a finite number is null."""
        return [
            {
                "arm": dict(arm),
                "seeds": seeds,
                "values": {name: _json(summary) for name, summary in zip(self.values, summaries, strict=True)},
            }
            for arm, seeds, summaries in self.lines
        ]

    def _has(self, column: int) -> bool:
        return any(summaries[column].published for _, _, summaries in self.lines)

    @staticmethod
    def _words(name: str) -> str:
        return name.replace("_", " ")


def table(study: Study, rows: Rows) -> Table:
    """Returns the table of a study's rows."""
    lines, published = [], study.comparable()
    for arm, own in rows.by_arm():
        lines.append((arm, len(own), tuple(_summary(published, arm, name, own) for name in study.shown)))
    factors = dict.fromkeys(name for arm, _, _ in lines for name in arm)
    return Table(tuple(factors), study.shown, tuple(lines))


def summarised(values: Floats, published: tuple[tuple[Published, str], ...] = ()) -> Summary:
    """Returns median and spread of the values that are not NaN."""
    known = int(np.sum(~np.isnan(values)))
    return Summary(known, quantile(values, 0.5), quantile(values, 0.1), quantile(values, 0.9), published)


def finite(value: float) -> float | None:
    """Returns the number, or None for JSON where it is not finite."""
    return value if np.isfinite(value) else None


def _summary(published: Sequence[Published], arm: Arm, name: str, rows: Rows) -> Summary:
    values = rows.values(name)
    own = [p for p in published if p.value == name and matches(p.arm, arm)]
    return summarised(values, tuple((p, position(p.number, values)) for p in own))


def _json(summary: Summary) -> dict[str, Any]:
    published = [{"number": p.number, "source": p.source, "position": words} for p, words in summary.published]
    spread = {name: finite(getattr(summary, name)) for name in ("median", "low", "high")}
    return {"seeds": summary.seeds, **spread, "published": published}
