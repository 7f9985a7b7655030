"""A log that grows -> the run's file, sinks and the live panel: written up to four times a second, and each on its own if another fails."""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from evengrad.monitor.console import Panel
from evengrad.monitor.log import Fresh, Log
from evengrad.sinks import Sink
from evengrad.store import RunFile
from evengrad.types import Finding, Layer, Run, Series, Trace

SHORTEST, _LONGEST = 0.25, 1.0  # seconds between two writings: who looks on from elsewhere is not to be a second behind
_TIMES_COST = 300  # that a pause is longer than a write to the file took: a third of a percent goes into writing


class Outlets:
    """Where a watched run goes while it trains. What fails is left out from then on, and the user is told once.

    Args:
        log: What grows.
        run: What is watched.
        file: The run's file, or None.
        sinks: Other places.
        panel: The live panel, or None.
        judged: Returns a trace and its findings, for the panel.
    """

    def __init__(
        self,
        log: Log,
        run: Callable[[], Run],
        *,
        file: RunFile | None,
        sinks: Sequence[Sink],
        panel: Panel | None,
        judged: Callable[[], tuple[Trace, Sequence[Finding]]],
    ) -> None:
        self._log, self._run, self._judged = log, run, judged
        self._file, self._sinks, self._panel = file, list(sinks), panel
        self._opened = self._told = False
        self._next = 0.0
        self._took: deque[float] = deque([0.0], maxlen=3)  # seconds of the last writes; the shortest counts, for the machine may be busy
        if panel is not None:
            self._try(panel, panel.start)

    @property
    def histograms(self) -> bool:
        """True if any sink takes distributions."""
        return any(type(sink).histogram is not Sink.histogram for sink in self._sinks)

    def histogram(self, step: int, kind: str, layer: Layer, counts: Series, edges: Series) -> None:
        """Hands a distribution to the sinks."""
        for sink in self._open():
            self._try(sink, partial(sink.histogram, step, kind, layer, counts, edges))

    def step(self, step: int) -> None:
        """Writes if the last writing is long enough ago."""
        now = time.perf_counter()
        if now >= self._next:
            self._write()
            self._next = now + min(_LONGEST, max(SHORTEST, _TIMES_COST * min(self._took)))
        panel = self._panel
        if panel is not None and panel.due:
            trace, findings = self._judged()
            loss = trace.curves.get("loss")
            value = float(loss.values[-1]) if loss is not None and len(loss.values) else None
            self._try(panel, partial(panel.update, trace, findings, step=step, loss=value))

    def close(self, trace: Trace) -> None:
        """Writes what is left and closes everything."""
        self._write(last=True)
        if self._file is not None:
            self._try(self._file, self._file.close)
        for sink in list(self._sinks):
            self._try(sink, partial(sink.close, trace))
        if self._panel is not None:
            self._try(self._panel, self._panel.stop)

    def _open(self) -> list[Sink]:
        """The sinks, once they know the layers."""
        if not self._log.layers:
            return []
        if not self._opened:
            self._opened = True
            for sink in list(self._sinks):
                self._try(sink, partial(sink.open, self._run(), self._log.layers))
        return list(self._sinks)

    def _write(self, *, last: bool = False) -> None:
        if not self._log.layers and not last:
            return  # the first step is not over
        fresh, file = self._log.taken(), self._file
        if file is not None:
            began = time.perf_counter()
            self._try(file, partial(self._to_file, file, fresh, first=not self._told))
            self._took.append(time.perf_counter() - began)
            self._told = True
        for sink in self._open():
            self._try(sink, partial(_to_sink, sink, fresh))

    def _to_file(self, file: RunFile, fresh: Fresh, *, first: bool) -> None:
        about = {"layers": self._log.layers, "facts": self._log.facts} if first else {}
        file.write(run=self._run(), frames=fresh.frames, planes=fresh.planes, points=fresh.points, events=fresh.events, **about)  # type: ignore[arg-type]

    def _try(self, outlet: object, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            if outlet is self._file:
                self._file = None
            elif outlet is self._panel:
                self._panel = None
            else:
                self._sinks = [sink for sink in self._sinks if sink is not outlet]
            name = "the run's file" if isinstance(outlet, RunFile) else type(outlet).__name__
            message = f"evengrad: {name} is written no more: {error}. The training goes on"
            warnings.warn(message, RuntimeWarning, stacklevel=2)


def _to_sink(sink: Sink, fresh: Fresh) -> None:
    points: dict[int, dict[str, float]] = {}
    for name, (steps, values) in fresh.points.items():
        for step, value in zip(steps, values, strict=True):
            points.setdefault(step, {})[name] = value
    for step in sorted({*points, *fresh.frames}):
        sink.write(step, fresh.frames.get(step, {}), points.get(step, {}))
    for event in fresh.events:
        sink.event(event)
