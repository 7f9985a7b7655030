"""Traces: what a part of one holds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from evengrad import synthetic
from evengrad.types import Curve


def test_until_keeps_what_was_seen_before_a_step_in_columns_and_curves() -> None:
    trace = synthetic.chain(2, steps=3, out_rms=[[1, 1], [2, 2], [3, 3]])
    trace = replace(trace, steps=np.array([0, 5, 9]), curves={"loss": Curve(np.arange(12), np.linspace(1, 0, 12))})
    cut = trace.until(9)
    np.testing.assert_array_equal(cut.steps, [0, 5])
    np.testing.assert_array_equal(cut.column("out_rms"), [[1, 1], [2, 2]])
    np.testing.assert_array_equal(cut.curves["loss"].steps, np.arange(9))
    assert len(cut.curves["loss"].values) == 9
