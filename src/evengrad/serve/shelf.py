"""A folder of runs -> entries by opaque ids: no text of a request ever becomes a path."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

from evengrad.errors import InputError
from evengrad.store import SUFFIX

TRASH = "trash"
_STILL = 10.0  # seconds without a write after which a run with a log beside it was left behind, not running
_BESIDE = ("", "-wal", "-shm")

Version = tuple[int, int, int, int]  # size and time of the file and of the log beside it


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file in the folder, as it is now.

    Attributes:
        id: Opaque name that links use; the same as long as the file is called the same.
        path: Where it lies.
        version: Changes whenever something is written.
        live: Whether it is being written.
    """

    id: str
    path: Path
    version: Version
    live: bool

    @property
    def stamp(self) -> str:
        """The version as text, for a client to compare; a run that stands still is judged anew."""
        return "-".join(map(str, (*self.version, int(self.live))))


class Shelf:
    """Lists a folder anew at each question, and finds entries by their ids in that list only.

    Args:
        folder: The folder; it need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def entries(self) -> dict[str, Entry]:
        """Returns what is there, by id."""
        try:
            with os.scandir(self.folder) as found:
                files = {item.name: item for item in found}
        except OSError:
            return {}
        entries = (_entry(Path(item.path), item, files.get(f"{name}-wal")) for name, item in files.items() if name.endswith(SUFFIX))
        return {entry.id: entry for entry in entries if entry is not None}

    def entry(self, key: str) -> Entry | None:
        """Returns the entry of this id, or None."""
        return self.entries().get(key)

    def again(self, entry: Entry) -> Entry | None:
        """Looks at one entry once more; None if it is gone."""
        try:
            own, log = entry.path.stat(), entry.path.with_name(f"{entry.path.name}-wal")
            return _made(entry.path, own, log.stat() if log.exists() else None)
        except OSError:
            return None

    @property
    def trash(self) -> Shelf:
        """What was deleted here."""
        return Shelf(self.folder / TRASH)

    def discard(self, entry: Entry) -> Path:
        """Moves a run, and what lies beside it, into the folder's trash, and returns its place there.

        Raises:
            InputError: if it is being written, or cannot be moved.
        """
        if entry.live:
            raise InputError(f"{entry.path.name!r} is being written; stop the training before its run is deleted")
        return _moved(entry.path, self.folder / TRASH)

    def restore(self, entry: Entry) -> Path:
        """Moves a run from the trash back, under another name if its own was taken meanwhile, and returns its place.

        Raises:
            InputError: if it cannot be moved.
        """
        return _moved(entry.path, self.folder)


def key_of(path: Path) -> str:
    """Returns the opaque name of a file."""
    return hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]


def _moved(path: Path, folder: Path) -> Path:
    try:
        folder.mkdir(exist_ok=True)
        place = _free(folder, path.name)
        for ending in reversed(_BESIDE):  # the log first: a file without its log would look finished
            source = path.with_name(path.name + ending)
            if source.exists():
                source.rename(place.with_name(place.name + ending))
    except OSError as error:
        raise InputError(f"{path.name!r} cannot be moved to {folder.name!r} ({error.strerror}); it was left as it is") from error
    return place


def _entry(path: Path, item: os.DirEntry[str], log: os.DirEntry[str] | None) -> Entry | None:
    try:
        return _made(path, item.stat(), None if log is None else log.stat()) if item.is_file() else None
    except OSError:  # it went meanwhile
        return None


def _made(path: Path, own: os.stat_result, log: os.stat_result | None) -> Entry:
    written = own.st_mtime if log is None else max(own.st_mtime, log.st_mtime)
    version = (own.st_size, own.st_mtime_ns, *((0, 0) if log is None else (log.st_size, log.st_mtime_ns)))
    return Entry(id=key_of(path), path=path, version=version, live=log is not None and time.time() - written < _STILL)


def _free(folder: Path, name: str) -> Path:
    place, number = folder / name, 1
    while any(place.with_name(place.name + ending).exists() for ending in _BESIDE):
        number += 1
        place = folder / f"{name.removesuffix(SUFFIX)}-{number}{SUFFIX}"
    return place
