"""A path -> the database that lies there, open for reading; what is not a run is refused before SQLite touches it."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from evengrad.errors import InputError
from evengrad.store.layout import APPLICATION, SCHEMA, TABLES

MAGIC = b"SQLite format 3\0"
_PATIENCE = 10.0  # seconds to wait for a writer, where there is no write-ahead log
_NEED_A_COPY = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR}


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Opens a run's file for reading, as it is at this moment.

    Raises:
        InputError: if the file is not a run, is of a newer version, or is damaged.
    """
    try:
        _check_header(path)
        with ExitStack() as stack:
            yield _connected(path, stack)
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read: {error.strerror}. Give the path or the name of a run") from error
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
            raise InputError(f"{str(path)!r} is locked by another process; read it again in a moment") from error
        raise InputError(f"{str(path)!r} is damaged, or cut short ({error}); it was left as it is. Take another copy of it") from error


def _check_header(path: Path) -> None:
    """Looks at the first bytes before SQLite does, so that nothing is made beside a file that is not ours."""
    with path.open("rb") as file:
        head = file.read(100)
    if not head:
        raise InputError(f"{str(path)!r} is empty: expected a stored run, but its process ended before anything was written")
    if len(head) < 100 or not head.startswith(MAGIC):
        raise InputError(
            f"{str(path)!r} is not a stored run: expected an SQLite file, got {head[:16]!r}. Give the path or the name of a run"
        )
    application, schema = (int.from_bytes(head[at : at + 4], "big") for at in (68, 60))
    if application != APPLICATION:
        raise InputError(f"{str(path)!r} is another program's database: expected a stored run; it was left as it is")
    if schema > SCHEMA:
        raise InputError(f"{str(path)!r} has schema {schema}; this evengrad reads up to {SCHEMA}: install a newer one")


def _connected(path: Path, stack: ExitStack) -> sqlite3.Connection:
    """Opens the file where it lies, or, where SQLite would have to write beside it and may not, a copy."""
    try:
        return stack.enter_context(closing(_begun(path, "ro")))
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _NEED_A_COPY:
            raise
    folder = Path(stack.enter_context(TemporaryDirectory(prefix="evengrad-")))
    for suffix in ("", "-wal", "-journal"):
        beside = path.with_name(path.name + suffix)
        if beside.exists():
            shutil.copyfile(beside, folder / f"run{suffix}")
    return stack.enter_context(closing(_begun(folder / "run", "rw")))


def _begun(path: Path, mode: str) -> sqlite3.Connection:
    database = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=_PATIENCE, isolation_level=None)
    database.text_factory = lambda text: text.decode(errors="replace")  # damaged text is no error yet: its checksum tells
    try:
        database.execute("PRAGMA trusted_schema = OFF")
        database.execute("PRAGMA cell_size_check = ON")
        database.execute("BEGIN")  # one moment of it, however much is written meanwhile
        if dict(database.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")) != TABLES:
            raise InputError(f"{str(path)!r} does not have the tables of a run: expected {', '.join(TABLES)}; it was left as it is")
    except BaseException:
        database.close()
        raise
    return database
