"""A training that runs -> a panel of a few lines at the bottom of the terminal."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from evengrad.monitor.dock import Dock
from evengrad.monitor.lines import Moment, lines
from evengrad.report.text import ASCII
from evengrad.types import Finding, Trace

_PAUSE, _SHARE = 0.25, 0.01  # seconds between two drawings, at least; share of the time that drawing may take
_DRAWINGS = 20  # that the rate is averaged over


class Panel:
    """Shows where a training stands: steps and their rate, loss, gradient norm, gradient and update of each layer, findings, events.

    What the program prints meanwhile appears above the panel, progress bars included. Where the console is not a terminal, nothing is ever
    written. There is no thread: the panel is drawn by `update`, at most four times a second and for 1% of the time.

    Args:
        console: Where it is drawn; stderr without.
        title: What is watched, such as the script's name.
    """

    def __init__(self, console: Console | None = None, title: str = "evengrad") -> None:
        self._console = Console(stderr=True) if console is None else console
        self._title = title
        self._dock: Dock | None = None
        self._moment: Moment | None = None
        self._next = float("-inf")
        self._times: deque[tuple[float, int]] = deque(maxlen=_DRAWINGS)

    @property
    def due(self) -> bool:
        """True if an update would be drawn now: ask before making a trace for it."""
        return self._dock is not None and time.monotonic() >= self._next

    def start(self) -> None:
        """Begins to show, on a terminal that can move its cursor."""
        console = self._console
        able = console.is_terminal and not (console.is_dumb_terminal or console.is_jupyter or console.legacy_windows)
        if able and console.file.isatty() and self._dock is None:  # a console may be told to be a terminal, by FORCE_COLOR for one
            self._dock = Dock(console.file, lambda: console.height)
            self._dock.open()

    def update(self, trace: Trace, findings: Sequence[Finding], *, step: int, loss: float | None = None) -> None:
        """Takes the latest, and draws it if the last drawing is long enough ago.

        Args:
            trace: What was seen so far.
            findings: What is wrong.
            step: The step that has just ended.
            loss: Its loss.
        """
        if self._dock is None:
            return
        now = time.monotonic()
        due = now >= self._next
        if due:
            self._times.append((now, step))
        self._moment = Moment(trace=trace, findings=tuple(findings), step=step, loss=loss, rate=self._rate())
        if due:
            self._show(self._dock, self._moment)
            self._next = now + max(_PAUSE, (time.monotonic() - now) / _SHARE)

    def stop(self) -> None:
        """Draws the latest once more and leaves it on the screen. Does nothing if it does not show."""
        if self._dock is not None:
            dock, self._dock = self._dock, None
            moment, self._moment = self._moment, None
            if moment is not None:
                self._show(dock, moment)
            dock.close()

    def _show(self, dock: Dock, moment: Moment) -> None:
        try:
            dock.show(self._rendered(moment))
        except BaseException:  # whatever it was, what the program prints must not go on being held
            self._dock = None
            dock.close()
            raise

    def _rate(self) -> float:
        (began, first), (now, last) = (self._times[0], self._times[-1]) if self._times else ((0.0, 0), (0.0, 0))
        return (last - first) / (now - began) if now > began else float("nan")

    def _rendered(self, moment: Moment) -> list[str]:
        """The lines with their colours as escape codes; in ASCII where the terminal has nothing else."""
        console = self._console
        drawn = lines(moment, self._title, console.width)
        if console.options.ascii_only:
            drawn = [_ascii(line) for line in drawn]
        with console.capture() as capture:
            for line in drawn:
                console.print(line, no_wrap=True, overflow="crop", highlight=False)
        return capture.get().split("\n")[:-1]


def _ascii(line: Text) -> Text:
    return Text(line.plain.translate(ASCII).encode("ascii", "replace").decode())
