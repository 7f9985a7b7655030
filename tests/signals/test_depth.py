"""Trace -> slopes along depth."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evengrad import synthetic
from evengrad.signals import gradient_gain, gradient_slope, relative_profile, slope, slopes, trainable_depth
from evengrad.types import Trace


def shaped(trace: Trace, groups: list[int | None], trunks: list[int | None] | None = None) -> Trace:
    fields: list[dict[str, Any]] = [
        {"group": g, "trunk": t, "depth": None if g is None else i + 1}
        for i, (g, t) in enumerate(zip(groups, trunks or groups, strict=True))
    ]
    return replace(trace, layers=tuple(replace(x, **f) for x, f in zip(trace.layers, fields, strict=True)))


@settings(max_examples=50, deadline=None)
@given(depth=st.integers(3, 200), gain=st.floats(0.1, 10))
def test_slope_of_a_geometric_profile_is_exact(depth: int, gain: float) -> None:
    depth = min(depth, int(30 / max(abs(math.log10(gain)), 0.1)) + 3)
    fit = slope(synthetic.chain(depth, grad_out_norm=synthetic.geometric(depth, gain, last=1.0)))
    assert fit is not None
    assert fit.gain == pytest.approx(gain, rel=1e-4)  # single precision at both ends
    assert fit.total == pytest.approx((depth - 1) * math.log10(gain), abs=1e-4)
    assert fit.r2 > 0.99 or abs(fit.total) < 1e-4
    assert fit.rows == tuple(range(depth))


def test_negative_slope_vanishes_and_positive_explodes() -> None:
    vanishing = synthetic.chain(10, grad_out_norm=synthetic.geometric(10, 0.5))
    assert gradient_slope(vanishing) == pytest.approx(math.log10(0.5), rel=1e-5)
    assert gradient_gain(vanishing) == pytest.approx(0.5, rel=1e-5)
    exploding = gradient_slope(synthetic.chain(10, grad_out_norm=synthetic.geometric(10, 2.0)))
    assert exploding is not None
    assert exploding > 0


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_two_rows_have_no_slope(depth: int) -> None:
    trace = synthetic.chain(depth, grad_out_norm=np.ones(depth))
    assert (slope(trace), gradient_slope(trace), gradient_gain(trace), trainable_depth(trace)) == (None, None, None, None)


def test_rows_that_are_zero_or_not_finite_are_left_out_but_keep_their_place() -> None:
    values = synthetic.geometric(10, 0.5)
    values[[0, 1]], values[4], values[6] = 0, np.nan, np.inf
    fit = slope(synthetic.chain(10, grad_out_norm=values))
    assert fit is not None
    assert fit.gain == pytest.approx(0.5, rel=1e-5)
    assert fit.zero_rows == (0, 1)
    assert fit.rows == (2, 3, 5, 7, 8, 9)


def test_fewer_than_three_usable_rows_give_no_slope() -> None:
    assert slopes(synthetic.chain(5, grad_out_norm=[0, 0, np.nan, 1, 2])) == []


def test_groups_come_before_trunks_of_mixed_shapes() -> None:
    trace = shaped(synthetic.chain(6, grad_out_norm=synthetic.geometric(6, 0.5)), [1, 0, 0, 0, 2, 3], [0] * 6)
    (fit,) = slopes(trace)
    assert fit.rows == (1, 2, 3)
    assert fit.equal_shape


def test_whole_trunks_count_beside_their_groups_where_that_is_asked_for() -> None:
    trace = shaped(synthetic.chain(6, grad_out_norm=synthetic.geometric(6, 0.5)), [1, 0, 0, 0, 2, 3], [0] * 6)
    whole, group = slopes(trace, whole=True)
    assert (whole.rows, whole.equal_shape) == (tuple(range(6)), False)
    assert group.rows == (1, 2, 3)
    assert whole.total == pytest.approx(5 * math.log10(0.5), rel=1e-5)


def test_trunk_of_one_group_counts_once() -> None:
    trace = synthetic.chain(6, grad_out_norm=synthetic.geometric(6, 0.5))
    assert slopes(trace, whole=True) == slopes(trace)


def test_mixed_trunk_steps_in_where_no_three_rows_share_a_shape() -> None:
    trace = shaped(synthetic.chain(4, grad_out_norm=synthetic.geometric(4, 0.5)), [0, 1, 2, 3], [0] * 4)
    (fit,) = slopes(trace)
    assert not fit.equal_shape
    assert fit.rows == (0, 1, 2, 3)


def test_steepest_total_comes_first() -> None:
    values = np.r_[synthetic.geometric(4, 0.9), synthetic.geometric(4, 0.2)]
    first, second = slopes(shaped(synthetic.chain(8, grad_out_norm=values), [0] * 4 + [1] * 4))
    assert first.rows == (4, 5, 6, 7)
    assert abs(first.total) > abs(second.total)


def test_rows_without_depth_never_enter() -> None:
    values = synthetic.geometric(7, 0.5)
    values[[1, 3, 5]] = 1e9  # norms
    (fit,) = slopes(shaped(synthetic.chain(7, grad_out_norm=values), [0, None, 0, None, 0, None, 0]))
    assert fit.rows == (0, 2, 4, 6)
    assert fit.gain == pytest.approx(0.25, rel=1e-5)


def test_flat_profile_has_no_slope_and_any_depth_is_trainable() -> None:
    trace = synthetic.chain(10, grad_out_norm=1.0, out_spread=1.0)
    fit = slope(trace)
    assert fit is not None
    assert (fit.decades, fit.r2) == (0.0, 1.0)
    assert trainable_depth(trace) == math.inf


def test_trainable_depth_is_that_of_the_steeper_signal() -> None:
    trace = synthetic.chain(20, grad_out_norm=synthetic.geometric(20, 10**-0.1), out_spread=synthetic.geometric(20, 10**0.3))
    assert trainable_depth(trace) == pytest.approx(1.8 / 0.3, rel=1e-4)


def test_profile_is_relative_to_the_last_deep_row() -> None:
    trace = shaped(synthetic.chain(4, grad_out_norm=[1.0, 2.0, 4.0, 100.0]), [0, 0, 0, None])
    np.testing.assert_allclose(relative_profile(trace), [0.25, 0.5, 1, 25])
    assert np.isnan(relative_profile(synthetic.chain(4))).all()


@settings(max_examples=30, deadline=None)
@given(factor=st.floats(1e-6, 1e6))
def test_scale_of_the_profile_does_not_matter(factor: float) -> None:
    values = np.array([1, 3, 2, 5, 4], np.float64)
    one, other = (slope(synthetic.chain(5, grad_out_norm=f * values)) for f in (1.0, factor))
    assert one is not None
    assert other is not None
    assert other.decades == pytest.approx(one.decades, abs=1e-6)
    assert other.r2 == pytest.approx(one.r2, abs=1e-6)


def test_slope_agrees_with_least_squares() -> None:
    values = np.random.default_rng(0).lognormal(size=12)
    fit = slope(synthetic.chain(12, grad_out_norm=values))
    assert fit is not None
    expected = -np.polyfit(np.arange(12), np.log10(values.astype(np.float32), dtype=np.float64), 1)[0]  # rows run from input to output
    assert fit.decades == pytest.approx(expected, rel=1e-6)
    correlation = np.corrcoef(np.arange(12), np.log10(values))[0, 1]
    assert fit.r2 == pytest.approx(correlation**2, rel=1e-5)
