"""lines of a panel, and what a program prints -> one terminal: the panel stays below, and what is printed arrives as it was written.

rich's `Live` was tried first: with stderr redirected it prints every move of a tqdm bar as a new line; without, the bar and the panel
overwrite each other. Here the cursor stays where the program left it, and the panel is drawn in the lines below.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Callable, Sequence
from typing import IO, Any

_MOVES = re.compile(r"\n|\x1b\[(\d*)A")
_SAVE, _BACK = "\x1b7", "\x1b8"
_MOST = 20  # lines below the cursor that a program may keep for itself, such as nested bars


class Dock:
    """Holds a panel at the bottom of what a program prints to a terminal.

    Args:
        file: The terminal.
        height: Tells how many lines the terminal has.
    """

    def __init__(self, file: IO[str], height: Callable[[], int]) -> None:
        self._file, self._height = file, height
        self._lines: tuple[str, ...] = ()
        self._drawn, self._line_ended, self._below = False, True, 0
        self._lock, self._process = threading.RLock(), os.getpid()
        self._replaced: dict[str, tuple[Any, Any]] = {}

    def open(self) -> None:
        """From now on what is printed goes above the panel; what does not go to a terminal is left alone."""
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is not None and stream.isatty():
                self._replaced[name] = stream, _Stream(self, stream)
                setattr(sys, name, self._replaced[name][1])

    def show(self, lines: Sequence[str]) -> None:
        """Draws the panel anew."""
        with self._lock:
            erasing = self._erasing()
            self._lines = tuple(lines)
            self._put(self._file, erasing + self._drawing())

    def write(self, file: IO[str], text: str) -> None:
        """Writes what the program prints."""
        if os.getpid() != self._process:  # a worker of a DataLoader
            file.write(text)
            return
        with self._lock:
            erasing = self._erasing()
            for move in _MOVES.finditer(text):
                lines = -1 if move[0] == "\n" else int(move[1] or 1)
                self._below = min(_MOST, max(0, self._below + lines))
            self._line_ended = text.endswith("\n") if text else self._line_ended
            self._put(file, erasing + text + self._drawing())

    def close(self) -> None:
        """Leaves the panel as it is, the cursor below it, and the streams as they were."""
        with self._lock:
            for name, (stream, ours) in self._replaced.items():
                if getattr(sys, name) is ours:
                    setattr(sys, name, stream)
            self._replaced.clear()
            start = "\n" * (self._below + (not self._line_ended))
            self._put(self._file, self._erasing() + start + "".join(f"{line}\n" for line in self._lines))
            self._lines = ()

    def _erasing(self) -> str:
        drawn, self._drawn = self._drawn, False
        return f"{_SAVE}\x1b[{self._below + 1}B\r\x1b[J{_BACK}" if drawn else ""

    def _drawing(self) -> str:
        lines = self._lines[: max(0, self._height() - self._below - 2)]
        if not lines:
            return ""
        self._drawn = True
        room = self._below + len(lines)
        skip = f"\x1b[{self._below}B" if self._below else ""
        return "\x1bD" * room + f"\x1b[{room}A{_SAVE}{skip}" + "".join(f"\r\n\x1b[2K{line}" for line in lines) + _BACK

    @staticmethod
    def _put(file: IO[str], text: str) -> None:
        file.write(text)
        file.flush()


class _Stream:
    """Stands in for `sys.stdout` or `sys.stderr`."""

    def __init__(self, dock: Dock, file: IO[str]) -> None:
        self._dock, self._file = dock, file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, text: str) -> int:
        self._dock.write(self._file, text)
        return len(text)

    def writelines(self, lines: Sequence[str]) -> None:
        self.write("".join(lines))
