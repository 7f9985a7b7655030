"""Causes that steps, curves and facts tell by themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from evengrad import synthetic
from evengrad.signals.curves import loss_factor, unharmed
from evengrad.signals.scale import units, weight_rms
from evengrad.signals.why import cause_of, is_possible
from evengrad.types import Facts, Trace


def _run(facts: Facts | None = None, loss: Any = None, **columns: Any) -> Trace:
    made = synthetic.chain(3, steps=4, facts=facts or Facts(loss={"baseline": 1.0}), **columns)
    return synthetic.run(made, loss=np.ones(100) if loss is None else loss)


@pytest.mark.parametrize(("shrinks", "cause"), [(0.1, "missing_zero_grad"), (1.0, None)])
def test_a_penalty_that_is_alike_from_step_to_step_is_no_gradient_that_piles_up(shrinks: float, cause: str | None) -> None:
    trace = _run(Facts(loop={"accumulated": 0.9}), extra_shrink=shrinks)
    assert cause_of(trace, ["missing_zero_grad"]) == cause


@pytest.mark.parametrize(("agreement", "cause"), [(1.0, "over_clipped"), (0.4, None)])
def test_a_small_gradient_of_another_direction_was_not_clipped(agreement: float, cause: str | None) -> None:
    trace = _run(grad_norm=1e-3, grad_raw_norm=1.0, grad_agreement=agreement)
    assert cause_of(trace, ["over_clipped"]) == cause


@pytest.mark.parametrize(("piece", "cause"), [(2.0, "batch_too_small"), (50.0, None)])
def test_batch_norm_sees_the_parts_that_a_loop_hands_it(piece: float, cause: str | None) -> None:
    trace = _run(Facts(modules={"norms": [{"kind": "BatchNorm1d"}]}, loop={"piece": piece}))
    assert cause_of(trace, ["batch_too_small"]) == cause


@pytest.mark.parametrize(("loop", "possible"), [({}, True), ({"accumulated": 0.9}, True), ({"accumulated": 0.0}, False)])
def test_gradients_that_were_seen_not_to_pile_up_are_no_cause(loop: dict[str, Any], possible: bool) -> None:
    assert is_possible("missing_zero_grad", _run(Facts(loop=loop))) is possible


def test_the_constant_answer_tells_how_many_times_its_kind_a_loss_is() -> None:
    labels = {"shape": [50], "labels": {"0": 20, "1": 20, "2": 20}}
    facts = Facts(loss={"op": "cross_entropy", "baseline": np.log(3) / 64}, targets=labels)
    assert loss_factor(_run(facts)) == pytest.approx(1 / 64)
    assert loss_factor(_run(Facts(loss={"op": "mse", "baseline": 32.0}, targets={"std": 2.0}))) == pytest.approx(8.0)
    assert loss_factor(_run(Facts(loss={"op": "other", "baseline": 32.0}, targets={"std": 2.0}))) is None


@pytest.mark.parametrize(("left", "well"), [(0.5, False), (0.25, True)])
def test_half_of_what_can_be_learnt_does_not_show_that_a_fault_did_no_harm(left: float, well: bool) -> None:
    assert unharmed(_run(loss=left + (1 - left) * np.exp(-np.arange(200) / 10))) is well


def test_a_convolution_has_as_many_units_as_channels() -> None:
    layer = replace(synthetic.chain(1).layers[0], kind="conv", fan_in=27, fan_out=144, parameters=16 * 28)
    assert units(layer) == 16
    trace = synthetic.chain(
        1, weight_norm=0.5 * np.sqrt(16 * 27), layer={"kind": "conv", "fan_in": 27, "fan_out": 144, "parameters": 16 * 28}
    )
    assert weight_rms(trace, 0) == pytest.approx(0.5)
