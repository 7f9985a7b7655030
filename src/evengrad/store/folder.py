"""A folder of runs, and a name -> the runs in it, and the one that is meant."""

from __future__ import annotations

import difflib
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from evengrad.errors import InputError, UnknownNameError, unknown
from evengrad.store.layout import SUFFIX
from evengrad.store.opening import opened
from evengrad.store.reader import Reader

_SHOWN = 10
_FAR = 1e11  # seconds; the year 5138


@dataclass(frozen=True, kw_only=True)
class StoredRun:
    """A file in a folder of runs.

    Attributes:
        path: Where it lies.
        name: What the run was called when it began; several runs may be called the same.
        created: When it began, in seconds since 1970.
    """

    path: Path
    name: str
    created: float


def default_folder() -> Path:
    """Returns EVENGRAD_STORE, else `evengrad` in the user's data folder."""
    if chosen := os.environ.get("EVENGRAD_STORE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "evengrad"


def list_runs(directory: Path) -> list[StoredRun]:
    """Lists the runs in a folder, newest first; one that cannot be read is there under its file's name and time."""
    runs = [_described(path) for path in directory.glob(f"*{SUFFIX}") if path.is_file()]
    return sorted(runs, key=lambda run: (run.created, run.path.name), reverse=True)


def find_run(name: str, directory: Path) -> Path:
    """Finds a run: the path of any file, or, in `directory`, the name of a file with or without its ending, or of a run.

    Raises:
        InputError: if several runs are called so.
        UnknownNameError: if there is none.
    """
    for path in (Path(name), directory / name):
        with suppress(OSError):  # such as a name that is too long for a file
            if path.is_file():
                return path
    runs = list_runs(directory)
    found = [run for run in runs if name in {run.name, run.path.stem}]
    if len(found) == 1:
        return found[0].path
    if found:
        several = ", ".join(f"{run.path.name} ({time.strftime('%Y-%m-%d %H:%M', time.localtime(run.created))})" for run in found[:_SHOWN])
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise InputError(f"{len(found)} runs in {str(directory)!r} are called {name!r}, newest first: {several}{more}. Give one of these")
    if not runs:
        raise UnknownNameError(f"no file is called {name!r}, and there is no run in {str(directory)!r}. Give a path, or --store FOLDER")
    names = list(dict.fromkeys(x for run in runs for x in (run.path.stem, run.name)))
    raise unknown("run", name, {*names[:_SHOWN], *difflib.get_close_matches(name, names, n=1, cutoff=0.5)})


def _described(path: Path) -> StoredRun:
    try:
        with opened(path) as database:
            about = Reader(database).about()
    except InputError:
        about = {}
    name, created = about.get("name"), about.get("created")
    return StoredRun(
        path=path,
        name=name if isinstance(name, str) else path.stem,
        created=float(created) if isinstance(created, int | float) and 0 <= created < _FAR else path.stat().st_mtime,
    )
