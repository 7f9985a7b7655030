"""How far a loss came, whatever kind of loss it is; and tests by ranks against curves without trend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evengrad import synthetic
from evengrad.signals.curves import (
    MIN_STEPS,
    baseline,
    falls_on,
    late_pace,
    learnable,
    mastered,
    noise,
    progress,
    seen_share,
    smoothed,
    thrives,
    trend,
)
from evengrad.types import Facts, Series, Trace

FALL = 2.3 * np.exp(-np.arange(400) / 60)


def run(loss: Any, targets: dict[str, Any] | None = None, **facts: Any) -> Trace:
    return synthetic.run(synthetic.chain(3, facts=Facts(loss=facts, targets=targets)), loss=loss)


def draws(kind: str, count: int, length: int) -> Series:
    generator = np.random.default_rng(7)
    if kind == "normal":
        return generator.standard_normal((count, length))
    return generator.gamma(0.3, 1.0, (count, length)) if kind == "skewed" else generator.standard_t(2, (count, length))


@pytest.mark.parametrize("length", [1, 3, 19, 20, 21, 377])
def test_parts_of_a_curve_are_as_numpy_splits_them(length: int) -> None:
    values = draws("cauchy", 1, length)[0]
    np.testing.assert_allclose(smoothed(values), [part.mean() for part in np.array_split(values, min(20, length))], rtol=1e-9, atol=1e-12)


def test_a_loss_that_falls_to_zero_thrives() -> None:
    found = progress(run(FALL, baseline=2.3))
    assert found is not None
    assert found.learnt == pytest.approx(1.0, abs=0.01)
    assert found.thrives


def test_a_loss_that_stays_thrives_not() -> None:
    assert not thrives(run(np.full(300, 2.3), baseline=2.3))


@pytest.mark.parametrize("value", [0.05, 0.3])
def test_a_network_trained_before_thrives_though_its_loss_hardly_falls(value: float) -> None:
    """Measured from its own start it would have learnt nothing."""
    assert thrives(run(value + 0.01 * np.random.default_rng(0).standard_normal(300), baseline=2.3))


def test_without_a_baseline_the_start_is_what_is_to_beat() -> None:
    found = progress(run(FALL))
    assert found is not None
    assert found.reference == found.start


def test_a_first_step_that_throws_the_loss_far_off_is_no_start() -> None:
    """Else a loss that comes back from a thousand to where it began would have learnt nearly all."""
    found = progress(run(np.r_[2.3, 4000.0, 900.0, np.full(297, 2.3)]))
    assert found is not None
    assert found.start == pytest.approx(2.3)
    assert not found.thrives


def test_a_loss_that_came_back_thrives_not() -> None:
    found = progress(run(np.r_[FALL[:200], np.full(100, 1.0)], baseline=2.3))
    assert found is not None
    assert found.learnt > 0.5
    assert found.regained > 0.25
    assert not found.thrives


@pytest.mark.parametrize(("end", "thriving"), [(-3.0, True), (-1.05, False)])
def test_losses_below_zero_are_measured_in_units_of_their_start(end: float, thriving: bool) -> None:
    assert thrives(run(np.linspace(-1.0, end, 300))) == thriving


def test_a_loss_that_starts_at_zero_has_a_sign() -> None:
    assert thrives(run(np.linspace(0.0, -5.0, 300)))
    assert not thrives(run(np.linspace(0.0, 5.0, 300)))


@pytest.mark.parametrize("last", [np.nan, np.inf])
def test_a_curve_that_ends_in_no_number_has_learnt_less_than_nothing(last: float) -> None:
    found = progress(run(np.r_[FALL[:100], np.full(20, last)], baseline=2.3))
    assert found is not None
    assert found.end == np.inf
    assert found.best < 0.6
    assert not found.thrives


def test_a_curve_of_no_numbers_or_of_few_is_no_curve() -> None:
    assert progress(run(np.full(100, np.nan), baseline=2.3)) is None
    assert progress(run(FALL[: MIN_STEPS - 1], baseline=2.3)) is None
    assert progress(synthetic.chain(3)) is None


@settings(max_examples=30, deadline=None)
@given(scale=st.floats(1e-6, 1e6), seed=st.integers(0, 2**32 - 1))
def test_a_sum_over_the_batch_or_any_other_factor_changes_nothing(scale: float, seed: int) -> None:
    loss = FALL + 0.2 * np.random.default_rng(seed).standard_normal(400)
    one, other = progress(run(loss, baseline=2.3)), progress(run(scale * loss, baseline=scale * 2.3))
    assert one is not None
    assert other is not None
    assert other.learnt == pytest.approx(one.learnt, rel=1e-9)
    assert other.thrives == one.thrives


def test_targets_of_many_samples_tell_the_baseline_better_than_those_of_one_batch() -> None:
    counts = {"shape": [8], "labels": {"0": 500, "1": 500}}
    assert baseline(run(FALL, counts, baseline=0.56, op="cross_entropy")) == pytest.approx(np.log(2))
    assert baseline(run(FALL, {"shape": [8, 1], "std": 2.0}, baseline=3.1, op="mse")) == pytest.approx(4.0)


@pytest.mark.parametrize("found", [None, np.nan, 0.0, -1.0])
def test_a_baseline_that_is_none_is_none(found: float | None) -> None:
    assert baseline(run(FALL, **({} if found is None else {"baseline": found}))) is None


def test_a_weighted_or_summed_loss_keeps_its_own_baseline() -> None:
    counts = {"shape": [64], "labels": {"0": 500, "1": 500}}
    assert baseline(run(FALL, counts, baseline=44.0, op="cross_entropy")) == 44.0


def near(agreement: float, *, classes: int = 2) -> dict[str, Any]:
    labels = {str(k): 1000 // classes for k in range(classes)}
    return {"shape": [64], "labels": labels, "neighbour_agreement": agreement, "neighbour_chance": 1 / classes, "neighbour_error": 0.02}


def test_noise_in_the_targets_is_not_asked_to_be_learnt() -> None:
    """Classes that overlap: one in six answers is wrong at best, which costs 0.45 of 0.69."""
    trace = run(0.42 + 0.1 * FALL, near(0.72), baseline=0.693, op="cross_entropy")
    assert learnable(trace) == pytest.approx(1 - 0.4535 / 0.6931, abs=0.02)
    assert thrives(trace)
    assert not thrives(run(0.42 + 0.1 * FALL, near(0.99), baseline=0.693, op="cross_entropy"))


@settings(max_examples=50, deadline=None)
@given(agreement=st.floats(0.0, 1.0), classes=st.integers(2, 20))
def test_what_can_be_learnt_is_a_share(agreement: float, classes: int) -> None:
    assert 0.0 <= learnable(run(FALL, near(agreement, classes=classes), baseline=2.3, op="cross_entropy")) <= 1.0


def test_neighbours_that_agree_by_chance_tell_nothing() -> None:
    assert learnable(run(FALL, near(0.51), baseline=0.69, op="cross_entropy")) == 1.0
    assert learnable(run(FALL)) == 1.0


def test_numbers_are_learnt_as_far_as_neighbours_correlate() -> None:
    facts = {"shape": [64, 1], "neighbour_agreement": 0.4, "neighbour_chance": 0.0, "neighbour_error": 0.03}
    assert learnable(run(FALL, facts, baseline=1.0, op="mse")) == pytest.approx(0.4)


@pytest.mark.parametrize("kind", ["normal", "skewed", "heavy"])
def test_trend_raises_two_false_alarms_in_a_thousand_whatever_the_noise(kind: str) -> None:
    """Of 1,500 curves 3 are expected beyond 3.1; over 11 would have a chance of 1 in 10,000."""
    assert sum(abs(trend(values)) > 3.1 for values in draws(kind, 1500, 100)) <= 11


def test_trend_tells_falling_from_rising() -> None:
    noisy = 0.1 * draws("normal", 1, 400)[0]
    assert trend(FALL + noisy) < -3.1
    assert trend(noisy - FALL) > 3.1
    assert trend(np.full(400, 1.0)) == 0.0
    assert trend(np.full(400, np.nan)) == 0.0


def test_noise_is_that_of_the_steps_and_not_of_the_course() -> None:
    made = 5 * FALL + 0.3 * draws("normal", 1, 400)[0]
    made[50] = 1e6
    assert noise(made) == pytest.approx(0.3, rel=0.15)


@pytest.mark.parametrize("kind", ["normal", "skewed", "heavy"])
def test_a_flat_curve_falls_on_by_chance_once_in_a_thousand(kind: str) -> None:
    """Of 1,500 curves 1.5 are expected; over 8 would have a chance of 1 in 10,000."""
    assert sum(late_pace(values) is not None for values in draws(kind, 1500, 200)) <= 8


def test_an_even_fall_gains_half_in_its_last_half() -> None:
    pace = late_pace(np.linspace(2.0, 1.0, 300) + 0.01 * draws("normal", 1, 300)[0])
    assert pace == pytest.approx(0.5, abs=0.05)
    settled = late_pace(FALL)
    assert settled is not None
    assert settled < 0.1


def test_the_same_validation_samples_each_time_show_a_fall_that_batches_hide() -> None:
    loss = 2.3 - 1e-4 * np.arange(300) + 0.3 * draws("normal", 1, 300)[0]
    at = np.arange(0, 300, 19)
    seen = synthetic.run(run(loss), val_loss=(at, 2.3 - 1e-4 * at))
    assert falls_on(run(loss)) is None
    assert falls_on(seen) == pytest.approx(0.5, abs=0.1)


def test_share_of_the_run_that_was_seen() -> None:
    planned = synthetic.run(synthetic.chain(3, facts=Facts(loop={"steps": 1000})), loss=FALL)
    assert seen_share(planned) == pytest.approx(0.4)
    assert seen_share(run(FALL)) == 1.0
    assert seen_share(synthetic.chain(3)) == 0.0


def test_parts_are_equal_and_never_empty() -> None:
    assert len(smoothed(np.arange(7.0))) == 7
    np.testing.assert_allclose(smoothed(np.arange(40.0), 4), [4.5, 14.5, 24.5, 34.5])


def test_smoothed_labels_are_asked_for_no_more_than_right_answers_get() -> None:
    loss = {"baseline": 1.8, "op": "cross_entropy", "floor": 0.54, "arrives": 1.0}
    smooth = synthetic.chain(3, facts=Facts(loss=loss, head={"reach": [None, None]}))
    assert learnable(smooth) == pytest.approx(0.46)
    assert learnable(synthetic.chain(3, facts=Facts(loss=loss, head={"reach": [0.0, 1.0]}))) == 1.0  # a softmax: a fault
    squashed = loss | {"free_floor": 0.54}
    assert learnable(synthetic.chain(3, facts=Facts(loss=squashed, head={"reach": [None, None]}))) == 1.0


def test_answers_are_counted_beside_what_neighbours_let_expect() -> None:
    facts = Facts(targets={"labels": {"0": 5, "1": 5}, "neighbour_agreement": 0.9, "neighbour_chance": 0.5})
    made = synthetic.chain(3, facts=facts)
    assert mastered(synthetic.run(made, val_accuracy=[0.5, 0.7])) == pytest.approx(0.5)
    assert np.isnan(mastered(made))
