"""Entries of a shelf -> a line each for the list: name, loss, findings; worked out behind the page's back, kept by version."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from evengrad.errors import InputError
from evengrad.judge import chosen_rules, report_of
from evengrad.report.numbers import number
from evengrad.report.view import steps_taken
from evengrad.serve.reports import Reports
from evengrad.serve.shelf import Entry, Shelf, Version
from evengrad.store import read_run
from evengrad.store.opening import opened
from evengrad.store.reader import Reader
from evengrad.types import SEVERITIES, Curve

_POINTS = 32  # of a sparkline
_REST = 0.5  # seconds between two looks at the folder
_LIVE, _SPARING = 1.0, 10.0  # seconds between two summaries of a run that is being written; times that they take


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What the list tells of a run.

    Attributes:
        name: What the run was called, or its file's name.
        created: When it began, in seconds since 1970.
        model: Class name of the model.
        steps: Steps taken.
        loss: Last loss, in words.
        spark: Heights in [0, 1] of the loss, first to last; None where it is not finite.
        findings: How many errors, warnings and notes; None as long as nobody looked.
        codes: Codes of the errors and warnings.
        trouble: Why it cannot be read, or "".
    """

    name: str
    created: float
    model: str = ""
    steps: int = 0
    loss: str = ""
    spark: tuple[float | None, ...] = ()
    findings: tuple[int, int, int] | None = None
    codes: tuple[str, ...] = ()
    trouble: str = ""


class Summaries:
    """Keeps a summary of each version of each run; a thread of its own reads and judges.

    Args:
        shelf: The folder.
        reports: Where a run that takes long is read and judged, so that its page does not do it again.
    """

    def __init__(self, shelf: Shelf, reports: Reports) -> None:
        self._shelf, self._reports = shelf, reports
        self._known: dict[str, tuple[Version, Summary]] = {}
        self._after: dict[str, float] = {}  # when a run that is being written is to be looked at again
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begins to read, unless it has begun."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="evengrad-summaries", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def rows(self) -> list[dict[str, Any]]:
        """Returns what is known now as JSON values, newest first; a run that was not looked at yet is there under its file's name."""
        rows = [self._row(entry) for entry in self._shelf.entries().values()]
        return sorted(rows, key=lambda row: (-row["created"], row["name"]))

    def _row(self, entry: Entry) -> dict[str, Any]:
        version, summary = self._known.get(entry.id, (None, None))
        if summary is None:
            summary = Summary(name=entry.path.stem, created=entry.version[1] / 1e9)
        return {"id": entry.id, "file": entry.path.name, "live": entry.live, "fresh": version == entry.version, **vars(summary)}

    def _due(self, entry: Entry) -> bool:
        """Whether there is something new; a run that is written four times a second is judged for the list now and then."""
        if self._known.get(entry.id, (None,))[0] == entry.version:
            return False
        return not entry.live or time.monotonic() >= self._after.get(entry.id, 0.0)

    def _run(self) -> None:
        while not self._stop.is_set():
            entries = self._shelf.entries()
            for entry in sorted(entries.values(), key=lambda e: -e.version[1]):
                if self._due(entry):
                    began = time.monotonic()
                    self._known[entry.id] = entry.version, summary_of(entry, self._reports)
                    self._after[entry.id] = time.monotonic() + max(_LIVE, _SPARING * (time.monotonic() - began))
                    time.sleep(0.002)  # requests come first
                if self._stop.is_set():
                    return
            for gone in self._known.keys() - entries.keys():
                del self._known[gone]
                self._after.pop(gone, None)
            self._stop.wait(_REST)


def summary_of(entry: Entry, reports: Reports) -> Summary:
    """Reads and judges a run; whatever is wrong with the file is told, never raised."""
    bare = Summary(name=entry.path.stem, created=entry.version[1] / 1e9)
    try:
        about = _about(entry)
        bare = replace(bare, name=_text(about.get("name"), bare.name), created=_moment(about.get("created"), bare.created))
        large = reports.takes_long(entry)
        report = reports.of(entry).report if large else report_of(read_run(entry.path), chosen_rules())
        trace = report.trace or read_run(entry.path)
    except InputError as error:
        return replace(bare, trouble=str(error).replace(str(entry.path.parent), "").replace("'/", "'"))
    except Exception as error:  # a foreign file can hold anything that has the right checksums
        return replace(bare, trouble=f"its contents cannot be judged: {type(error).__name__}: {error}")
    counts = tuple(sum(f.severity == severity for f in report.findings) for severity in SEVERITIES)
    loss = trace.curves.get("loss")
    return replace(
        bare,
        model=trace.run.model if isinstance(trace.run.model, str) else "",
        steps=steps_taken(trace),
        loss=_last(loss),
        spark=spark(loss),
        findings=(counts[0], counts[1], counts[2]),
        codes=tuple(dict.fromkeys(f.code for f in report.findings if f.severity != SEVERITIES[-1])),
    )


def spark(curve: Curve | None) -> tuple[float | None, ...]:
    """Returns heights in [0, 1] of at most 32 points of a curve; None where a value is not finite."""
    if curve is None or not len(curve.values):
        return ()
    picks = np.unique(np.linspace(0, len(curve.values) - 1, _POINTS).astype(int))
    values = curve.values[picks]
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    reach = high - low or 1.0
    return tuple(round((float(v) - low) / reach, 3) if math.isfinite(v) else None for v in values)


def _about(entry: Entry) -> Mapping[str, Any]:
    with opened(entry.path) as database:
        return Reader(database).about()


def _last(curve: Curve | None) -> str:
    if curve is None or not len(curve.values):
        return ""
    return number(float(curve.values[-1])) if math.isfinite(curve.values[-1]) else "not finite"


def _text(value: object, otherwise: str) -> str:
    return value if isinstance(value, str) and value else otherwise


def _moment(value: object, otherwise: float) -> float:
    return float(value) if isinstance(value, int | float) and 0 <= value < 1e11 else otherwise
