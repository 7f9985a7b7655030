"""StudyResult: the rows of a run, and all that is said, counted and drawn from them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evengrad.errors import InputError
from evengrad.lab.rows import Run
from evengrad.lab.study import Rows, Study
from evengrad.lab.table import Table, finite, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class StudyResult:
    """What a study found.

    Attributes:
        study: The study, with the factors that were used.
        rows: A row for each cell, in the order of the study's cells.
        run: When, where and how long it ran, and what to type to run it again.
    """

    study: Study
    rows: Rows
    run: Run

    @cached_property
    def answer(self) -> str:
        """The question answered in words, with the measured numbers."""
        return self.study.answer(self.rows)

    @cached_property
    def table(self) -> Table:
        """Each arm's median and spread over seeds, beside what is published."""
        return table(self.study, self.rows)

    @property
    def figures(self) -> Mapping[str, Callable[[], Figure]]:
        """Pictures by caption, drawn when they are called."""
        return self.study.figures(self.rows)

    def to_json(self, *, rows: bool = True) -> str:
        """Returns one JSON document; numbers that are not finite are null, series are left out."""
        document: dict[str, Any] = {
            "study": self.study.name,
            "number": self.study.number,
            "question": self.study.question,
            "answer": self.answer,
            "factors": self.run.fields,
            "quick": self.run.quick,
            "table": self.table.to_json(),
            "run": {name: getattr(self.run, name) for name in ("finished", "seconds", "computed", "machine", "versions", "command")},
        }
        if rows:
            document["rows"] = [{"arm": r.arm, "seed": r.seed, "values": {k: finite(v) for k, v in r.values.items()}} for r in self.rows]
        return json.dumps(document, indent=2, allow_nan=False, default=list)

    def _repr_html_(self) -> str:
        from evengrad.lab.page import render
        from evengrad.report.notebook import framed

        try:
            page = render(self)
        except InputError:  # matplotlib is not installed: answer and table are shown without pictures
            page = render(self, drawn=False)
        return framed(page, title=self.study.name, otherwise=self.answer)

    def to_html(self, path: str | Path) -> Path:
        """Writes one page that loads nothing, and returns its path.

        Raises:
            InputError: if matplotlib, which draws the pictures, is not installed.
        """
        from evengrad.lab.page import write

        return write(self, path)
