"""Which arms there are, and what the study says of hand-made rows."""

from __future__ import annotations

import pytest
import torch

from evengrad.errors import UnknownNameError
from evengrad.lab.studies.few_samples import BLOBS, FewSamples
from evengrad.lab.study import Cell, Row, Rows


def rows(task: str = "images", **ends: list[float]) -> Rows:
    """`scratch_20=[0.7, 0.8]`: a method, a number of labels, the accuracy of each seed."""
    return Rows(
        Row({"task": task, "labelled": int(n), "method": method.replace("_", " ")}, seed, {"test_accuracy": v})
        for name, values in ends.items()
        for method, n in (name.rsplit("_", 1),)
        for seed, v in enumerate(values)
    )


def test_a_method_beats_training_from_scratch_where_most_seeds_gain() -> None:
    answer = FewSamples().answer(rows(scratch_20=[0.70, 0.80, 0.90], augmented_20=[0.75, 0.85, 0.85], frozen_20=[0.6, 0.6, 0.6]))
    assert answer == (
        "With 20 labels, training from scratch reaches 0.8 and augmented beats it: augmented +0.050 (better in 2 of 3 seeds), "
        "frozen −0.200 (better in 0 of 3 seeds)."
    )


def test_a_gain_of_nothing_beats_nothing() -> None:
    answer = FewSamples().answer(rows(scratch_50=[0.70, 0.80], augmented_50=[0.704, 0.803]))
    assert "nothing clearly beats it: augmented +0.004 (better in 2 of 2 seeds)" in answer


@pytest.mark.parametrize(
    ("tuned", "told"),
    [(0.95, "more than 500 labels"), (0.75, "about 50 labels"), (0.5, "no more labels")],
)
def test_a_pretrained_network_is_worth_the_labels_that_scratch_needs(tuned: float, told: str) -> None:
    named = rows(scratch_5=[0.6], scratch_500=[0.9])
    answer = FewSamples(labelled=(5, 500)).answer(
        Rows((*named, Row({"task": "images", "labelled": 5, "method": "fine-tuned"}, 0, {"test_accuracy": tuned})))
    )
    assert f"fine-tuned with 5 labels, is worth {told} from scratch." in answer


def test_the_tutorials_spread_stands_beside_that_of_networks_of_their_own() -> None:
    found = rows("blobs", scratch_500=[0.7, 0.9], first_layer_frozen_500=[0.80, 0.84])
    answer = FewSamples().answer(found)
    assert "Blobs, scratch: mean 0.8, standard deviation 0.1; published 0.787 and 0.101 (50th percentile of 2 seeds)." in answer
    assert "published 0.817 and 0.005, all from one pre-trained network" in answer
    assert "published" not in FewSamples(tutorial_epochs=5).answer(found)


def test_blobs_have_the_tutorials_methods_and_share_a_network_with_all_arms_of_a_seed() -> None:
    study = FewSamples(labelled=(20,), method=("augmented", "frozen"), seeds=4, chunk=3)
    assert [(arm["task"], arm["labelled"], arm["method"]) for arm in study.arms()] == [
        ("images", 20, "augmented"),
        ("images", 20, "frozen"),
        ("blobs", 500, "frozen"),
    ]
    groups = study.groups(study.cells())
    assert [(len(group), {c.arm["task"] for c in group}) for group in groups] == [
        (6, {"images"}),
        (2, {"images"}),
        (3, {"blobs"}),
        (1, {"blobs"}),
    ]


def test_layers_of_the_tutorials_network_rest_and_its_head_goes_on() -> None:
    study, new = FewSamples(tutorial_epochs=1), [BLOBS.build(seed) for seed in (0, 1)]
    knowing = study._fitted(new, 1, (0, 1))
    for moved, before in zip(study._fitted(knowing, 2, (0, 1), 2), knowing, strict=True):
        same = [torch.equal(a, b) for a, b in zip(moved.parameters(), before.parameters(), strict=True)]
        assert same == [True, True, True, True, False, False]


def test_each_of_the_tutorials_methods_ends_elsewhere() -> None:
    arms = [{"task": "blobs", "labelled": 500, "method": method} for method in ("scratch", "frozen", "first layer frozen", "fine-tuned")]
    rows = FewSamples(tutorial_epochs=1).compute([Cell(arm, seed) for arm in arms for seed in (0, 1)])
    assert [(row.arm["method"], row.seed) for row in rows] == [(arm["method"], seed) for arm in arms for seed in (0, 1)]
    assert len({row.values["test_loss"] for row in rows}) == 8


def test_unknown_methods_and_tasks_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="'freeze'"):
        FewSamples(method=("freeze",))
    with pytest.raises(UnknownNameError, match="'image'"):
        FewSamples(task=("image",))
