"""`evengrad watch` on scripts that know nothing of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import evengrad as eg
from evengrad.store import read_run

TRAIN = """
import argparse, sys
import torch
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int)
parser.add_argument("--store", default="mine")
told = parser.parse_args()
torch.manual_seed(0)
model = nn.Sequential(*[m for _ in range(8) for m in (nn.Linear(16, 16), nn.Sigmoid())], nn.Linear(16, 3))
optimizer = torch.optim.SGD(model.parameters(), 0.1)
x = torch.randn(64, 16)
y = x[:, :3].argmax(1)
for _ in range(told.steps):
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    print("loss", loss.item())
print(told.store, sys.argv[1:], __name__)
{end}
"""


def run(tmp_path: Path, script: str, *args: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "train.py").write_text(script)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "EVENGRAD_STORE": str(tmp_path / "store")}
    command = [sys.executable, "-c", "from evengrad.cli.app import main; main()", "watch", *args]
    return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=120, check=False)


def test_a_script_runs_as_it_is_and_its_training_is_reported_and_stored(tmp_path: Path) -> None:
    plain = subprocess.run([sys.executable, "-c", TRAIN.format(end=""), "--steps", "12"], capture_output=True, text=True, check=True)
    done = run(tmp_path, TRAIN.format(end="sys.exit(7)"), "train.py", "--steps", "12", "--store", "mine")
    assert done.returncode == 7, done.stderr
    losses = [line for line in done.stdout.splitlines() if line.startswith("loss")]
    assert losses == [line for line in plain.stdout.splitlines() if line.startswith("loss")]
    assert done.stdout.splitlines()[-1] == "mine ['--steps', '12', '--store', 'mine'] __main__"
    assert "VAN001" in done.stderr
    trace = read_run(next((tmp_path / "store").rglob("train.evengrad")))
    np.testing.assert_allclose(trace.curves["loss"].values, [float(line.split()[1]) for line in losses], rtol=1e-6)
    assert list(trace.curves["grad_norm"].steps) == list(range(12))
    assert trace.run.name == "train"


def test_the_loss_of_mixed_precision_is_told_without_its_scale(tmp_path: Path) -> None:
    script = """
import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(4, 2)
optimizer, scaler = torch.optim.SGD(model.parameters(), 0.1), torch.amp.GradScaler("cpu", init_scale=1024.0)
for _ in range(4):
    optimizer.zero_grad()
    with torch.autocast("cpu", dtype=torch.float16):
        loss = model(torch.ones(8, 4)).square().mean()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
"""
    done = run(tmp_path, script, "--json", "train.py")
    assert done.returncode == 0, done.stderr
    trace = eg.Report.from_json(done.stdout).trace
    assert trace is not None
    assert 0 < trace.curves["loss"].values.max() < 10
    assert trace.curves["grad_norm"].values.max() < 100


def test_an_error_of_the_script_is_shown_as_its_own_and_what_was_seen_is_reported(tmp_path: Path) -> None:
    done = run(tmp_path, TRAIN.format(end="raise KeyError('mine')"), "-o", "report.html", "train.py", "--steps", "3")
    assert done.returncode == 1
    assert "KeyError: 'mine'" in done.stderr
    assert "runpy" not in done.stderr
    assert "evengrad's own" not in done.stderr
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_a_script_without_a_training_says_so(tmp_path: Path) -> None:
    done = run(tmp_path, "print('hello')", "train.py")
    assert (done.returncode, done.stdout) == (0, "hello\n")
    assert "no optimizer with a model of its own took a step" in done.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("nothing.py",), "there is no script 'nothing.py'"),
        (("--guard", "skp", "train.py"), "Did you mean 'skip'"),
        (("--sink", "cvs", "train.py"), "Did you mean 'csv'"),
        (("-o", "no/where.html", "train.py"), "there is no folder 'no'"),
    ],
)
def test_wrong_input_is_told_before_the_script_runs(tmp_path: Path, args: tuple[str, ...], message: str) -> None:
    done = run(tmp_path, "print('it ran')", *args)
    assert done.returncode == 2
    assert message in done.stderr
    assert "it ran" not in done.stdout
