"""Two reports, or two runs, side by side: what is gone, what is new, what they came to."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import evengrad as eg
from evengrad import synthetic
from evengrad.report import Report
from evengrad.types import Curve, Event, Finding, Trace


def report(gain: float, *codes: str) -> Report:
    trace = synthetic.chain(20, grad_out_norm=synthetic.geometric(20, gain))
    findings = tuple(Finding(code=code, symptom=None, severity="error", message=f"{code} 1") for code in codes)
    return Report(run=trace.run, trace=trace, findings=findings, trainability=0.5)


def test_tells_what_is_gone_new_and_kept() -> None:
    found = eg.compare(report(0.24, "VAN001", "INI001", "INI001"), report(0.98, "INI001", "ACT001"))
    assert (found.gone, found.new, found.kept) == (("VAN001",), ("ACT001",), ("INI001",))


def test_gives_the_gradient_of_both() -> None:
    found = eg.compare(report(0.24), replace(report(0.98), trace=None, trainability=None))
    assert found.gradient_gain[0] is not None
    assert abs(found.gradient_gain[0] - 0.24) < 1e-3  # float32 columns
    assert found.gradient_gain[1] is None
    assert "×0.24 → ?" in str(found)
    assert "50% → ?" in str(found)


def ran(loss: list[float], norms: list[float], *events: Event, clipped: list[float] | None = None) -> Trace:
    trace = synthetic.chain(3, steps=2, grad_out_norm=1.0)
    curves = {"loss": loss, "grad_norm": norms} | ({} if clipped is None else {"clipped": clipped})
    made = {name: Curve(np.arange(len(v), dtype=np.int64), np.array(v)) for name, v in curves.items()}
    return replace(trace, curves=made, events=events)


SKIP = Event(step=3, kind="scaler_skip", message="left out")


def test_two_runs_are_compared_by_what_they_came_to() -> None:
    first = ran([2.0] * 40 + [1.0, 3.0, 1.0, 2.0, 0.5], [1.0, 7.0, np.nan], SKIP, SKIP, clipped=[1.0, 0.0, 0.0, 1.0])
    second = ran([2.0] * 10 + [0.25], [0.5], replace(SKIP, kind="stop"))
    found = eg.compare(first, second)
    assert found.steps == (45, 11)
    assert found.final_loss == (1.625, 0.25)  # the last tenth: four steps of 45, one of 11
    assert found.largest_grad_norm == (7.0, 0.5)
    assert found.clipped_fraction == (0.5, None)
    assert found.events == {"scaler skip": (2, 0), "stop": (0, 1)}
    text = str(found).splitlines()
    for line in ("steps 45 → 11", "final loss 1.62 → 0.25", "largest grad norm 7 → 0.5", "clipped 50% → ?", "stop 0 → 1 times"):
        assert line in [" ".join(x.split()) for x in text]


def test_a_run_that_ended_in_nan_says_so() -> None:
    found = eg.compare(ran([1.0, np.nan], [np.inf, 2.0]), ran([1.0, np.inf, -np.inf], [np.nan]))
    assert "final loss         not a number → " in str(found)
    assert "largest grad norm  infinite → not a number" in str(found)
    document = json.loads(found.to_json(), parse_constant=pytest.fail)
    assert document["final_loss"][0] == {"$float": "nan"}
    assert document["largest_grad_norm"] == [{"$float": "inf"}, {"$float": "nan"}]


def test_reports_of_one_step_say_nothing_of_runs() -> None:
    text = str(eg.compare(report(0.24), report(0.98)))
    assert "steps" not in text
    assert "loss" not in text
