"""Two reports side by side: what is gone, what is new."""

from __future__ import annotations

from dataclasses import replace

import evengrad as eg
from evengrad import synthetic
from evengrad.report import Report
from evengrad.types import Finding


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
