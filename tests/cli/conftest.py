"""Arguments -> exit code, standard output and standard error: the command line in this process, or in one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import evengrad

HEAD = """
import torch
from torch import nn
import torch.nn.functional as F
import evengrad as eg

draw = torch.Generator().manual_seed(0)
x = torch.randn(64, 6, generator=draw)
y = (x[:, 0] > 0).long()

def net():
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))

def sgd(model):
    return torch.optim.SGD(model.parameters(), 0.1)

"""
STUCK = """
from helper import SIZES, deep

def stuck():
    return deep(SIZES, nn.Sigmoid)

experiment = eg.Experiment(
    stuck, (x, y), nn.CrossEntropyLoss(), lambda m: torch.optim.SGD(m.parameters(), 0.05, momentum=0.9), epochs=8, batch_size=16
)
healthy = eg.Experiment(lambda: deep(SIZES[-3:], nn.Tanh), (x, y), nn.CrossEntropyLoss(), sgd, epochs=1, batch_size=32)
"""
HELPER = """
from itertools import pairwise
from torch import nn

SIZES = [6, *[16] * 19, 6, 6, 6]

def deep(sizes, activation):
    layers = [module for a, b in pairwise(sizes) for module in (nn.Linear(a, b), activation())]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], 2))
"""


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a network that does not train, and the current directory."""
    (tmp_path / "stuck.py").write_text(HEAD + STUCK, encoding="utf-8")
    (tmp_path / "helper.py").write_text(HELPER, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Done]]:
    """Runs `main` in this process: the same code, without a second for each import of torch."""
    from evengrad.cli import main

    modules, path = set(sys.modules), list(sys.path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["evengrad", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capsys.readouterr()
        code = stopped.value.code
        assert isinstance(code, int)
        return Done(code, out, err)

    yield run
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if "/site-packages/" not in file and "/evengrad/" not in file and "pytest-" in file:
            del sys.modules[name]


@pytest.fixture
def shell() -> Callable[..., Done]:
    """Runs the command line, or other code, in a process of its own."""

    def run(*arguments: str, code: str = "from evengrad.cli import main; main()", cwd: Path | None = None) -> Done:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "100", "PYTHONDONTWRITEBYTECODE": "1"}
        environment["PYTHONPATH"] = str(Path(evengrad.__file__).parents[1])
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            cwd=cwd,
            env=environment,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run
