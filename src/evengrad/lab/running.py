"""Study -> StudyResult: each cell is computed once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from evengrad.errors import unknown
from evengrad.lab.factors import build
from evengrad.lab.study import Cell, Row, Rows, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Plan:
    """A study with some factors changed, ready to run."""

    kind: type[Study]
    factors: Mapping[str, Any]

    def run(self, *, quick: bool = False) -> StudyResult:
        study = build(self.kind, self.factors, quick=quick)
        started = time.perf_counter()
        cells = study.cells()
        rows = {id(cell): row for chunk in study.groups(cells) for cell, row in zip(chunk, _computed(study, chunk), strict=True)}
        return StudyResult(study, Rows(rows[id(cell)] for cell in cells), time.perf_counter() - started)


@dataclass(frozen=True)
class StudyResult:
    """What a study found.

    Attributes:
        study: The study, with the factors that were used.
        rows: A row for each cell, in the order of the study's cells.
        seconds: Wall-clock time of the run.
    """

    study: Study
    rows: Rows
    seconds: float

    @cached_property
    def answer(self) -> str:
        """The question answered in words, with the measured numbers."""
        return self.study.answer(self.rows)

    @property
    def figures(self) -> Mapping[str, Callable[[], Figure]]:
        """Pictures by caption, drawn when they are called."""
        return self.study.figures(self.rows)


def study(name: str, **factors: Any) -> Plan:
    """Returns the study called `name`, ready to run.

    Args:
        name: Its name, such as `two-circles`; `evengrad study list` shows them all.
        **factors: Fields of the study to change; one value in place of several is taken as that one.

    Raises:
        UnknownNameError: if there is no such study or factor; the nearest is offered.
        InputError: if a value does not fit its factor.
    """
    from evengrad.lab.studies import discovered

    known = discovered()
    if name not in known:
        raise unknown("study", name, known)
    build(known[name], factors)
    return Plan(known[name], factors)


def _computed(study: Study, chunk: list[Cell]) -> list[Row]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return study.compute(chunk)
    finally:
        torch.set_num_threads(threads)
