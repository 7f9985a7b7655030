"""A watched training -> Parquet files: the tables of the CSV sink, typed and compressed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from evengrad.errors import InputError
from evengrad.sinks.base import Sink, clean, label, unused
from evengrad.types import Event, Floats, Layer, Run, Trace

_FILES = ("layers", "curves", "events")
_Frame = tuple[int, Mapping[str, Floats]]
_Maker = Callable[[list[Any]], Any]  # what is held -> a table


class Parquet(Sink):
    """Columnar tables, for runs that are long or have many layers.

    `layers.parquet` has step (int64), layer (dictionary) and a float32 column for each signal; `curves.parquet` has step and a float64
    column for each curve; `events.parquet` has step, kind and message. Null was not seen. Lines are held back until a row group is full, so
    that memory stays bounded. Files bear the ending `.part` until the run is closed, and cannot be read if the process is killed before;
    use CSV where that matters.

    Args:
        directory: Folder of the tables.
        lines: Lines of a row group, at least 1.

    Raises:
        InputError: if pyarrow is not installed, or `lines` is out of range.
    """

    name: ClassVar[str] = "parquet"

    def __init__(self, directory: str | Path, *, lines: int = 2**16) -> None:
        super().__init__(directory)
        if lines < 1:
            raise InputError(f"Parquet's lines, of a row group, must be at least 1; got {lines!r}")
        _arrow()
        self._lines, self._layers = lines, 0
        self._tables: dict[str, _Table] = {}

    def open(self, run: Run, layers: tuple[Layer, ...]) -> None:
        self._layers = len(layers)
        tables: tuple[_Maker, ...] = (partial(_layer_table, [label(x) for x in layers]), _table, _table)
        paths = unused(self.directory, _FILES, ".parquet")
        self._tables = {n: _Table(path, self._lines, made) for n, path, made in zip(_FILES, paths, tables, strict=True)}

    def write(self, step: int, columns: Mapping[str, Floats], points: Mapping[str, float]) -> None:
        if columns:
            self._tables["layers"].add((step, columns), self._layers)
        if points:
            self._tables["curves"].add({"step": step} | {name: float(value) for name, value in points.items()}, 1)

    def event(self, event: Event) -> None:
        self._tables["events"].add({"step": event.step, "kind": event.kind, "message": clean(event.message)}, 1)

    def close(self, trace: Trace) -> None:
        for table in self._tables.values():
            table.close()


class _Table:
    """One file of row groups. Where a column is met that it does not have, it is copied under the wider schema."""

    def __init__(self, path: Path, lines: int, made: _Maker) -> None:
        self._path, self._part, self._most, self._made = path, path.with_suffix(".parquet.part"), lines, made
        self._held: list[Any] = []
        self._lines = 0
        self._writer: Any = None

    def add(self, piece: object, lines: int) -> None:
        """Takes a piece of so many lines."""
        self._held.append(piece)
        self._lines += lines
        if self._lines >= self._most:
            self._flush()

    def close(self) -> None:
        """Writes what is held and gives the file its name."""
        if self._held:
            self._flush()
        if self._writer is not None:
            self._writer.close()
            self._part.replace(self._path)
            self._writer = None

    def _flush(self) -> None:
        group = self._made(self._held)
        self._held, self._lines = [], 0
        if self._writer is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = _writer(self._part, group.schema)
        elif set(group.column_names) - set(self._writer.schema.names):
            self._widen(_arrow().unify_schemas([self._writer.schema, group.schema]))
        self._writer.write_table(_fitted(group, self._writer.schema))

    def _widen(self, schema: Any) -> None:
        self._writer.close()
        copy = self._part.with_suffix(".copy")
        self._writer = _writer(copy, schema)
        with _arrow().parquet.ParquetFile(self._part) as old:
            for i in range(old.num_row_groups):
                self._writer.write_table(_fitted(old.read_row_group(i), schema))
        copy.replace(self._part)


def _layer_table(layers: Sequence[str], frames: Sequence[_Frame]) -> Any:
    pa = _arrow()
    rows = np.tile(np.arange(len(layers), dtype=np.int32), len(frames))
    unseen = np.full(len(layers), np.nan, np.float32)
    columns: dict[str, Any] = {
        "step": np.repeat(np.array([step for step, _ in frames], np.int64), len(layers)),
        "layer": pa.DictionaryArray.from_arrays(rows, pa.array(layers, pa.string())),
    }
    for name in dict.fromkeys(name for _, frame in frames for name in frame):
        values = np.concatenate([np.asarray(frame.get(name, unseen), np.float32) for _, frame in frames])
        columns[name] = pa.array(values, from_pandas=True)  # NaN becomes null
    return pa.table(columns)


def _table(lines: Sequence[Mapping[str, Any]]) -> Any:
    pa = _arrow()
    return pa.table({name: pa.array([line.get(name) for line in lines]) for name in dict.fromkeys(name for line in lines for name in line)})


def _fitted(table: Any, schema: Any) -> Any:
    pa = _arrow()
    names = table.column_names
    return pa.table({f.name: table[f.name] if f.name in names else pa.nulls(len(table), f.type) for f in schema}).cast(schema)


def _writer(path: Path, schema: Any) -> Any:
    return _arrow().parquet.ParquetWriter(path, schema, compression="zstd")


def _arrow() -> Any:
    try:
        importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise InputError("Parquet files are written with pyarrow, which is not installed: pip install 'evengrad[parquet]'") from error
    return sys.modules["pyarrow"]
