"""A study whose every computation leaves a line in a file, as a class and as a file of a user's own."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from evengrad.lab.own import load
from evengrad.lab.running import Plan
from evengrad.lab.study import Study

WALK = '''
"""How far does a random walk get?"""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from evengrad.lab.figures import curves, panels
from evengrad.lab.study import Published, Row, Study

FOLDER = Path(os.environ["WALK"])  # of what it notes and looks for


@dataclass(frozen=True, kw_only=True)
class RandomWalk(Study):
    """A walker goes one stride to the left or right at each step."""

    name = "random-walk"
    question = "How far from home is a walker after n steps?"
    shown = ("distance",)
    published = (Published(arm={"stride": 1.0}, value="distance", number=4.0, source="a wall"),)

    stride: tuple[float, ...] = (1.0, 2.0)
    steps: int = 16
    seeds: int = 3
    group: int = 1
    fault: str = ""

    @classmethod
    def quick(cls):
        return cls(seeds=2, steps=4)

    def arms(self):
        return [{"stride": stride} for stride in self.stride]

    def groups(self, cells):
        return [cells[i : i + self.group] for i in range(0, len(cells), self.group)]

    def compute(self, cells):
        for cell in cells:
            with (FOLDER / "computed").open("a") as file:
                file.write(f"{cell.arm['stride']:g} {cell.seed} {torch.get_num_threads()} {os.getpid()}\\n")
            if self.fault and cell.arm["stride"] == 2.0 and cell.seed == 1:
                self.fail()
        return [self.walk(cell) for cell in cells]

    def fail(self):
        go = FOLDER / "go"  # mends the fault
        if go.exists():
            return
        if self.fault == "raise":
            raise ZeroDivisionError("the walker fell")
        if self.fault == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "interrupt":
            raise KeyboardInterrupt
        while self.fault == "hang" and not go.exists():
            time.sleep(0.01)

    def walk(self, cell):
        signs = np.random.default_rng(cell.seed).choice([-1, 1], self.steps)
        path = cell.arm["stride"] * np.cumsum(signs)
        return Row(cell.arm, cell.seed, {"distance": abs(path[-1])}, {"path": np.abs(path)})

    def answer(self, rows):
        return "; ".join(f"stride {arm['stride']:g}: {own.median('distance'):g}" for arm, own in rows.by_arm())

    def figures(self, rows):
        return {"distance <over> steps": lambda: self.draw(rows)}

    def draw(self, rows):
        figure, (ax,) = panels()
        curves(ax, {f"stride {a['stride']:g}": (np.arange(self.steps), own.series("path")) for a, own in rows.by_arm()})
        return figure
'''


@pytest.fixture(autouse=True)
def _store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test writes into the store of who runs it."""
    monkeypatch.setenv("EVENGRAD_STORE", str(tmp_path_factory.mktemp("store")))


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Writes a user's file with a study, changed by replacements, and forgets its module afterwards."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("WALK", str(tmp_path))
    modules, path = set(sys.modules), list(sys.path)

    def write(*changes: tuple[str, str], name: str = "walk.py") -> Path:
        text = WALK
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        file = tmp_path / name
        file.write_text(text, encoding="utf-8")
        importlib.invalidate_caches()
        return file

    yield write
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def walk(own: Callable[..., Path]) -> Callable[..., Plan]:
    """Returns a plan of the study, with factors; `computed()` tells what it computed."""
    kind = load(str(own()))

    def plan(**factors: Any) -> Plan:
        return Plan(kind, factors)

    return plan


@pytest.fixture
def kind(own: Callable[..., Path]) -> type[Study]:
    """The class of the study."""
    return load(str(own()))


@pytest.fixture
def computed(tmp_path: Path) -> Callable[[], list[list[str]]]:
    """Returns what was computed since the last call: stride, seed, threads of torch, process."""

    def read() -> list[list[str]]:
        file = tmp_path / "computed"
        lines = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
        file.unlink(missing_ok=True)
        return lines

    return read
