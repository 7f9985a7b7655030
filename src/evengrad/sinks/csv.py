"""A watched training -> CSV files: a line for each layer and sampled step, a line for each step of the curves, a line for each event."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, ClassVar

from evengrad.sinks.base import Sink, clean, label, unused
from evengrad.types import Event, Floats, Layer, Run, Trace

_FILES = ("layers", "curves", "events")


class CSV(Sink):
    """Tables that pandas, R or a spreadsheet open, each written through at every step.

    `layers.csv` has the columns step, layer (in the order in which data meets them) and one for each signal; `curves.csv` has step and one
    for each curve; `events.csv` has step, kind and message. An empty cell was not seen; `inf` in a layer was not finite, and a curve may
    hold `nan`, too. A file that is there already is left alone: the tables of the next run are `layers-2.csv` and so on.

    Args:
        directory: Folder of the tables.
    """

    name: ClassVar[str] = "csv"

    def __init__(self, directory: str | Path) -> None:
        super().__init__(directory)
        self._layers: list[str] = []
        self._tables: dict[str, _Table] = {}

    def open(self, run: Run, layers: tuple[Layer, ...]) -> None:
        self._layers = [label(layer) for layer in layers]
        layer_file, curve_file, event_file = unused(self.directory, _FILES, ".csv")
        self._tables = {
            "layers": _Table(layer_file, ("step", "layer")),
            "curves": _Table(curve_file, ("step",)),
            "events": _Table(event_file, ("step", "kind", "message")),
        }

    def write(self, step: int, columns: Mapping[str, Floats], points: Mapping[str, float]) -> None:
        if columns:
            cells = {name: ["" if text == "nan" else text for text in map(str, column)] for name, column in columns.items()}
            self._tables["layers"].add({"step": [str(step)] * len(self._layers), "layer": self._layers} | cells)
        if points:
            self._tables["curves"].add({"step": [str(step)]} | {name: [str(float(v))] for name, v in points.items()})

    def event(self, event: Event) -> None:
        self._tables["events"].add({"step": [str(event.step)], "kind": [event.kind], "message": [clean(event.message)]})

    def close(self, trace: Trace) -> None:
        for table in self._tables.values():
            table.close()


class _Table:
    """One file; it appears with its first line, and grows a column when one is met that it does not have."""

    def __init__(self, path: Path, header: Sequence[str]) -> None:
        self._path, self._header = path, list(header)
        self._file: IO[str] | None = None

    def add(self, columns: Mapping[str, Sequence[str]]) -> None:
        """Adds lines, given by columns, and writes them through."""
        lines = len(columns["step"])
        new = [name for name in columns if name not in self._header]
        self._header += new
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("x", encoding="utf-8", newline="")
            _writer(self._file).writerow(self._header)
        elif new:
            self._file.close()
            self._file = self._widened()
        _writer(self._file).writerows(zip(*(columns.get(name, [""] * lines) for name in self._header), strict=True))
        self._file.flush()

    def close(self) -> None:
        """Closes the file, if there is one."""
        if self._file is not None:
            self._file.close()

    def _widened(self) -> IO[str]:
        """Copies the file under the wider header and puts the copy in its place: a whole file lies there at any time."""
        copy = self._path.with_suffix(".csv.part")
        with self._path.open(encoding="utf-8", newline="") as old, copy.open("w", encoding="utf-8", newline="") as file:
            rows = csv.reader(old)
            next(rows)
            _writer(file).writerow(self._header)
            _writer(file).writerows(row + [""] * (len(self._header) - len(row)) for row in rows)
        copy.replace(self._path)
        return self._path.open("a", encoding="utf-8", newline="")


def _writer(file: IO[str]) -> Any:
    return csv.writer(file, lineterminator="\n")
