"""What a run measures, step by step -> a file that holds all of it, whatever happens to the process."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from evengrad.errors import EvengradError, InputError
from evengrad.store.layout import APPLICATION, SCHEMA, SUFFIX, TABLES, checked, packed
from evengrad.store.thinning import give_back, thin
from evengrad.types import Event, Facts, Floats, Layer, Run

Arrays = Mapping[int, Mapping[str, Floats]]
Points = np.ndarray[Any, Any]

_NOTHING: Mapping[Any, Any] = MappingProxyType({})
_PATIENCE = 5.0  # seconds to wait for a reader, where there is no write-ahead log
_JOURNAL = 8 * 2**20  # bytes that the log shrinks back to
_PIECE = 256  # points up to which the last piece of a curve is added to: of a day's writes, few rows are to be read


class StoreError(EvengradError):
    """A run cannot be written: what was written before is kept, the rest is not."""


class RunFile:
    """A run on its way into a file: what a `write` was given is there once it returns, even if the process is killed then.

    The file can be read while it is written. Past `max_bytes` it is thinned: every second sampled step between the first and the last 20,
    and every second point of long curves, go. One thread at a time may write. On a network disk, which cannot hold a write-ahead log, each
    write waits for the disk, and for readers: write seldom there.

    Args:
        path: Where the file will lie; nothing may be there.
        name: What the run is called; the file's stem otherwise.
        max_bytes: Size that the file keeps to. Layers, 40 sampled steps and a single `write` may need more.

    Raises:
        StoreError: if the file cannot be made.

    Example:
        >>> with RunFile.create(default_folder(), "stuck") as file:
        ...     file.write(run=run, layers=layers)
        ...     file.write(frames={0: {"grad_norm": norms}}, points={"loss": ([0], [2.3])})
    """

    def __init__(self, path: Path, *, name: str | None = None, max_bytes: int = 256 * 2**20) -> None:
        self.path = path
        self._max = self._limit = max_bytes
        self._layouts: dict[str, int] = {}
        self._tails: dict[int, tuple[int, Points]] = {}  # layout -> row of its curve's last piece, and the piece
        self._rows: int | None = None  # layers
        self._widths: dict[str, int] = {}  # of planes
        self._process = os.getpid()
        try:
            if path.exists() and path.stat().st_size:
                raise OSError(0, "a file is there already; it was left as it is")
            self._database = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise self._failure(error) from error
        try:
            _prepare(self._database, {"name": path.stem if name is None else name, "created": time.time()})
            self._identity = _identity(path)
        except (OSError, sqlite3.Error) as error:
            self._database.close()
            raise self._failure(error) from error

    @classmethod
    def create(cls, directory: Path, name: str, *, max_bytes: int = 256 * 2**20) -> RunFile:
        """Opens a new file in `directory`, which is made; where `name` is taken, `name-2`, `name-3` … are tried.

        Raises:
            StoreError: if nothing can be written there.
        """
        try:
            directory.mkdir(parents=True, exist_ok=True)
            path = _reserved(directory, re.sub(r"[^\w.+=@-]+", "_", name).strip("._")[:60] or "run")  # 60 letters of 4 bytes fit
        except OSError as error:
            raise StoreError(f"runs cannot be written to {str(directory)!r} ({error.strerror}). Give another folder") from error
        try:
            return cls(path, name=name, max_bytes=max_bytes)
        except StoreError:
            path.unlink(missing_ok=True)
            raise

    def __enter__(self) -> RunFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(
        self,
        *,
        run: Run | None = None,
        layers: Sequence[Layer] | None = None,
        facts: Facts | None = None,
        frames: Arrays = _NOTHING,
        planes: Arrays = _NOTHING,
        points: Mapping[str, tuple[Sequence[int], Sequence[float]]] = _NOTHING,
        events: Sequence[Event] = (),
    ) -> None:
        """Adds all of this in one transaction.

        Args:
            run: What is looked at; the last one given holds.
            layers: L rows, with the first columns or before them.
            facts: Direct evidence; the last given holds.
            frames: Sampled step -> column -> float32 (L,); a step that is there already gets these columns, too.
            planes: Sampled step -> plane -> float32 (L, K).
            points: Curve -> its next steps and values, both (N,).
            events: What happened.

        Raises:
            StoreError: if it cannot be written; what was written before is kept.
            InputError: if an array does not have a row a layer; nothing is written then.
        """
        rows, widths = self._shapes(layers, planes)
        with self._transaction():
            for key, value in (("run", run), ("layers", layers), ("facts", facts)):
                if value is not None:
                    _note(self._database, key, [asdict(x) for x in value] if isinstance(value, Sequence) else asdict(value))
            for step, columns in frames.items():
                self._add_frame(step, columns, (rows,))
            for step, named in planes.items():
                for name, plane in named.items():
                    self._add_frame(step, {name: plane}, (rows, widths.get(name)))
            for name, (steps, values) in points.items():
                self._add_points(name, np.asarray(steps, "<i8"), np.asarray(values, "<f8"))
            kept = [checked(packed(asdict(event)), "event") for event in events]
            self._database.executemany("INSERT INTO events (crc, data) VALUES (?, ?)", kept)
        self._rows, self._widths = rows, widths
        try:
            self._shrink()
        except sqlite3.Error as error:
            raise self._failure(error) from error

    @property
    def size(self) -> int:
        """Bytes of the file, without the log beside it, which has a few MB and goes when the file is closed."""
        pages, bytes_each = (self._database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
        return int(pages) * int(bytes_each)

    def close(self) -> None:
        """Ends the writing and leaves a single file; can be called twice."""
        if os.getpid() != self._process:  # a fork's copy: the file is its parent's
            return
        with suppress(sqlite3.Error):  # what was written is safe in the log beside the file, too
            self._database.execute("PRAGMA busy_timeout = 100")
            self._database.execute("PRAGMA journal_mode = DELETE")
        self._database.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        known, tails = dict(self._layouts), dict(self._tails)
        try:
            if os.getpid() != self._process:
                raise OSError(0, "another process opened it; open one file a process")
            if _identity(self.path) != self._identity:
                raise OSError(0, "another file has taken its place")
            self._database.execute("BEGIN IMMEDIATE")
            yield
            self._database.execute("COMMIT")
        except BaseException as error:
            self._layouts, self._tails = known, tails
            with suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")
            if isinstance(error, (OSError, sqlite3.Error)):
                raise self._failure(error) from error
            raise

    def _shapes(self, layers: Sequence[Layer] | None, planes: Arrays) -> tuple[int | None, dict[str, int]]:
        """What the arrays of a run must agree in: its number of layers, and the width K of each plane."""
        if layers is not None and self._rows not in (None, len(layers)):
            raise InputError(f"the run has {self._rows} layers; got {len(layers)}. Write another run into another file")
        found = {name: np.shape(plane)[-1] for named in planes.values() for name, plane in named.items() if np.ndim(plane)}
        return self._rows if layers is None else len(layers), found | self._widths

    def _add_frame(self, step: int, columns: Mapping[str, Floats], shape: tuple[int | None, ...]) -> None:
        if columns and shape[0] is None:
            raise InputError(f"step {step} has columns, but the run has no layers yet; give layers= with the first columns, or before")
        for name, values in columns.items():
            if np.shape(values) != shape:
                raise InputError(f"{name!r} of step {step} has shape {np.shape(values)}; expected {shape}, a row a layer")
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite
            data = np.array(list(columns.values()), "<f4").tobytes()
        layout = self._layout(*columns, shape=[n or 0 for n in shape] if columns else [])
        row = (*checked(data, int(step), layout), int(step), layout)
        self._database.execute("INSERT INTO frames (crc, data, step, layout) VALUES (?, ?, ?, ?)", row)

    def _add_points(self, name: str, steps: Points, values: Points) -> None:
        if steps.shape != values.shape or steps.ndim != 1:
            raise InputError(f"curve {name!r} has steps of shape {steps.shape} and values of shape {values.shape}; expected (N,) of both")
        layout = self._layout(name, shape=[])
        piece = np.stack([steps, values.view("<i8")])  # (2, N)
        row, tail = self._tails.get(layout, (0, piece[:, :0]))
        if row and tail.shape[1] + piece.shape[1] <= _PIECE:
            piece = np.concatenate([tail, piece], axis=1)
            self._database.execute("UPDATE points SET crc = ?, data = ? WHERE id = ?", (*checked(piece.tobytes(), layout), row))
        else:
            added = (*checked(piece.tobytes(), layout), layout)
            row = self._database.execute("INSERT INTO points (crc, data, layout) VALUES (?, ?, ?)", added).lastrowid or 0
        self._tails[layout] = row, piece

    def _layout(self, *names: str, shape: list[int]) -> int:
        """The number under which these names are kept, so that rows stay small."""
        key = json.dumps([names, shape])
        if key not in self._layouts:
            row = self._database.execute("INSERT INTO layouts (crc, data) VALUES (?, ?)", checked(key.encode(), "layout"))
            self._layouts[key] = int(row.lastrowid or 0)
        return self._layouts[key]

    def _shrink(self) -> None:
        """Thins a file that is too large until it is small enough, or nothing is left that may go."""
        if self.size <= self._limit:
            return
        while self.size > self._max:
            with self._transaction():
                self._tails.clear()
                thinned = thin(self._database)
            give_back(self._database)
            if not thinned:
                break
        self._limit = max(self._max, self.size + self._max // 8)  # not at every write, where nothing can go

    def _failure(self, error: Exception) -> StoreError:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return StoreError(
            f"the run cannot be written to {str(self.path)!r} ({reason}); what was written before is kept. Give another place"
        )


def _reserved(directory: Path, stem: str) -> Path:
    number = 1
    while True:
        path = directory / f"{stem}{f'-{number}' if number > 1 else ''}{SUFFIX}"
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            number += 1
        else:
            return path


def _prepare(database: sqlite3.Connection, about: Mapping[str, Any]) -> None:
    database.execute("PRAGMA auto_vacuum = INCREMENTAL")  # before there is a table
    database.execute("BEGIN IMMEDIATE")
    for statement in TABLES.values():
        database.execute(statement)
    for key, value in about.items():
        _note(database, key, value)
    database.execute(f"PRAGMA application_id = {APPLICATION}")
    database.execute(f"PRAGMA user_version = {SCHEMA}")
    database.execute("COMMIT")
    with suppress(sqlite3.OperationalError):  # a network disk has no shared memory; it stays with a rollback journal
        database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    database.execute("PRAGMA secure_delete = OFF")  # some builds write zeros over all that is thinned out
    database.execute(f"PRAGMA journal_size_limit = {_JOURNAL}")


def _note(database: sqlite3.Connection, key: str, value: Any) -> None:
    database.execute("INSERT OR REPLACE INTO about (key, crc, data) VALUES (?, ?, ?)", (key, *checked(packed(value), key)))


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino
