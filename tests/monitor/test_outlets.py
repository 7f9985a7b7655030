"""Where a watched run goes, and what happens when one of these places fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import evengrad as eg
from evengrad.judge import recall
from evengrad.store import StoreError, read_run
from evengrad.types import Event, Floats, Layer, Run, Trace


class Kept(eg.Sink):
    """Keeps what it is given; raises at one call if asked to."""

    name = "kept"

    def __init__(self, fails: str = "") -> None:
        super().__init__("nowhere")
        self.fails, self.calls = fails, []
        self.points: dict[str, dict[int, float]] = {}
        self.columns: dict[int, Mapping[str, Floats]] = {}

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name == self.fails:
            raise OSError("the disk is full")

    def open(self, run: Run, layers: tuple[Layer, ...]) -> None:
        self._called("open")

    def write(self, step: int, columns: Mapping[str, Floats], points: Mapping[str, float]) -> None:
        self._called("write")
        if columns:
            self.columns[step] = dict(columns)
        for name, value in points.items():
            self.points.setdefault(name, {})[step] = value

    def histogram(self, step: int, kind: str, layer: Layer, counts: Any, edges: Any) -> None:
        self._called("histogram")
        assert counts.sum() == layer.fan_in * layer.fan_out
        assert len(edges) == len(counts) + 1

    def event(self, event: Event) -> None:
        self._called("event")

    def close(self, trace: Trace) -> None:
        self._called("close")


def test_the_file_and_the_sinks_hold_what_the_monitor_holds(loops: ModuleType, tmp_path: Path) -> None:
    sink = Kept()
    trained = loops.run(loops.Loop(steps=60, bad=(40,)), watched=True, store=tmp_path, sinks=(sink,), guard="skip", name="my run")
    trace, stored = trained.monitor.trace, read_run(trained.monitor.path)
    assert (stored.layers, stored.facts, stored.events) == (trace.layers, trace.facts, trace.events)
    np.testing.assert_array_equal(stored.steps, trace.steps)
    for name, column in trace.columns.items():
        np.testing.assert_array_equal(stored.columns[name], column, err_msg=name)
        np.testing.assert_array_equal(
            [sink.columns[s][name] for s in trace.steps if name in sink.columns[s]], column[~np.isnan(column).all(1)]
        )
    for name, curve in trace.curves.items():
        np.testing.assert_array_equal(stored.curves[name].values, curve.values, err_msg=name)
        np.testing.assert_array_equal([list(sink.points[name]), list(sink.points[name].values())], [curve.steps, curve.values])
    assert (stored.run.name, stored.run.samples) == ("my run", 16)
    assert sink.calls[0] == "open"
    assert sink.calls[-1] == "close"
    assert (sink.calls.count("open"), sink.calls.count("close"), sink.calls.count("event")) == (1, 1, 2)
    assert sink.calls.count("histogram") >= 12


def test_a_stored_run_says_what_was_not_looked_at_as_its_monitor_does(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=2)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model(torch.ones(3, 4)).square().mean()
        loss.backward()
        return loss

    with eg.watch(model, optimizer, store=tmp_path, name="my run") as monitor:
        for _ in range(3):
            optimizer.step(closure)
    told, again = monitor.report(), recall("my run", directory=tmp_path)
    assert "closure" in again.skipped["guard, norm before clipping"]
    assert again.skipped == told.skipped
    assert again.skipped["loss"] == "monitor.observe(loss=loss) was not called"
    assert "loss (monitor.observe(loss=loss) was not called)" in " ".join(str(again).split())
    assert eg.Report.from_json(again.to_json()).run.unseen == told.run.unseen != {}


@pytest.mark.parametrize("call", ["open", "write", "histogram", "event", "close"])
def test_a_sink_that_fails_is_left_out_and_told_once(loops: ModuleType, call: str) -> None:
    broken, sound = Kept(fails=call), Kept()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        trained = loops.run(loops.Loop(steps=30, bad=(20,)), watched=True, sinks=(broken, sound), guard="skip")
    assert [str(w.message) for w in told] == ["evengrad: Kept is written no more: the disk is full. The training goes on"]
    assert broken.calls.count(call) == 1
    assert sound.calls[-1] == "close"
    assert not [e for e in trained.monitor.trace.events if e.kind == "fault"]
    assert trained.losses[-1] == loops.run(loops.Loop(steps=30, bad=(20,)), watched=True, guard="skip").losses[-1]


def test_a_file_that_cannot_be_written_any_more_is_told_once_and_the_training_goes_on(
    loops: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evengrad.store import RunFile

    def full(*args: Any, **kwargs: Any) -> None:
        raise StoreError("the run cannot be written: no space left on device")

    monkeypatch.setattr(RunFile, "write", full)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        trained = loops.run(loops.Loop(steps=30), watched=True, store=tmp_path)
    assert len(told) == 1
    assert "no space left" in str(told[0].message)
    assert len(trained.losses) == 30
    assert len(trained.monitor.trace.steps) >= 20


def test_a_folder_that_cannot_be_made_is_an_error_at_once(loops: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="Give another folder"):
        loops.run(loops.Loop(steps=1), watched=True, store=tmp_path / "file" / "runs")


def test_a_panel_is_silent_where_there_is_no_terminal(loops: ModuleType, capfd: pytest.CaptureFixture[str]) -> None:
    loops.run(loops.Loop(steps=10), watched=True, live=True)
    assert capfd.readouterr() == ("", "")


def test_a_run_that_is_killed_can_be_read_to_its_last_second(tmp_path: Path) -> None:
    script = f"""
import torch, time
from torch import nn
import evengrad as eg
model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
optimizer = torch.optim.SGD(model.parameters(), 0.01)
monitor = eg.watch(model, optimizer, store={str(tmp_path)!r}, name="killed")
step = 0
while True:
    optimizer.zero_grad()
    loss = model(torch.ones(2, 4)).square().mean()
    loss.backward()
    optimizer.step()
    monitor.observe(loss=loss)
    step += 1
    print(step, flush=True)
    time.sleep(0.005)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        began, said = time.monotonic(), 0
        while time.monotonic() - began < 3 or said < 50:
            said = int(process.stdout.readline())
            if said == 1:
                began = time.monotonic()
        os.kill(process.pid, signal.SIGKILL)
        rate = said / (time.monotonic() - began)
    trace = read_run(tmp_path / "killed.evengrad")
    assert len(trace.curves["loss"].steps) > said - 1.6 * rate - 20
    assert trace.run.name == "killed"
