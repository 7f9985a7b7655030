"""An entry -> its report and its article, worked out once a version however many look on."""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from evengrad.errors import InputError, unknown
from evengrad.judge import chosen_rules, report_of
from evengrad.report import Report
from evengrad.report.part import part
from evengrad.report.sections import article
from evengrad.report.view import View, view
from evengrad.serve.shelf import Entry
from evengrad.store import read_run
from evengrad.types import Trace

_KEPT = 8
_LARGE = 32 * 2**20  # bytes that take more than a moment to read and to judge


@dataclass(frozen=True)
class Shown:
    """A report, and what is made of it when it is asked for first."""

    report: Report

    @cached_property
    def view(self) -> View:
        """What is shown of it."""
        return view(self.report)

    @cached_property
    def article(self) -> str:
        """The article as HTML; its findings link to the pages that explain them."""
        return article(self.view, self.report.trace, 1, level=1, pages="/rules/")

    def part(self, signal: str, steps: tuple[int, int], layers: tuple[int, int]) -> dict[str, Any]:
        """Returns exact numbers of a part of the run, as `report.part` does.

        Raises:
            InputError: if the run has no such signal.
        """
        planes = {plane.key: plane for plane in self.view.planes}
        if signal not in planes or self.report.trace is None:
            raise unknown("signal", signal[:60], planes)
        return part(self.report.trace, planes[signal], steps, layers)


class Reports:
    """Keeps what was asked for last; one version of a run is read by one thread at a time.

    What is being written is shown with the findings of a moment ago, while a thread judges it anew: rules take longer than a write.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, bool], tuple[str, Shown]] = OrderedDict()
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()
        self._judges: dict[str, _Judge] = {}

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
            stamp, shown = self._kept.get(key, ("", None))
            if shown is None or stamp != entry.stamp:
                shown = self._made(entry, salvage)
                with self._lock:
                    self._kept[key] = entry.stamp, shown
            with self._lock:
                self._kept.move_to_end(key)
                while len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
        return shown

    def takes_long(self, entry: Entry) -> bool:
        """Whether it is large and not at hand: a page says so first, and asks for it then."""
        with self._lock:
            known = any(key[0] == entry.id and stamp == entry.stamp for key, (stamp, _) in self._kept.items())
        return entry.version[0] > _LARGE and not known

    def _made(self, entry: Entry, salvage: bool) -> Shown:
        try:
            trace = read_run(entry.path, salvage=salvage)
            if entry.live:
                shown = Shown(self._judges.setdefault(entry.id, _Judge()).report(trace))
            else:
                self._judges.pop(entry.id, None)
                shown = Shown(report_of(trace, chosen_rules()))
            shown.article  # noqa: B018  # what cannot be shown is said here
        except InputError:
            raise
        except Exception as error:  # a foreign file can hold anything that has the right checksums
            raise InputError(f"what {entry.path.name!r} holds cannot be shown: {type(error).__name__}: {error}") from error
        return shown


class _Judge:
    """Judges a growing trace: at once the first time, then behind the page's back."""

    def __init__(self) -> None:
        self._latest: Report | None = None
        self._thread: threading.Thread | None = None

    def report(self, trace: Trace) -> Report:
        """Returns the newest findings there are with this trace, and has it judged unless that is under way."""
        if self._latest is None:
            self._latest = report_of(trace, chosen_rules())
            return self._latest
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._judge, args=[trace], name="evengrad-judge", daemon=True)
            self._thread.start()
        return replace(self._latest, trace=trace, run=trace.run)

    def _judge(self, trace: Trace) -> None:
        with suppress(Exception):  # what cannot be judged is told once the run stands still
            self._latest = report_of(trace, chosen_rules())
