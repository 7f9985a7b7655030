"""Layers by steps -> cells: nothing small, large, zero or broken is lost, and the counts add up."""

from __future__ import annotations

import base64
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evengrad import synthetic
from evengrad.report import planes as module
from evengrad.report.cells import packed
from evengrad.report.part import part
from evengrad.report.planes import planes
from evengrad.report.pyramid import MAX_LAYERS, MAX_STEPS, grid, joined, pool, worst
from evengrad.types import Curve, Trace


def random_values(seed: int, steps: int, rows: int) -> np.ndarray:  # type: ignore[type-arg]
    rng = np.random.default_rng(seed)
    values = np.exp(rng.normal(0, 5, (steps, rows)))
    values[rng.random((steps, rows)) < 0.05] = 0.0
    values[rng.random((steps, rows)) < 0.02] = np.inf
    values[rng.random((steps, rows)) < 0.1] = np.nan
    return values.astype(np.float32)


def run(steps: int, rows: int, seed: int = 0) -> Trace:
    """A run with every kind of value, seen at every third step only."""
    gradient = random_values(seed, steps, rows)
    gradient[np.arange(steps) % 3 > 0] = np.nan
    trace = synthetic.chain(rows, steps=steps, grad_out_norm=gradient, update_norm=random_values(seed + 1, steps, rows), weight_norm=1.0)
    loss = np.ones(steps)
    loss[steps // 2] = np.nan
    return replace(trace, curves={"loss": Curve(trace.steps, loss)})


@given(seed=st.integers(0, 99), steps=st.integers(1, 40), rows=st.integers(1, 40), cells=st.tuples(st.integers(1, 9), st.integers(1, 9)))
@settings(max_examples=60, deadline=None)
def test_a_cell_keeps_the_smallest_the_largest_and_the_counts(seed: int, steps: int, rows: int, cells: tuple[int, int]) -> None:
    values = random_values(seed, steps, rows)
    bounds = [np.unique(np.linspace(0, n, min(n, c) + 1).astype(np.int64)) for n, c in zip((steps, rows), cells, strict=True)]
    pooled = pool(values, *bounds)
    for i, (a, b) in enumerate(zip(bounds[0], bounds[0][1:], strict=False)):
        for j, (c, d) in enumerate(zip(bounds[1], bounds[1][1:], strict=False)):
            block = values[a:b, c:d]
            seen = block[~np.isnan(block)]
            if len(seen):
                assert (pooled.least[i, j], pooled.greatest[i, j]) == (seen.min(), seen.max())
            else:
                assert np.isnan(pooled.least[i, j])
    assert pooled.zeros.sum() == (values == 0).sum()
    assert pooled.infinite.sum() == np.isinf(values).sum()
    assert pooled.seen.sum() == (~np.isnan(values)).sum()


def test_the_worst_is_not_finite_then_zero_then_far_from_the_centre() -> None:
    values = np.array([[1.0, np.inf, 0.0], [1.0, 0.0, 5.0], [1e-3, 10.0, 2.0], [np.nan, 1.0, 100.0]], np.float32)
    pooled = pool(values, np.arange(5), np.array([0, 3]))
    assert list(worst(pooled, 0.0)[:, 0]) == [np.inf, 0.0, np.float32(1e-3), 100.0]
    assert worst(pooled, None)[2, 0] == 10.0  # of a share, the largest


@pytest.mark.parametrize(("steps", "rows"), [(1, 1), (7, 3), (1000, 500), (1001, 501), (10_000, 10_000)])
def test_a_grid_covers_all_and_is_small(steps: int, rows: int) -> None:
    found = grid(steps, rows)
    assert (found.steps[0], found.steps[-1], found.rows[0], found.rows[-1]) == (0, steps, 0, rows)
    assert len(found.steps) - 1 <= MAX_STEPS
    assert len(found.rows) - 1 <= MAX_LAYERS
    assert np.ptp(np.diff(found.steps)) <= 1
    assert found.whole == (steps <= MAX_STEPS and rows <= MAX_LAYERS)
    windows = list(found.windows(64))
    assert [a for a, _ in windows[1:]] == [b for _, b in windows[:-1]]
    assert windows[-1][1] == steps


def test_windows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = run(90, 12)
    whole = planes(trace)
    monkeypatch.setattr(module, "_WINDOW", 100)
    for one, other in zip(whole, planes(trace), strict=True):
        np.testing.assert_array_equal(one.values, other.values)
        np.testing.assert_array_equal(one.pooled.zeros, other.pooled.zeros)


def test_planes_of_a_long_run_agree_with_pooling_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = run(90, 12)
    whole = planes(trace)
    monkeypatch.setattr("evengrad.report.pyramid.MAX_STEPS", 10)
    monkeypatch.setattr("evengrad.report.pyramid.MAX_LAYERS", 4)
    size = grid(90, 12)
    for fine, coarse in zip(whole, planes(trace), strict=True):
        again = pool(fine.values, size.steps, size.rows)
        np.testing.assert_array_equal(coarse.pooled.least, again.least)
        np.testing.assert_array_equal(coarse.pooled.greatest, again.greatest)
        assert coarse.pooled.infinite.sum() == fine.pooled.infinite.sum() == np.isinf(fine.values).sum()
        assert coarse.reach <= fine.reach  # beside a zero or what is not finite, a cell's other end is not kept


@pytest.mark.parametrize(("steps", "rows"), [((0, 90), (0, 12)), ((31, 32), (0, 12)), ((0, 90), (7, 8)), ((44, 50), (3, 9))])
def test_a_part_has_exactly_the_numbers_of_the_whole(steps: tuple[int, int], rows: tuple[int, int]) -> None:
    trace = run(90, 12)
    for plane in planes(trace):
        found = part(trace, plane, steps, rows)
        values = np.frombuffer(base64.b64decode(found["planes"][0]["values"]), "<f4")
        np.testing.assert_array_equal(values.reshape(steps[1] - steps[0], -1), plane.values[slice(*steps), slice(*rows)])
        assert found["box"] == {"s0": steps[0], "s1": steps[1], "l0": rows[0], "l1": rows[1]}
        assert found["steps"] == [[s, s] for s in range(*steps)]


def test_a_large_part_is_pooled_and_what_lies_outside_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = run(90, 12)
    (plane, *_) = planes(trace)
    monkeypatch.setattr("evengrad.report.pyramid.MAX_STEPS", 10)
    monkeypatch.setattr("evengrad.report.part._AT_ONCE", 100)
    found = part(trace, plane, (20, 10**9), (0, 10**9))
    assert (found["box"]["s0"], found["box"]["s1"], found["box"]["l1"], len(found["steps"])) == (20, 90, 12, 10)
    packed_sides = [found["planes"][0][side] for side in ("least", "greatest")]
    pooled = pool(plane.values[20:], np.arange(0, 71, 7), np.arange(13))
    for side, expected in zip(packed_sides, (pooled.least, pooled.greatest), strict=True):
        np.testing.assert_allclose(unpacked(side).reshape(10, 12), expected, rtol=2**-10)
    assert part(trace, plane, (500, 600), (50, 60))["box"] == {"s0": 89, "s1": 90, "l0": 11, "l1": 12}


def unpacked(text: str) -> np.ndarray:  # type: ignore[type-arg]
    return np.frombuffer(zlib.decompress(base64.b64decode(text), -15), np.uint8).reshape(4, -1).T.copy().view("<f4")[:, 0]


def test_parts_put_together_are_the_whole() -> None:
    values = random_values(3, 20, 6)
    rows, steps = np.arange(7), np.arange(0, 21, 5)
    whole, parts = pool(values, steps, rows), joined([pool(values[:10], steps[:3], rows), pool(values[10:], steps[:3], rows)])
    for name in ("least", "greatest", "zeros", "infinite", "seen"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))


def test_packing_keeps_states_and_a_thousandth() -> None:
    limits = np.finfo(np.float32)
    values = np.concatenate([random_values(1, 50, 50).ravel(), np.array([limits.tiny, limits.max, 0.0, np.inf, np.nan], np.float32)])
    back = unpacked(packed(values.astype(np.float32)))
    for state in (np.isnan, np.isinf, lambda x: x == 0):
        np.testing.assert_array_equal(state(back), state(values))
    known = np.isfinite(values) & (values > 0)
    np.testing.assert_allclose(back[known], values[known], rtol=2**-10)  # 9 bits behind the point, rounded
