"""A file of a run that has grown too large -> half as many sampled steps and points, and their space given back."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from evengrad.store.layout import checked

T = TypeVar("T")

_FIRST, _LAST = 20, 20  # sampled steps, and points of a curve, that never go
_LONG = 1000  # points, or events; where there are fewer, all stay
_PAGES = 2000  # given back at a time, so that the log stays small


def thin(database: sqlite3.Connection) -> bool:
    """Drops every second sampled step, point of long curves and event of the middle; False if there was nothing to drop."""
    before = database.total_changes
    _thin_frames(database)
    for layout, pieces in database.execute("SELECT layout, count(*) FROM points GROUP BY layout").fetchall():
        _thin_curve(database, layout, pieces)
    events = [i for (i,) in database.execute("SELECT id FROM events ORDER BY id")]
    if len(events) > _LONG:
        _delete(database, "events", events, thinned(events))
    return database.total_changes > before


def give_back(database: sqlite3.Connection) -> None:
    """Returns free pages to the file system."""
    free, before = _free(database), None
    while free and free != before:
        database.executescript(f"PRAGMA incremental_vacuum({_PAGES})")  # `execute` would give back one page
        database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        free, before = _free(database), free


def thinned(items: Sequence[T]) -> list[T]:
    """Returns the first and the last 20, and every second one between them."""
    return [*items[:_FIRST], *items[_FIRST:-_LAST:2], *items[-_LAST:]] if len(items) > _FIRST + _LAST else list(items)


def _thin_frames(database: sqlite3.Connection) -> None:
    rows = database.execute("SELECT id, step FROM frames").fetchall()
    kept = set(thinned(sorted({step for _, step in rows})))
    _delete(database, "frames", [i for i, _ in rows], [i for i, step in rows if step in kept])


def _thin_curve(database: sqlite3.Connection, layout: int, pieces: int) -> None:
    """Rewrites a curve as one piece; one that is damaged stays as it is."""
    rows = database.execute("SELECT id, crc, data FROM points WHERE layout = ? ORDER BY id", [layout]).fetchall()
    if any(crc != checked(data, layout)[0] for _, crc, data in rows):
        return
    halves = [np.frombuffer(data, "<i8").reshape(2, -1) for *_, data in rows]  # steps, and values as their bits
    points = np.concatenate(halves, axis=1)  # (2, N)
    count = points.shape[1]
    kept = np.array(thinned(range(count)), np.int64) if count > _LONG else np.arange(count)
    if len(kept) < count or pieces > 1:
        _delete(database, "points", [i for i, *_ in rows], [])
        data = np.ascontiguousarray(points[:, kept]).tobytes()
        database.execute("INSERT INTO points (crc, data, layout) VALUES (?, ?, ?)", (*checked(data, layout), layout))


def _delete(database: sqlite3.Connection, table: str, ids: Sequence[int], kept: Sequence[int]) -> None:
    staying = set(kept)
    database.executemany(f"DELETE FROM {table} WHERE id = ?", [(i,) for i in ids if i not in staying])


def _free(database: sqlite3.Connection) -> int:
    return int(database.execute("PRAGMA freelist_count").fetchone()[0])
