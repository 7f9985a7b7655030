from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evengrad.errors import InputError
from evengrad.lab import data

LABELS = st.lists(st.integers(0, 4), min_size=4, max_size=60).map(np.array)
SEEDS = st.integers(0, 100)


@given(y=LABELS, share=st.floats(0.01, 1), seed=SEEDS)
@settings(max_examples=60, deadline=None)
def test_few_have_of_each_class_its_share_and_one_at_least(y: np.ndarray, share: float, seed: int) -> None:
    n = max(1, int(share * len(y)))
    index = data.few_index(y, n, seed)
    assert index.dtype == np.int64
    assert len(index) == len(set(index.tolist())) == n
    classes, counts = np.unique(y, return_counts=True)
    drawn = np.array([(y[index] == c).sum() for c in classes])
    if n >= len(classes):
        assert drawn.min() >= 1
    assert (drawn <= np.ceil(counts * n / len(y))).all()  # no class more than its share, rounded up


def test_few_are_drawn_evenly_from_even_classes() -> None:
    y = np.repeat(np.arange(10), 500)
    assert np.bincount(y[data.few_index(y, 130, 3)]).tolist() == [13] * 10
    counts = np.bincount(y[data.few_index(y, 137, 3)])
    assert sorted(counts.tolist()) == [13] * 3 + [14] * 7


def test_which_samples_are_drawn_depends_on_the_seed_and_smaller_draws_are_in_larger_ones() -> None:
    y = np.repeat([0, 1], [70, 30])
    draws = [set(data.few_index(y, n, 5).tolist()) for n in (2, 10, 11, 50, 100)]
    assert all(small < large for small, large in pairwise(draws))
    assert set(data.few_index(y, 10, 6).tolist()) != draws[1]
    assert set(data.few_index(y, 10, 5).tolist()) == draws[1]


def test_every_sample_of_a_class_is_as_likely_to_be_drawn() -> None:
    y = np.repeat([0, 1], [6, 3])
    drawn = np.bincount(np.concatenate([data.few_index(y, 3, seed) for seed in range(600)]), minlength=9)
    np.testing.assert_allclose(drawn / 600, 1 / 3, atol=0.08)  # four standard errors


@pytest.mark.parametrize("y", [np.linspace(0, 1, 50), np.zeros((50, 7), np.int64), torch.linspace(0, 1, 50)])
def test_fractions_and_sequences_of_labels_are_drawn_without_regard_to_value(y: np.ndarray) -> None:
    assert len(data.few_index(y, 20, 0)) == 20
    train, held = data.hold_out_index(y, 0.3, 0)
    assert sorted([*train, *held]) == list(range(50))
    assert len(held) == 15
    assert len(data.fold_index(y, 4, 0, 0)[1]) == 12


@given(y=LABELS, k=st.integers(2, 4), seed=SEEDS)
@settings(max_examples=60, deadline=None)
def test_folds_are_of_one_size_disjoint_and_alike_in_classes(y: np.ndarray, k: int, seed: int) -> None:
    folds = [data.fold_index(y, k, i, seed) for i in range(k)]
    validated = np.concatenate([held for _, held in folds])
    assert len(set(validated.tolist())) == len(validated) == len(y) // k * k  # the remainder is in no fold
    for train, held in folds:
        assert len(held) == len(y) // k
        assert sorted([*train, *held]) == sorted(validated.tolist())
    counts = np.array([np.bincount(y[held], minlength=5) for _, held in folds])
    assert np.ptp(counts, axis=0).max() <= 1


def test_the_remainder_that_folds_leave_out_is_drawn_at_random() -> None:
    y = np.repeat([0, 1], 5)
    left = {next(iter(set(range(10)) - {*t.tolist(), *h.tolist()})) for t, h in (data.fold_index(y, 3, 0, seed) for seed in range(100))}
    assert left == set(range(10))


def test_what_is_held_out_has_of_each_class_its_share() -> None:
    y = np.repeat([0, 1, 2], [60, 30, 10])
    train, held = data.hold_out_index(y, 0.2, 1)
    assert np.bincount(y[held]).tolist() == [12, 6, 2]
    assert sorted([*train, *held]) == list(range(100))
    assert train.dtype == held.dtype == np.int64


