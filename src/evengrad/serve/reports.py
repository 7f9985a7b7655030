"""An entry -> its report and its article, worked out once a version however many look on."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

from evengrad.errors import InputError
from evengrad.judge import chosen_rules, report_of
from evengrad.report import Report
from evengrad.report.sections import article
from evengrad.report.view import view
from evengrad.serve.shelf import Entry, Version
from evengrad.store import read_run

_KEPT = 8


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A report, and its article as HTML."""

    report: Report
    article: str


class Reports:
    """Keeps what was asked for last; one version of a run is read by one thread at a time."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, bool], tuple[Version, Shown]] = OrderedDict()
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def of(self, entry: Entry, *, salvage: bool = False) -> Shown:
        """Reads and judges a run.

        Args:
            entry: The run.
            salvage: Leave out what is damaged.

        Raises:
            InputError: if it cannot be read.
        """
        with self._lock:
            lock = self._locks.setdefault(entry.id, threading.Lock())
        with lock:
            key = (entry.id, salvage)
            version, shown = self._kept.get(key, (None, None))
            if shown is None or version != entry.version:
                shown = _shown(entry, salvage)
                with self._lock:
                    self._kept[key] = entry.version, shown
            with self._lock:
                self._kept.move_to_end(key)
                while len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
        return shown


def _shown(entry: Entry, salvage: bool) -> Shown:
    try:
        report = report_of(read_run(entry.path, salvage=salvage), chosen_rules())
        return Shown(report=report, article=article(view(report), report.trace, 1, level=1))
    except InputError:
        raise
    except Exception as error:  # a foreign file can hold anything that has the right checksums
        raise InputError(f"what {entry.path.name!r} holds cannot be shown: {type(error).__name__}: {error}") from error
