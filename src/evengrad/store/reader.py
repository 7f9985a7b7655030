"""A run's file, finished, growing or left behind by a killed process -> its Trace; the file stays as it is."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from evengrad.errors import InputError
from evengrad.store.layout import checked, made, unpacked
from evengrad.store.opening import opened
from evengrad.types import Curve, Event, Facts, Floats, Layer, Run, Steps, Trace

T = TypeVar("T")
Block = dict[str, Floats]

_ATTEMPTS = 10_000  # to get past pages that SQLite cannot read
_SHOWN = 5
_WORDS = {"about": "headers", "points": "pieces of curves"}


def read_run(path: str | Path, *, salvage: bool = False) -> Trace:
    """Reads a run, also while it is being written, or after its process was killed. Nothing in the file is executed or changed.

    Args:
        path: A file that `RunFile` wrote.
        salvage: Leave out what is damaged; an event of kind `fault` says what that was.

    Raises:
        InputError: if the file is not a run, is of a newer version, or is damaged.
    """
    with opened(Path(path)) as database:
        reader = Reader(database)
        try:
            trace = reader.trace(Path(path).stem)
        except (TypeError, ValueError, LookupError, AttributeError) as error:  # every checksum fits, but this is none of our making
            raise InputError(f"{str(path)!r} does not hold a run: {error}; it was left as it is") from error
        reader.look_at_pages()
    if not reader.damaged and not reader.pages:
        return trace
    if not salvage:
        raise InputError(
            f"{str(path)!r} is damaged: {reader.damage()} are not as they were written. It was left as it is; "
            f"salvage=True (--salvage) reads the rest"
        )
    last = int(trace.steps[-1]) if len(trace.steps) else 0
    fault = Event(step=last, kind="fault", message=f"the file of this run is damaged; left out: {reader.damage()}")
    return replace(trace, events=(*trace.events, fault))


class Reader:
    """Reads what an open file holds, and keeps account of what is damaged.

    Attributes:
        damaged: Table -> a label for each of its rows that is not as it was written.
        pages: What SQLite says is wrong with its own pages, or "".
    """

    def __init__(self, database: sqlite3.Connection) -> None:
        self.damaged: dict[str, list[str]] = {}
        self.pages = ""
        self._seen: dict[str, int] = {}
        self._database = database
        self._layouts: dict[int, tuple[list[str], list[int]]] = {}

    def about(self) -> dict[str, Any]:
        """Returns what is known beside the measurements: `name`, `created`, `run`, `layers`, `facts`, as far as they are there."""
        rows = self._database.execute("SELECT key, crc, data FROM about").fetchall()
        self._seen["about"] = len(rows)
        found = {key: self._intact("about", key, (crc, data, key), unpacked) for key, crc, data in rows}
        return {key: value for key, value in found.items() if value is not None}

    def trace(self, name: str) -> Trace:
        """Returns all that is intact; a run that did not come to say who it is gets `name`."""
        about = self.about()
        run: dict[str, Any] = {"name": about.get("name", name), "model": "", "parameters": 0, "samples": 0} | about.get("run", {})
        run["unseen"] = {str(topic): str(why) for topic, why in run.get("unseen", {}).items()}
        layers = tuple(made(Layer, x) for x in about.get("layers", ()))
        for number, crc, data in self._rows("layouts", "id, crc, data"):
            layout = self._intact("layouts", f"number {number}", (crc, data, "layout"), unpacked)
            if layout is not None:
                self._layouts[number] = layout
        steps, columns, planes = self._frames(len(layers))
        return Trace(
            run=made(Run, run),
            layers=layers,
            facts=made(Facts, about.get("facts", {})),
            steps=steps,
            columns=columns,
            curves=self._curves(),
            planes=planes,
            events=self._events(),
        )

    def look_at_pages(self) -> None:
        """Looks whether SQLite's own pages are whole: a damaged one may hide rows without a trace."""
        try:
            (found,) = self._database.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.DatabaseError as error:
            found = str(error)
        if found != "ok":
            self.pages = " ".join(found.replace("*** in database main ***", "").split())

    def damage(self) -> str:
        """Says which rows are damaged, and how many of how many: `2 of 160 frames (step 12, step 40)`."""
        parts = [
            f"{len(labels)} of {max(self._seen[table], len(labels))} {_WORDS.get(table, table)} ({_shown(labels)})"
            for table, labels in self.damaged.items()
        ]
        return " and ".join([*parts, f"SQLite's pages ({self.pages})"] if self.pages else parts)

    def _frames(self, layers: int) -> tuple[Steps, Block, Block]:
        found: dict[int, tuple[Block, Block]] = {}  # step -> columns, planes
        widths: dict[str, int] = {}

        def block(layout: int, data: bytes) -> tuple[Block, int]:
            names, shape = self._layouts[layout]
            if names and (shape[0] != layers or (len(shape) > 1 and widths.setdefault(names[0], shape[1]) != shape[1])):
                raise ValueError(f"shape {shape}")
            return dict(zip(names, np.frombuffer(data, "<f4").reshape(len(names), *shape), strict=True)), len(shape)

        for _, step, layout, crc, data in self._rows("frames", "id, step, layout, crc, data"):
            read = self._intact("frames", f"step {step}", (crc, data, step, layout), lambda d, n=layout: block(n, d))  # type: ignore[misc]
            if read is not None:
                found.setdefault(step, ({}, {}))[read[1] > 1].update(read[0])
        steps = np.array(sorted(found), np.int64)
        return steps, _stacked([found[int(s)][0] for s in steps]), _stacked([found[int(s)][1] for s in steps])

    def _curves(self) -> dict[str, Curve]:
        pieces: dict[str, list[Any]] = {}
        for _, layout, crc, data in self._rows("points", "id, layout, crc, data"):
            name = self._layouts[layout][0][0] if layout in self._layouts else "unknown"
            piece = self._intact("points", name, (crc, data, layout), lambda d: np.frombuffer(d, "<i8").reshape(2, -1))
            if piece is not None and layout in self._layouts:
                pieces.setdefault(name, []).append(piece)
        whole = {name: np.concatenate(found, axis=1) for name, found in pieces.items()}  # (2, N)
        return {name: Curve(x[0].astype(np.int64), x[1].view("<f8").astype(np.float64)) for name, x in whole.items()}

    def _events(self) -> tuple[Event, ...]:
        rows = self._rows("events", "id, crc, data")
        found = [self._intact("events", f"number {i}", (crc, data, "event"), lambda d: made(Event, unpacked(d))) for i, crc, data in rows]
        return tuple(event for event in found if event is not None)

    def _rows(self, table: str, columns: str) -> Iterator[tuple[Any, ...]]:
        """Yields the rows in order; those on pages that SQLite cannot read are passed over, and counted as damaged once."""
        last, self._seen[table] = 0, 0
        for attempt in range(_ATTEMPTS):
            try:
                for row in self._database.execute(f"SELECT {columns} FROM {table} WHERE id > ? ORDER BY id", [last]):
                    last = max(last, row[0])
                    self._seen[table] += 1
                    yield row
                return
            except sqlite3.DatabaseError:
                last += 1
                if attempt == 0:
                    self.damaged.setdefault(table, []).append("a part that cannot be reached")

    def _intact(self, table: str, label: str, row: tuple[Any, ...], decode: Callable[[bytes], T]) -> T | None:
        crc, data, *key = row
        try:
            if checked(data, *key)[0] == crc:
                return decode(data)
        except (TypeError, ValueError, LookupError, AttributeError, RecursionError):
            pass
        self.damaged.setdefault(table, []).append(label)
        return None


def _stacked(blocks: list[Block]) -> Block:
    """Arrays of each step -> arrays of all steps; NaN where a step has none."""
    shapes = {name: values.shape for block in blocks for name, values in block.items()}
    found = {name: np.full((len(blocks), *shape), np.nan, np.float32) for name, shape in shapes.items()}
    for i, block in enumerate(blocks):
        for name, values in block.items():
            found[name][i] = values
    return found


def _shown(labels: list[str]) -> str:
    names = list(dict.fromkeys(labels))
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
