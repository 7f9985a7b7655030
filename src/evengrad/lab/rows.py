"""address -> row: measured rows and finished runs, kept in one SQLite file."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evengrad.errors import InputError
from evengrad.lab.packing import checksum, packed, unpacked
from evengrad.lab.study import Row
from evengrad.store import default_folder

SCHEMA = 1
_APPLICATION = 0x45474C42  # "EGLB"
_AT_ONCE = 500  # old builds of SQLite take 999 variables
_TABLES = """
CREATE TABLE rows (address TEXT PRIMARY KEY, study TEXT NOT NULL, payload BLOB NOT NULL, checksum BLOB NOT NULL);
CREATE TABLE runs (id INTEGER PRIMARY KEY AUTOINCREMENT, study TEXT NOT NULL, record TEXT NOT NULL);
CREATE INDEX runs_of_a_study ON runs (study);
"""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run: what it takes to show it again without running it.

    Attributes:
        study: Name of the study.
        file: The user's file that it comes from; empty for a study of ours or of a package.
        quick: Whether it began from the quick size.
        fields: Every field of the study.
        addresses: Of its rows, in the order of the study's cells.
        finished: Time of day, ISO 8601, UTC.
        seconds: Wall-clock seconds, of which rows that were found cost next to nothing.
        computed: Number of rows that were computed, not found.
        machine: System, processor, cores.
        versions: Of evengrad, torch, numpy and Python.
        command: What to type to get it again.
    """

    study: str
    file: str
    quick: bool
    fields: Mapping[str, Any]
    addresses: Sequence[str]
    finished: str
    seconds: float
    computed: int
    machine: str
    versions: Mapping[str, str]
    command: str


class Store:
    """Rows by address, and runs; a row is whole and right, or not there.

    What cannot be kept is not an error: nothing more is written, and `warn` is told once.

    Args:
        folder: Where `studies.sqlite` lies or will lie; None for `default_folder()`.
        warn: Told in a sentence when nothing can be kept.
        create: Make the file if there is none; else the store is empty then.

    Raises:
        InputError: if the file there is damaged, another program's, or of another version; it is left as it is.
    """

    def __init__(self, folder: Path | None = None, warn: Callable[[str], None] = lambda line: None, *, create: bool = True) -> None:
        self.path = (folder or default_folder()) / "studies.sqlite"
        self._warn = warn
        self._writable = True
        self._database = self._opened() if create or self.path.exists() else _empty()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def find(self, addresses: Sequence[str]) -> dict[str, Row]:
        """Returns the rows that are there and undamaged, by address."""
        found = {}
        for start in range(0, len(addresses), _AT_ONCE):
            part = addresses[start : start + _AT_ONCE]
            query = f"SELECT address, payload, checksum FROM rows WHERE address IN ({','.join('?' * len(part))})"
            for key, payload, check in self._read(query, part):
                if check == checksum(key, payload):
                    found[key] = unpacked(payload)
        return found

    def put(self, study: str, rows: Mapping[str, Row]) -> None:
        """Keeps rows under their addresses, all or none, in place of any that are there."""
        payloads = {key: packed(row) for key, row in rows.items()}
        self._write("INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?)", [(k, study, p, checksum(k, p)) for k, p in payloads.items()])

    def add(self, run: Run) -> None:
        """Notes a finished run."""
        self._write("INSERT INTO runs (study, record) VALUES (?, ?)", [(run.study, json.dumps(asdict(run)))])

    def runs(self, study: str) -> list[Run]:
        """Lists the finished runs of a study, oldest first."""
        return [Run(**json.loads(r)) for (r,) in self._read("SELECT record FROM runs WHERE study = ? ORDER BY id", [study])]

    def studies(self) -> list[str]:
        """Lists the names of studies that have a finished run."""
        return [name for (name,) in self._read("SELECT DISTINCT study FROM runs ORDER BY study", [])]

    def _opened(self) -> sqlite3.Connection:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise InputError(f"the store {str(self.path.parent)!r} cannot be made: a file is in its way. Give a folder") from error
        except OSError as error:
            self._give_up(error)
            return _empty()
        database = None
        try:
            database = sqlite3.connect(self.path, timeout=60, isolation_level=None)
            self._prepare(database)
        except (sqlite3.DatabaseError, InputError) as error:
            if database is not None:
                database.close()
            if isinstance(error, sqlite3.OperationalError):
                self._give_up(error)
                return _empty()
            raise error if isinstance(error, InputError) else self._damaged(error) from error
        return database

    def _prepare(self, database: sqlite3.Connection) -> None:
        if not self._ours(database):
            database.execute("BEGIN IMMEDIATE")  # of several that start at once, one makes the tables
            if not self._ours(database):
                for statement in _TABLES.split(";"):
                    database.execute(statement)
                database.execute(f"PRAGMA application_id = {_APPLICATION}")
                database.execute(f"PRAGMA user_version = {SCHEMA}")
            database.execute("COMMIT")
        try:
            database.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:  # a network disk, which has no shared memory
            database.execute("PRAGMA journal_mode = DELETE")

    def _ours(self, database: sqlite3.Connection) -> bool:
        """Whether the tables are there; False for an empty file."""
        (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables == 0:
            return False
        (application,) = database.execute("PRAGMA application_id").fetchone()
        if application != _APPLICATION:
            raise InputError(f"{str(self.path)!r} is another program's database; it was left as it is. Give another store")
        (schema,) = database.execute("PRAGMA user_version").fetchone()
        if schema != SCHEMA:
            raise InputError(
                f"{str(self.path)!r} was written by another version of evengrad: it has schema {schema}, expected {SCHEMA}; "
                f"it was left as it is. Use that version, or give another store"
            )
        return True

    def _read(self, query: str, values: Sequence[str]) -> list[tuple[Any, ...]]:
        try:
            return self._database.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from error

    def _write(self, statement: str, values: list[tuple[Any, ...]]) -> None:
        if not self._writable:
            return
        try:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany(statement, values)
            self._database.execute("COMMIT")
        except sqlite3.OperationalError as error:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            self._give_up(error)
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from error

    def _give_up(self, error: Exception) -> None:
        self._writable = False
        reason = error.strerror if isinstance(error, OSError) else str(error)
        self._warn(f"nothing is kept: {str(self.path)!r} cannot be written ({reason}). Results are shown, but are lost afterwards")

    def _damaged(self, error: Exception) -> InputError:
        return InputError(
            f"{str(self.path)!r} is damaged, or not a database ({error}); it was left as it is. Move it away, or give another store"
        )


def _empty() -> sqlite3.Connection:
    database = sqlite3.connect(":memory:")
    database.executescript(_TABLES)
    return database
