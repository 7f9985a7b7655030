"""S14: what trains and what does not, where signal and gradient end, and that the answer says so."""

from __future__ import annotations

import numpy as np
import pytest

from evengrad.errors import UnknownNameError
from evengrad.lab.studies.ten_thousand_layers import RECIPES, TenThousandLayers, reached
from evengrad.lab.study import Cell, Row, Rows


def row_of(network: str, depth: int, **sizes: object) -> tuple[TenThousandLayers, Row]:
    study = TenThousandLayers(network=(network,), depth=(depth,), seeds=1, **sizes)  # type: ignore[arg-type]
    return study, study.compute(study.cells())[0]


@pytest.mark.parametrize("network", ["tanh", "conv", "fixup"])
def test_the_three_that_should_train_do_so(network: str) -> None:
    study, row = row_of(network, 100, steps=20)
    assert row.values["trained"] == 1
    assert row.values["steps_to_target"] <= 20
    assert row.values["signal_depth"] == row.values["gradient_depth"] == 100
    assert "1 of 1 seed, training" in study.answer(Rows([row]))


def test_the_residual_network_needs_no_other_rate_for_more_layers_and_the_plain_one_a_smaller() -> None:
    assert not RECIPES["fixup"].lr_falls
    assert all(recipe.lr_falls for name, recipe in RECIPES.items() if name != "fixup")
    for depth in (40, 160):
        assert row_of("fixup", depth, steps=12)[1].series["loss"][-1] < 0.5  # from 2.7; it stays there at a rate divided by 160


def test_torchs_default_loses_the_signal_and_the_answer_says_where() -> None:
    study, row = row_of("default", 300, steps=1)
    depth = int(row.values["signal_depth"])
    assert 150 < depth < 250  # 38 decades of float32, and 7 of denormal numbers, at 0.239 a layer
    assert row.values["trained"] == 0
    assert f"the signal is exactly zero after {depth} layers" in study.answer(Rows([row]))


def test_gain_five_thirds_keeps_the_signal_and_loses_the_gradient_upward() -> None:
    study, row = row_of("gain_5/3", 1500, steps=3)
    assert row.values["signal_depth"] == 1500
    assert 700 < row.values["gradient_depth"] < 1200  # 38 decades at 0.041 a layer, from 1e-2 on
    assert len(row.series["loss"]) == 2  # after the first step nothing is finite
    assert "the gradient is not finite from" in study.answer(Rows([row]))


def test_series_have_a_value_for_each_layer_before_the_first_step_and_at_the_last() -> None:
    _, row = row_of("tanh", 30, steps=6)
    assert row.series["recorded"].tolist() == [0, 5]
    assert {row.series[name].shape for name in ("out_rms", "out_spread", "grad_out_norm", "grad_rms")} == {(2, 30)}
    _, row = row_of("fixup", 30, steps=6)
    assert row.series["out_rms"].shape == (2, 15)  # a value a block
    assert row.values["signal_depth"] == 30


def test_layers_are_counted_until_the_first_that_nothing_reaches() -> None:
    assert reached(np.array([1.0, 1e-300, 0.0, 2.0])) == 2
    assert reached(np.array([1.0, np.inf, 2.0])) == 1
    assert reached(np.array([np.nan])) == 0
    assert reached(np.ones(4)) == 4


def test_an_unknown_network_offers_the_nearest() -> None:
    study = TenThousandLayers()
    with pytest.raises(UnknownNameError, match="Did you mean 'fixup'"):
        study.compute([Cell({"network": "fixu", "depth": 10}, 0)])


def test_memory_is_estimated_by_the_largest_network() -> None:
    study = TenThousandLayers()
    small, large = (study.memory([Cell({"network": "tanh", "depth": depth}, 0)]) for depth in (100, 10_000))
    assert small < 0.5e9
    assert 0.8e9 < large < 1.3e9  # about 0.9 GB were measured at 10,000 layers
