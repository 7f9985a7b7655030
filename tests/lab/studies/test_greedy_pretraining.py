"""What the study says of hand-made rows, and which texts it takes."""

from __future__ import annotations

import numpy as np
import pytest

from evengrad.errors import EvengradError, InputError
from evengrad.lab.studies.greedy_pretraining import TUTORIAL, GreedyPretraining, parsed
from evengrad.lab.study import Row, Rows


def rows(ends: dict[str, list[float]], network: str = "relu he_normal", task: str = "digits", **stages: float) -> Rows:
    return Rows(
        Row({"task": task, "network": network, "procedure": p}, seed, {"test_accuracy": v, **stages}, {"stages": np.array([])})
        for p, values in ends.items()
        for seed, v in enumerate(values)
    )


def test_help_is_what_most_seeds_gain_by_any_procedure() -> None:
    helped = rows({"at once": [0.1, 0.1, 0.9], "supervised": [0.9, 0.9, 0.9], "autoencoder": [0.1, 0.1, 0.1]}, "sigmoid default")
    answer = GreedyPretraining().answer(Rows((*helped, *rows({"at once": [0.97], "supervised": [0.975], "autoencoder": [0.9]}))))
    assert answer.startswith(
        "Growing layer by layer raises test accuracy by over 0.01 in most seeds for sigmoid default on digits. It does not"
    )
    assert "It does not for relu he_normal on digits." in answer
    assert (
        "sigmoid default on digits: 0.1 at once, grown supervised 0.9 (better in 2 of 3 seeds), autoencoder 0.1 (better in 0 of 3 seeds)."
        in answer
    )


def test_help_is_denied_where_there_is_none() -> None:
    answer = GreedyPretraining().answer(rows({"at once": [0.97, 0.9], "supervised": [0.975, 0.8]}))
    assert answer.startswith("Growing layer by layer helps none of relu he_normal on digits.")


def test_the_tutorials_runs_are_judged_at_their_own_number_of_layers() -> None:
    found = rows({"autoencoder": [0.7, 0.7, 0.7, 0.7, 0.8]}, TUTORIAL, "blobs", test_after_1=0.832, test_after_6=0.5)
    answer = GreedyPretraining().answer(found)
    assert "Blobs, autoencoder, 1 layer: published 0.832, median here 0.832; typical" in answer
    assert "Blobs, autoencoder, 6 layers: published 0.76, median here 0.5; not reached by any of 5 seeds." in answer
    assert "supervised" not in answer


def test_of_another_size_the_tutorials_runs_are_not_spoken_of() -> None:
    found = rows({"supervised": [0.8]}, TUTORIAL, "blobs", test_after_1=0.8)
    assert "published" not in GreedyPretraining(tutorial_epochs=3).answer(found)


def test_blobs_have_the_tutorials_network_alone() -> None:
    arms = GreedyPretraining(network=("tanh default",), procedure=("at once",)).arms()
    assert [(arm["task"], arm["network"]) for arm in arms] == [("digits", "tanh default"), ("blobs", TUTORIAL)]


def test_what_it_cannot_train_is_refused_by_name() -> None:
    with pytest.raises(EvengradError, match=r"no procedure .*'supervized'.*supervised"):
        GreedyPretraining(procedure=("supervized",))
    with pytest.raises(EvengradError, match=r"no task .*'digit'"):
        GreedyPretraining(task=("digit",))
    with pytest.raises(InputError, match="'relu he_normal'; got 'relu'"):
        parsed("relu")
