"""S2: which trainings it consists of, and how deep it says tanh networks learn."""

from __future__ import annotations

from evengrad.lab.studies.two_circles_extensions import TwoCirclesExtensions
from evengrad.lab.study import Row, Rows


def test_the_grid_is_tanh_and_the_variants_are_at_the_tutorials_size() -> None:
    study = TwoCirclesExtensions(depth=(1, 5, 10), width=(5, 25), seeds=1)
    arms = [tuple(arm.values()) for arm in study.arms()]
    assert len(arms) == 3 * 2 * 2 + 3
    assert arms[-3:] == [
        (5, 5, "uniform_01", "Adam", "tanh"),
        (5, 5, "glorot_uniform", "Adam", "tanh"),
        (5, 5, "he_uniform", "SGD", "relu"),
    ]
    recorded = [tuple(arm.values())[:2] for arm in study.arms() if study.job(arm, 0).record]
    assert set(recorded) == {(5, 5)}  # weight changes, at that size only


def test_the_depth_that_learns_is_the_last_before_the_first_that_fails() -> None:
    study = TwoCirclesExtensions(depth=(1, 2, 3, 4), width=(5,), initialiser=("uniform_01",), optimizer=("SGD",), activation=("tanh",))
    learned = {1: 0.8, 2: 0.8, 3: 0.5, 4: 0.8}
    rows = Rows(Row(arm, 0, {"train_accuracy": learned[arm["depth"]]}) for arm in study.arms())
    assert "half of the seeds or more learn down to a depth of 2 at width 5" in study.answer(rows)
    none = Rows(Row(arm, 0, {"train_accuracy": 0.5}) for arm in study.arms())
    assert "down to a depth of under 1 at width 5" in study.answer(none)
