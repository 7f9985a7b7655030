"""S3: every activation has its initialiser and dropout, is looked at as often as asked, and the answer says how sure the order is."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from evengrad.lab.jobs import Trained
from evengrad.lab.models.hashing import HashAlphaDropout, HashDropout
from evengrad.lab.studies.six_activations import SixActivations
from evengrad.lab.study import Row, Rows

STUDY = SixActivations()


def test_each_activation_has_the_initialiser_and_dropout_that_belong_to_it() -> None:
    nets = {phi: STUDY.job({"activation": phi}, 0).net for phi in STUDY.activation}
    assert {phi: net.describe()["initialiser"] for phi, net in nets.items()} == {
        "sigmoid": "glorot_normal",
        **dict.fromkeys(("relu", "elu", "leaky_relu(0.2)", "gelu"), "he_normal"),
        "selu": "lecun_normal",
    }
    dropouts = [[type(m) for m in replace(nets[phi], dense=2).build(0) if isinstance(m, HashDropout)] for phi in ("selu", "gelu")]
    assert dropouts == [[HashAlphaDropout] * 2, [HashDropout] * 2]


@pytest.mark.parametrize(("sizes", "steps"), [({}, 94), ({"full": False}, 8), ({"full": False, "samples": 1000, "evaluations": 1}, 7)])
def test_an_epoch_is_looked_at_as_often_as_asked(sizes: dict[str, int], steps: int) -> None:
    job = SixActivations(**sizes).job({"activation": "relu"}, 0)  # type: ignore[arg-type]
    assert (job.evaluate_steps, job.record_steps) == (steps, steps)  # of 375, 32 and 7 steps


def test_gradients_are_compared_before_training() -> None:
    gradients = np.array([[0.2, 0.3, 0.4, 9.0], [5.0, 5.0, 1.0, 1.0]])  # records, layers
    trained = Trained(
        job=STUDY.job({"activation": "relu"}, 0), values={}, series={"grad_abs_mean": gradients, "steps": np.array([94, 375])}, layers=()
    )
    values, series = STUDY.extra(trained.job, trained)
    assert values["gradient_ratio"] == pytest.approx(0.5)
    assert series["epochs"].tolist() == pytest.approx([94 / 375, 1])


def rows(found: dict[str, list[float]], steps: float = 100.0) -> Rows:
    return Rows(
        Row({"activation": phi}, seed, {"test_accuracy": a, "steps_to_target": steps, "gradient_ratio": 2.0 if phi == "relu" else 0.1})
        for phi, own in found.items()
        for seed, a in enumerate(own)
    )


def test_an_order_that_seeds_overturn_is_told_to_be_unsure() -> None:
    answer = STUDY.answer(rows({"sigmoid": [0.1, 0.2, 0.1], "relu": [0.88, 0.86, 0.9], "gelu": [0.89, 0.87, 0.91]}))
    assert "gelu 0.89, relu 0.88, sigmoid 0.1." in answer
    assert "gelu is above relu in 67% of pairs of seeds, so their order is not sure." in answer
    assert "gelu is above sigmoid in 100% of pairs of seeds." in answer
    assert "with sigmoid: 0.1 of it" in answer
    assert "100% of pairs of seeds, so their order is not sure" in STUDY.answer(rows({"relu": [0.8], "gelu": [0.9]}))


def test_the_answer_holds_for_one_activation_that_never_reaches_the_target() -> None:
    answer = STUDY.answer(rows({"relu": [0.5, 0.6]}, steps=math.nan))
    assert "Steps to a validation accuracy of 0.8: not reached." in answer
    assert "pairs" not in answer
