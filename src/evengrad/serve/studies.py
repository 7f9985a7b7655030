"""The file that keeps studies -> their finished runs and rows, read without torch; nothing in it is executed or changed."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from evengrad.errors import InputError
from evengrad.lab.packing import checksum, unpacked
from evengrad.lab.rows import SCHEMA, Run
from evengrad.lab.study import Row, Rows

_APPLICATION = 0x45474C42  # "EGLB", as evengrad.lab.rows writes it
_TABLES = {  # as evengrad.lab.rows makes them: a virtual table or a view of that name would run code of its own
    "rows": "CREATE TABLE rows (address TEXT PRIMARY KEY, study TEXT NOT NULL, payload BLOB NOT NULL, checksum BLOB NOT NULL)",
    "runs": "CREATE TABLE runs (id INTEGER PRIMARY KEY AUTOINCREMENT, study TEXT NOT NULL, record TEXT NOT NULL)",
}


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A finished run of a study: its number in the file, what it was, and how many of its rows are there."""

    number: int
    run: Run


def finished(folder: Path) -> list[Finished]:
    """Lists the finished runs in a folder's store, newest first; none, if there is no store.

    Raises:
        InputError: if the file is not one that evengrad wrote, or is damaged.
    """
    with _opened(folder) as database:
        if database is None:
            return []
        found = [_finished(number, record) for number, record in database.execute("SELECT id, record FROM runs ORDER BY id DESC")]
    return [one for one in found if one is not None]


def rows_of(folder: Path, run: Run) -> Rows:
    """Returns the rows of a run that are there and undamaged.

    Raises:
        InputError: if the file is not one that evengrad wrote, or is damaged.
    """
    with _opened(folder) as database:
        return Rows(_rows(database, run)) if database is not None else Rows()


def _rows(database: sqlite3.Connection, run: Run) -> Iterator[Row]:
    for address in run.addresses:
        found = database.execute("SELECT payload, checksum FROM rows WHERE address = ?", [address]).fetchone()
        if found is not None and found[1] == checksum(address, found[0]):
            try:
                yield unpacked(found[0])
            except (ValueError, TypeError, KeyError, LookupError) as error:
                raise InputError(f"a row of the study {run.study!r} holds something else than a row: {error}") from error


def quartiles(values: npt.NDArray[np.float64]) -> tuple[float, float, float, float, float] | None:
    """Returns smallest, lower quartile, median, upper quartile and largest of what is finite; None of nothing."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return None
    low, lower, median, upper, high = (float(x) for x in np.quantile(finite, (0, 0.25, 0.5, 0.75, 1)))
    return low, lower, median, upper, high


def _finished(number: int, record: str) -> Finished | None:
    try:
        values: Mapping[str, Any] = json.loads(record)
        run = Run(**{f.name: values[f.name] for f in fields(Run)})
        plain = isinstance(run.study, str) and all(isinstance(a, str) for a in run.addresses) and isinstance(run.fields, dict)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return Finished(number=number, run=run) if plain else None


@contextmanager
def _opened(folder: Path) -> Iterator[sqlite3.Connection | None]:
    path = folder / "studies.sqlite"
    if not path.is_file():
        yield None
        return
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as database:
            database.execute("PRAGMA trusted_schema = OFF")
            database.execute("PRAGMA query_only = ON")
            _check(database, path)
            yield database
    except (sqlite3.DatabaseError, OSError) as error:
        raise InputError(f"{path.name!r} is damaged, or not a database ({error}); it was left as it is") from error


def _check(database: sqlite3.Connection, path: Path) -> None:
    (application,), (schema,) = (database.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version"))
    if application != _APPLICATION:
        raise InputError(f"{path.name!r} is another program's database: expected a store of studies; it was left as it is")
    if schema != SCHEMA:
        raise InputError(f"{path.name!r} has schema {schema}; this evengrad reads {SCHEMA}")
    made = dict(database.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))
    if any(made.get(name, "").strip() != statement for name, statement in _TABLES.items()):
        raise InputError(f"{path.name!r} does not have the tables of a store of studies; it was left as it is")