def test_a_class_too_small_for_both_parts_is_trained_on() -> None:
    y = np.repeat([0, 1], [20, 1])
    for seed in range(20):
        train, _ = data.hold_out_index(y, 0.5, seed)
        assert 20 in train


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: data.few_index([0, 1, 1], 4, 0), "from 1 to 3 samples, as many as there are; got n=4"),
        (lambda: data.few_index([0, 1, 1], 0, 0), "got n=0"),
        (lambda: data.hold_out_index([0, 1, 1], 0.1, 0), "samples on both sides; got 0.1 of 3"),
        (lambda: data.hold_out_index([0, 1, 1], 1.5, 0), "got 1.5 of 3"),
        (lambda: data.hold_out_index([0, 1, 1], float("nan"), 0), "got nan of 3"),
        (lambda: data.fold_index([0, 1, 1], 4, 0, 0), "as many as there are samples, 3; got k=4"),
        (lambda: data.fold_index([0, 1, 1], 1, 0, 0), "got k=1"),
        (lambda: data.fold_index([0, 1, 1], 3, 3, 0), "0 to 2; got i=3"),
        (lambda: data.few_index([0, 1, 1], 2, -1), "seed from 0"),
        (lambda: data.class_weights([0, 2, 2]), r"class 1 has no sample to weigh; counts of the classes: \[1, 0, 2\]"),
        (lambda: data.class_weights([0, 1], 3), "class 2 has no sample"),
        (lambda: data.class_weights([0.5, 1.0]), "one label from 0 a sample; got float64"),
        (lambda: data.class_weights([-1, 1]), "one label from 0 a sample"),
    ],
)
def test_what_cannot_be_drawn_is_refused(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()  # type: ignore[operator]


def test_few_keeps_the_test_set_whole() -> None:
    circles = data.two_circles()
    small = data.few(circles, 10, seed=2)
    index = data.few_index(circles.y_train, 10, 2)
    assert torch.equal(small.x_train, circles.x_train[index])
    assert torch.equal(small.y_train, circles.y_train[index])
    assert small.y_train.bincount().tolist() == [5, 5]
    assert torch.equal(small.x_test, circles.x_test)


def test_weights_make_classes_count_the_same() -> None:
    y = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    weights = data.class_weights(y)
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights * y.bincount(), torch.full((3,), 100 / 3))


@pytest.mark.parametrize(("name", "axes"), [("wine", (0,)), ("images", (0, 2, 3)), ("adding", (0, 1))])
def test_standardized_inputs_have_mean_0_and_variance_1_in_each_feature(name: str, axes: tuple[int, ...]) -> None:
    if name == "wine":
        pytest.importorskip("sklearn")
    raw = {
        "wine": lambda: data.wine(standardize=False),
        "images": lambda: data.fashion_mnist(flat=False),
        "adding": lambda: data.adding(length=9, n=100),
    }[name]()
    split = data.standardized(raw)
    x, was = split.x_train.double(), raw.x_train.double()
    torch.testing.assert_close(x.mean(axes), torch.zeros_like(x.mean(axes)), atol=1e-6, rtol=0)  # float32
    torch.testing.assert_close(x.var(axes, correction=0), torch.ones_like(x.mean(axes)), atol=1e-5, rtol=0)
    mean, std = was.mean(axes, keepdim=True), was.std(axes, correction=0, keepdim=True)
    torch.testing.assert_close(split.x_test.double(), (raw.x_test.double() - mean) / std, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("value", [0.1, 2.0])  # the computed deviation of ten times 0.1 is not quite 0
def test_a_feature_that_never_changes_becomes_0(value: float) -> None:
    x = np.stack((np.full(10, value), np.arange(10.0)), axis=1)
    split = data.own(x, np.arange(10) % 2, standardize=True, test=(x + 0.5, np.arange(10) % 2))
    assert split.x_train[:, 0].tolist() == [0] * 10
    torch.testing.assert_close(split.x_test[:, 0], torch.full((10,), 0.5))  # what is new in the test set is not blown up
