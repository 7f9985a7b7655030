"""S4: the depth a seed trains, the best of the rates, and what the answer says of textbooks."""

from __future__ import annotations

import numpy as np
import pytest

from evengrad.lab.jobs import run_jobs
from evengrad.lab.studies.activations_initialisers_depth import ActivationsInitialisersDepth, powers, reach, textbook
from evengrad.lab.study import Cell, Row, Rows

STUDY = ActivationsInitialisersDepth(lr=(0.1, 1e-5), depth=(1, 3), epochs=3, width=16)


def rows(depths: dict[tuple[str, str], list[int]]) -> Rows:
    return Rows(
        Row({"activation": phi, "initialiser": start}, seed, {"depth_trained": float(depth)})
        for (phi, start), own in depths.items()
        for seed, depth in enumerate(own)
    )


def test_a_depth_counts_if_every_smaller_one_trains() -> None:
    assert reach((1, 5, 10, 20), (True, True, False, True)) == 5
    assert reach((20, 1, 5, 10), (True, True, True, True)) == 20
    assert reach((1, 5), (False, True)) == 0


def test_the_best_of_the_rates_counts_at_each_depth() -> None:
    cell = Cell({"activation": "tanh", "initialiser": "glorot_normal"}, 3)
    (row,) = STUDY.compute([cell])
    alone = run_jobs([STUDY._job(cell, depth, 0.1) for depth in STUDY.depth])
    np.testing.assert_allclose(row.series["train_accuracy"], [t.values["train_accuracy"] for t in alone], atol=0.02)  # rounding, 135 steps
    assert row.series["lr"].tolist() == [0.1, 0.1]
    assert row.series["first_gradient"].shape == (2,)


def test_cells_of_one_activation_are_trained_together() -> None:
    groups = ActivationsInitialisersDepth(chunk=6, lr=(0.1, 0.01), seeds=2, initialiser=("he_normal", "uniform_01")).groups(
        ActivationsInitialisersDepth(seeds=2, initialiser=("he_normal", "uniform_01")).cells()
    )
    assert {len({cell.arm["activation"] for cell in group}) for group in groups} == {1}
    assert [len(group) for group in groups] == [3, 1] * 5


def test_the_answer_tells_who_goes_deeper_than_the_textbook() -> None:
    found = {("tanh", "glorot_normal"): [10, 20, 20], ("tanh", "orthogonal"): [50, 50, 30], ("relu", "he_normal"): [10, 10, 5]}
    answer = STUDY.answer(rows(found | {("relu", "uniform_01"): [0, 0, 1], ("relu", "orthogonal"): [10, 10, 10]}))
    assert "For 1 of 2 activations nothing trains deeper" in answer
    assert "tanh goes deeper with orthogonal than with glorot_normal" in answer
    assert "tanh: 50 with orthogonal; 20 with glorot_normal." in answer
    assert "relu: 10 with he_normal, orthogonal; 0 with uniform_01." in answer


def test_the_answer_holds_without_the_textbook_and_where_nothing_trains() -> None:
    answer = STUDY.answer(rows({("sigmoid", "uniform_01"): [0, 0]}))
    assert answer.endswith("sigmoid: 0 with uniform_01.")
    assert "textbook" not in answer


@pytest.mark.parametrize(("measured", "words"), [([10, 20, 5], "not reached by any of 3 seeds"), ([30, 50, 50], "typical: 3 of 3")])
def test_thirty_layers_are_compared_at_full_size(measured: list[int], words: str) -> None:
    found = rows({("relu", "he_normal"): measured})
    assert words in ActivationsInitialisersDepth().answer(found)
    assert "He et al." not in STUDY.answer(found)


def test_options_do_not_hide_the_textbook() -> None:
    assert (textbook("leaky_relu(0.2)"), textbook("selu"), textbook("tanh")) == ("he_normal", "lecun_normal", "glorot_normal")


def test_zero_has_no_power() -> None:
    np.testing.assert_array_equal(powers(np.array([[100.0, 0.0, np.nan, np.inf]])), [[2.0, np.nan, np.nan, np.inf]])
