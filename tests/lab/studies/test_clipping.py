"""Thresholds that are measured, what counts as clipped and as failed, and what the study says of hand-made rows."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from evengrad.errors import InputError
from evengrad.lab.studies.clipping import Clipping, parsed, threshold
from evengrad.lab.study import Cell, Row, Rows

SMALL = Clipping(activation=("relu",), lr=(0.05,), hidden=6, epochs=1, batch_size=1000, measured=3, seeds=2)


def computed(*clips: str) -> dict[tuple[str, int], Row]:
    study = replace(SMALL, clip=clips)
    return {(row.arm["clip"], row.seed): row for group in study.groups(study.cells()) for row in study.compute(group)}


def test_networks_that_are_clipped_in_one_way_train_together() -> None:
    study = Clipping(activation=("tanh", "relu"), lr=(0.1, 0.01), clip=("none", "norm 1", "norm p50", "value 1"), seeds=3, chunk=5)
    groups = study.groups(study.cells())
    assert [len(group) for group in groups] == [5, 1, 5, 5, 2, 5, 1] * 2
    assert all(len({(c.arm["activation"], parsed(c.arm["clip"])[0]) for c in group}) == 1 for group in groups)


def test_a_suggested_threshold_is_taken_from_the_runs_own_first_steps() -> None:
    rows = computed("norm p50", "norm 1", "value p50")
    for seed in (0, 1):
        row = rows["norm p50", seed]
        assert row.values["threshold"] == row.values["first_norm"] == rows["norm 1", seed].values["first_norm"]
        assert 0 < rows["value p50", seed].values["threshold"] < row.values["threshold"]
    assert rows["norm p50", 0].values["threshold"] != rows["norm p50", 1].values["threshold"]


def test_measuring_leaves_the_training_as_it_is_and_no_step_is_clipped_at_a_high_threshold() -> None:
    rows = computed("none", "norm 1e9", "norm 1e-9")
    for seed in (0, 1):
        none, high, low = (rows[clip, seed].values for clip in ("none", "norm 1e9", "norm 1e-9"))
        assert high["train_loss"] == pytest.approx(none["train_loss"], rel=1e-5)
        assert (high["clipped_fraction"], low["clipped_fraction"]) == (0.0, 1.0)
        assert math.isnan(none["clipped_fraction"])
        assert low["train_loss"] != pytest.approx(none["train_loss"], rel=1e-3)


@pytest.mark.parametrize(
    ("loss", "failed", "diverged"),
    [(1.2, 0.0, 0.0), (math.log(10), 1.0, 0.0), (50.0, 1.0, 0.0), (math.inf, 1.0, 1.0)],
)
def test_who_ends_no_better_than_guessing_has_failed(loss: float, failed: float, diverged: float) -> None:
    seen = {"first": np.array([1.0, 3.0, 5.0]), "size": np.array([0.5, 2.0, np.inf, np.nan]), "loss": np.zeros(4)}
    row = Clipping._row(Cell({"clip": "norm 1"}, 0), 1.0, {"train_loss": loss}, seen)
    assert (row.values["failed"], row.values["diverged"]) == (failed, diverged)
    assert row.values["clipped_fraction"] == pytest.approx(2 / 3)  # after a step without a number nothing is counted
    assert row.values["first_norm"] == 3.0


def row(clip: str, seed: int = 0, **values: float) -> Row:
    defaults: dict[str, Any] = {
        "test_accuracy": 0.5,
        "val_accuracy": 0.5,
        "failed": 0.0,
        "threshold": 1.0,
        "first_norm": 1.0,
        "clipped_fraction": 0.5,
    }
    return Row({"activation": "tanh", "lr": 0.1, "clip": clip}, seed, defaults | values, {})


def test_the_better_kind_at_its_best_threshold_is_told() -> None:
    rows = Rows(
        [
            row("none", failed=1.0, test_accuracy=0.1),
            row("norm 1", val_accuracy=0.7, test_accuracy=0.6),
            row("norm 0.1", test_accuracy=0.65),
        ]
    )
    rows = Rows([*rows, row("value 0.1", test_accuracy=0.55), row("value p50", failed=1.0, threshold=0.7, test_accuracy=0.2)])
    answer = Clipping().answer(rows)
    assert answer.startswith(
        "At the threshold that is best on validation images, clipping is better (by over 0.01 test accuracy) by norm in 1, by value in 0 "
        "of 1 setting."
    )
    assert "suggest, 1 of 1 run by value fail." in answer
    assert "tanh at rate 0.1, test accuracy: 0.1 with 1 of 1 seed failing without clipping; by norm 0.6 at the best threshold, 1" in answer
    assert "(no seed fails at 0.1, 1);" in answer
    assert "by value p50 of the first steps (0.7) 0.2 with 1 of 1 seed failing." in answer


def test_the_published_range_is_counted_in_norms_of_the_first_steps() -> None:
    rows = [row("norm 1", threshold=1.0, first_norm=2.0), row("norm 20", threshold=20.0, first_norm=2.0, failed=1.0)]
    rows += [row("norm 21", threshold=21.0, first_norm=2.0, failed=1.0), row("norm 0.9", threshold=0.9, first_norm=2.0)]
    assert "(Pascanu, Mikolov & Bengio 2013); here 1 of 2 runs with half to ten times" in Clipping().answer(Rows(rows))
    assert "Published" not in Clipping().answer(Rows([row("value 1")]))


def test_a_clipped_direction_is_a_fact_of_the_answer() -> None:
    assert "becomes by value (0.9, 1), turned by 41°, and by norm (0.009, 1), turned by 0°." in Clipping().answer(Rows())


def test_ways_to_clip_are_read_or_refused() -> None:
    assert [parsed(clip) for clip in ("none", "norm 1e-3", "value p90")] == [("none", ""), ("norm", "1e-3"), ("value", "p90")]
    assert threshold("value p50", np.array([1.0, 5.0, 3.0])) == 3.0
    assert threshold("norm 0.25", np.array([1.0])) == 0.25
    for clip in ("norm", "norms 1", "value -1", "norm x"):
        with pytest.raises(InputError, match="'norm 1' or 'value p90'; got"):
            parsed(clip)
