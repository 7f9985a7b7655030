"""S5: what is compared with what, and how it is told."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest

from evengrad.errors import InputError
from evengrad.lab.jobs import Trained
from evengrad.lab.studies.batch_norm import BatchNorm, described, parsed
from evengrad.lab.study import Cell, Row, Rows

STUDY = BatchNorm(activation=("relu",), lr=(0.1, 0.3), target=0.5, width=8, epochs=2, seeds=1)
WITH, NONE = ({"activation": "relu", "norm": norm} for norm in ("batch before", "none"))


def trained(*steps: float) -> list[Trained]:
    job = STUDY._job(Cell(NONE, 0), 0.1)
    series = {"steps": np.array([20, 40]), "test_accuracy": np.array([0.4, 0.6])}
    return [Trained(job=job, values={"steps_to_target": s}, series=series, layers=()) for s in steps]


def values(own: tuple[float, float], plain: tuple[float, float]) -> Mapping[str, float]:
    return STUDY._row(Cell(WITH, 0), trained(*own), trained(*plain)).values


def test_each_network_at_its_best_rate_and_both_at_the_best_rate_without_a_norm() -> None:
    found = values(own=(100.0, 50.0), plain=(200.0, 400.0))
    assert (found["steps_to_target"], found["steps_without"], found["best_lr"]) == (50, 200, 0.3)
    assert (found["times_fewer"], found["times_fewer_same_lr"]) == (4, 2)


def test_a_target_that_is_not_reached_is_told_apart() -> None:
    assert values(own=(math.nan, 50.0), plain=(200.0, math.nan))["times_fewer_same_lr"] == 0
    assert values(own=(100.0, 50.0), plain=(math.nan, math.nan))["times_fewer"] == math.inf
    neither = values(own=(math.nan, math.nan), plain=(math.nan, math.nan))
    assert math.isnan(neither["times_fewer"])
    assert math.isnan(neither["best_lr"])


def test_a_row_is_the_same_whether_or_not_networks_without_a_norm_are_an_arm() -> None:
    assert STUDY.compute([Cell(WITH, 0)])[0] == STUDY.compute([Cell(NONE, 0), Cell(WITH, 0)])[1]


def test_a_bias_in_front_of_batch_norm_is_left_out() -> None:
    nets = {norm: STUDY._job(Cell({"activation": "relu", "norm": norm}, 0), 0.1).net.describe() for norm in BatchNorm().norm}
    assert [nets[norm]["bias"] for norm in BatchNorm().norm] == [True, False, True, True]
    assert (nets["batch after"]["norm"], nets["batch after"]["norm_at"]) == ("batch", "after")


def test_a_norm_has_a_kind_and_a_place() -> None:
    assert (parsed("none"), parsed("rms after")) == (("none", "before"), ("rms", "after"))
    assert described("layer after") == "Layer norm after the activation"
    with pytest.raises(InputError, match="such as 'batch before'"):
        parsed("batch")


def rows(norm: str, times: list[float], same: list[float], steps: float = 100.0) -> Rows:
    found = {"steps_to_target": steps, "steps_without": 400.0}
    return Rows(
        Row({"activation": "relu", "norm": norm}, seed, {**found, "times_fewer": t, "times_fewer_same_lr": s})
        for seed, (t, s) in enumerate(zip(times, same, strict=True))
    )


def test_the_answer_tells_both_comparisons_and_where_the_published_numbers_lie() -> None:
    answer = BatchNorm().answer(rows("batch before", [4.0, 15.0, 3.0], [3.0, 2.0, 2.5]))
    assert "the activation, medians of 5 seeds, each at its best learning rate: relu 4 times fewer (100 in place of 400)" in answer
    assert answer.startswith(
        "Times fewer steps to a test accuracy of 0.8, each network at its best rate. Batch norm before the activation: relu 4.\n"
    )
    assert "at the rate that is best without it: relu 2.5 times fewer" in answer
    assert "Published: 14 times fewer (Ioffe & Szegedy 2015" in answer
    assert "relu: typical: 1 of 3 seeds get there" in answer  # 15 of 4, 15, 3
    assert "Published" not in STUDY.answer(rows("batch before", [4.0], [3.0]))  # another width, target, ...


def test_the_answer_holds_where_a_target_is_not_reached_or_no_norm_was_run() -> None:
    answer = STUDY.answer(rows("batch after", [math.inf, math.inf], [0.0, math.nan]))
    assert "relu reaches it only with" in answer
    assert "best without it: relu reaches it only without" in answer
    assert "neither" in STUDY.answer(rows("batch after", [math.nan], [math.nan]))
    assert STUDY.answer(rows("none", [1.0], [1.0])) == "No norm was run, so there is nothing to compare."
