"""Study -> StudyResult: each cell is computed once and kept, however often the study runs or is stopped."""

from __future__ import annotations

import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import evengrad
from evengrad.errors import InputError, unknown
from evengrad.lab.factors import build, command
from evengrad.lab.memory import fitting
from evengrad.lab.own import load
from evengrad.lab.packing import address
from evengrad.lab.result import StudyResult
from evengrad.lab.rows import Run, Store
from evengrad.lab.study import Cell, Rows, Study, canonical
from evengrad.lab.workers import Chunk, compute


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        done: Cells that are there.
        total: All cells.
        left: Estimate of the seconds that remain; None until a cell was computed.
        note: Something to tell, once; empty else.
    """

    done: int
    total: int
    left: float | None = None
    note: str = ""


Tell = Callable[[Progress], None]


@dataclass(frozen=True)
class Plan:
    """A study with some factors changed, ready to run."""

    kind: type[Study]
    factors: Mapping[str, Any]

    def study(self, *, quick: bool = False) -> Study:
        """Returns the study that is run, with its factors."""
        return build(self.kind, self.factors, quick=quick)

    def run(
        self,
        *,
        quick: bool = False,
        resume: bool = True,
        workers: int = 1,
        store: str | Path | None = None,
        progress: Tell | None = None,
    ) -> StudyResult:
        """Computes the cells that are not in the store, keeps each chunk as it comes, and returns them all.

        The result does not depend on `workers`, nor on whether and how often the run was stopped.

        Args:
            quick: Begin from the quick size.
            resume: Use stored rows; if False, all are computed and replaced.
            workers: Processes that compute chunks side by side; in a script, call this under `if __name__ == "__main__":`.
            store: Folder of the store; None for EVENGRAD_STORE, else the user's data folder.
            progress: Told after each chunk.

        Raises:
            InputError: if factors, memory or the store do not allow it.
            ForwardError: if the study's own code raises; the error names the cell and has the study's as its cause.
        """
        if workers < 1:
            raise InputError(f"workers must be at least 1; got {workers}")
        study, started = self.study(quick=quick), time.perf_counter()
        chunks = _chunks(study)
        keys = {_key(cell): address(study, cell, len(chunk), place) for chunk in chunks for place, cell in enumerate(chunk)}
        teller = _Teller(progress, len(keys))
        with Store(None if store is None else Path(store), teller.note) as kept:
            found = kept.find(list(keys.values())) if resume else {}
            missing = [chunk for chunk in chunks if any(keys[_key(cell)] not in found for cell in chunk)]
            computed = sum(map(len, missing))
            count = fitting(study, missing, 1 if study.timed else max(1, min(workers, len(missing))))
            teller.begin(len(keys) - computed, count)
            with _resumable(teller):
                for chunk, rows, seconds in compute(study, missing, count):
                    new = {keys[_key(cell)]: row for cell, row in zip(chunk, rows, strict=True)}
                    kept.put(study.name, new)
                    found |= new
                    teller.add(len(chunk), seconds)
            addresses = [keys[_key(cell)] for cell in study.cells()]
            run = _finished(study, quick, addresses, time.perf_counter() - started, computed)
            kept.add(run)
        return StudyResult(study, Rows(found[key] for key in addresses), run)


def study(name: str, **factors: Any) -> Plan:
    """Returns the study called `name`, ready to run.

    Args:
        name: Its name, such as `two-circles` (`evengrad study list` shows them all), or the file of one's own, such as `my_study.py`.
        **factors: Fields of the study to change; one value in place of several is taken as that one.

    Raises:
        UnknownNameError: if there is no such study or factor; the nearest is offered.
        InputError: if a value does not fit its factor, or the file holds no study.
        ForwardError: if the file raises.
    """
    kind = find(name)
    build(kind, factors)
    return Plan(kind, factors)


def find(name: str) -> type[Study]:
    """Returns the study of this name, or in this file."""
    from evengrad.lab.studies import discovered

    if name.endswith(".py"):
        return load(name)
    known = discovered()
    if name not in known:
        raise unknown("study", name, known)
    return known[name]


class _Teller:
    """Counts, and tells `progress` if there is one."""

    def __init__(self, progress: Tell | None, total: int) -> None:
        self._tell = progress or (lambda progress: None)
        self._total, self._done, self._found, self._seconds, self._workers = total, 0, 0, 0.0, 1

    def begin(self, found: int, workers: int) -> None:
        self._done = self._found = found
        self._workers = workers
        self._tell(Progress(found, self._total))

    def add(self, cells: int, seconds: float) -> None:
        self._done += cells
        self._seconds += seconds
        each = self._seconds / (self._done - self._found)
        self._tell(Progress(self._done, self._total, each * (self._total - self._done) / self._workers))

    def note(self, line: str) -> None:
        self._tell(Progress(self._done, self._total, note=line))

    def stopped(self) -> None:
        self.note(f"stopped: {self._done} of {self._total} cells are there; run it again, and it goes on from them")


@contextmanager
def _resumable(teller: _Teller) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        teller.stopped()
        raise


def _chunks(study: Study) -> list[Chunk]:
    """Returns the study's chunks, after a look whether they hold each cell once."""
    cells = study.cells()
    if not cells:
        raise InputError(f"study {study.name!r} has no arms with these factors")
    try:
        keys = [_key(cell) for cell in cells]
        canonical(vars(study))
    except (TypeError, ValueError) as error:
        raise InputError(f"study {study.name!r}: fields and arms are made of JSON values (numbers, text, lists); {error}") from error
    if len(set(keys)) < len(keys):
        (arm, _), _ = Counter(keys).most_common(1)[0]
        raise InputError(f"study {study.name!r} has an arm twice: {arm}. Arms must differ")
    chunks = [list(chunk) for chunk in study.groups(cells)]
    if sorted(_key(cell) for chunk in chunks for cell in chunk) != sorted(keys):
        raise InputError(f"study {study.name!r}: groups() must return each of the {len(cells)} cells once")
    return chunks


def _key(cell: Cell) -> tuple[str, int]:
    return canonical(cell.arm), cell.seed


def _finished(study: Study, quick: bool, addresses: list[str], seconds: float, computed: int) -> Run:
    return Run(
        study=study.name,
        file=study.source.path if study.source else "",
        quick=quick,
        fields={f.name: getattr(study, f.name) for f in fields(study)},
        addresses=addresses,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=seconds,
        computed=computed,
        machine=_machine(getattr(study, "device", "cpu")),
        versions={
            "evengrad": evengrad.__version__,
            "torch": version("torch"),
            "numpy": version("numpy"),
            "python": platform.python_version(),
        },
        command=command(study, quick),
    )


def _machine(device: str) -> str:
    host = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    if not device.startswith("cuda"):
        return host
    import torch

    return f"{host}, {torch.cuda.get_device_name(device)}"
