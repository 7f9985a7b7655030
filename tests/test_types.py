"""Traces: what a part of one holds."""

from __future__ import annotations

import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evengrad import synthetic
from evengrad.errors import InputError
from evengrad.types import Curve, Event, Trace


def test_until_keeps_what_was_seen_before_a_step_in_columns_and_curves() -> None:
    trace = synthetic.chain(2, steps=3, out_rms=[[1, 1], [2, 2], [3, 3]])
    trace = replace(trace, steps=np.array([0, 5, 9]), curves={"loss": Curve(np.arange(12), np.linspace(1, 0, 12))})
    cut = trace.until(9)
    np.testing.assert_array_equal(cut.steps, [0, 5])
    np.testing.assert_array_equal(cut.column("out_rms"), [[1, 1], [2, 2]])
    np.testing.assert_array_equal(cut.curves["loss"].steps, np.arange(9))
    assert len(cut.curves["loss"].values) == 9


def test_a_damaged_file_is_no_trace(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    path.write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(InputError, match="is not a trace saved by evengrad"):
        Trace.load(path)


def test_events_are_saved_and_belong_to_their_steps(tmp_path: Path) -> None:
    events = tuple(Event(step=s, kind="skip", message=f"step {s} was left out") for s in (0, 1, 2))
    trace = replace(synthetic.chain(depth=2), events=events)
    trace.save(tmp_path / "run.npz")
    assert Trace.load(tmp_path / "run.npz").events == events
    assert trace.until(2).events == events[:2]


def test_steps_at_which_columns_were_seen_are_taken_out() -> None:
    column = np.array([[1.0, np.nan], [np.nan, np.nan], [np.nan, 2.0]], np.float32)
    one = synthetic.chain(depth=2)
    trace = replace(one, steps=np.arange(3), columns={"a": column, "b": np.ones((3, 2), np.float32)}, curves={}, planes={})
    assert list(trace.seen(["a"]).steps) == [0, 2]
    assert list(trace.seen(["a", "b"]).steps) == [0, 2]
    assert trace.seen(["b"]) is trace
    assert list(trace.seen(["c"]).steps) == []


def test_what_is_asked_twice_is_worked_out_once_and_for_this_trace_alone() -> None:
    trace = synthetic.chain(3)
    asked: list[int] = []

    def work() -> int:
        asked.append(1)
        return len(asked)

    assert (trace.once("x", work), trace.once("x", work)) == (1, 1)
    assert replace(trace, events=()).once("x", work) == 2


def test_a_trace_does_not_hold_itself() -> None:
    trace = replace(synthetic.chain(3), columns={"a": np.ones((1, 3), np.float32)})
    assert trace.seen(["a"]) is trace
    gone = weakref.ref(trace)
    del trace
    assert gone() is None
