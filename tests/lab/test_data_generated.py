from __future__ import annotations

import numpy as np
import pytest
import torch

from evengrad.errors import InputError
from evengrad.lab import data


@pytest.mark.parametrize("options", [{}, {"n": 7, "noise": 0.3, "seed": 5}])
def test_moons_are_those_of_scikit_learn_number_for_number(options: dict[str, float]) -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    asked = {"n": 1000, "noise": 0.2, "seed": 1} | options
    x, y = datasets.make_moons(n_samples=asked["n"], noise=asked["noise"], random_state=asked["seed"])
    x = preprocessing.MinMaxScaler((-1, 1)).fit_transform(x).astype(np.float32)
    moons = data.moons(**options)  # type: ignore[arg-type]
    half = asked["n"] // 2
    for ours, theirs in zip((*moons.train, *moons.test), (x[:half], y[:half], x[half:], y[half:]), strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs)  # exact: the same operations in the same order


@pytest.mark.parametrize("options", [{}, {"n": 11, "classes": 4, "spread": 0.5, "seed": 7}])
def test_blobs_are_those_of_scikit_learn_number_for_number(options: dict[str, float]) -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    asked = {"n": 1000, "classes": 3, "spread": 2.0, "seed": 2} | options
    x, y = datasets.make_blobs(asked["n"], centers=asked["classes"], cluster_std=asked["spread"], random_state=asked["seed"])
    blobs = data.blobs(**options)  # type: ignore[arg-type]
    half = asked["n"] // 2
    for ours, theirs in zip((*blobs.train, *blobs.test), (x[:half], y[:half], x[half:], y[half:]), strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.astype(ours.numpy().dtype))  # exact: the same operations in the same order


@pytest.mark.parametrize(("arms", "turns"), [(2, 1.5), (3, 1.0), (5, 0.5)])
def test_points_of_a_spiral_lie_on_its_arm(arms: int, turns: float) -> None:
    n = 100 * arms + 1
    random = np.random.RandomState(3)
    order = np.arange(n)
    random.shuffle(order)
    split = data.spirals(n=n, arms=arms, turns=turns, noise=0.0, seed=3)
    x = torch.cat((split.x_train, split.x_test)).double().numpy()
    y = torch.cat((split.y_train, split.y_test)).numpy()
    radius = np.concatenate([np.arange(1, c + 1) / c for c in np.bincount(y)])[order]
    centre_and_scale = [np.polyfit(radius * f(2 * np.pi * (turns * radius + y / arms)), x[:, i], 1) for i, f in enumerate((np.cos, np.sin))]
    for i, f in enumerate((np.cos, np.sin)):  # each axis was scaled and moved, so is a straight function of the arm's own
        expected = np.polyval(centre_and_scale[i], radius * f(2 * np.pi * (turns * radius + y / arms)))
        np.testing.assert_allclose(x[:, i], expected, atol=1e-6)  # float32
    assert sorted(np.bincount(y).tolist()) == [100] * (arms - 1) + [101]
    assert split.classes == tuple(f"arm {i}" for i in range(arms))


def test_spirals_with_noise_stay_in_the_square_and_depend_on_the_seed() -> None:
    split, other = data.spirals(noise=0.1), data.spirals(noise=0.1, seed=2)
    x = torch.cat((split.x_train, split.x_test))
    assert x.amin(0).tolist() == [-1, -1]
    assert x.amax(0).tolist() == [1, 1]
    assert not torch.equal(split.x_train, other.x_train)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("moons", {"n": 3}, "at least 4 points; got n=3"),
        ("blobs", {"n": 5}, "got 3, n=5"),
        ("spirals", {"arms": 1}, "got n=1000 and arms=1"),
        ("spirals", {"arms": 4, "n": 7}, "got n=7 and arms=4"),
        ("two_circles", {"noise": -0.1}, "at least 0; got -0.1"),
        ("moons", {"seed": -1}, "seed from 0 to .*; got -1"),
        ("adding", {"length": 1}, "length of at least 2; got 1"),
        ("adding", {"n_test": 0}, "n_test of at least 1; got 0"),
        ("copy_memory", {"alphabet": 1}, "alphabet of at least 2; got 1"),
        ("copy_memory", {"delay": 0}, "delay of at least 1; got 0"),
    ],
)
def test_sizes_that_make_no_data_are_refused(name: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        data.load(name, **options)


@pytest.mark.parametrize("length", [2, 9, 50])
def test_adding_asks_for_the_sum_of_the_two_marked_numbers(length: int) -> None:
    split = data.adding(length=length, n=200, n_test=50)
    assert split.classes == ()
    assert split.x_test.shape == (50, length, 2)
    numbers, marks = split.x_train.unbind(-1)
    assert marks.unique().tolist() == ([1] if length == 2 else [0, 1])
    assert marks[:, : length // 2].sum(1).tolist() == marks[:, length // 2 :].sum(1).tolist() == [1] * 200
    torch.testing.assert_close(split.y_train, (numbers * marks).sum(1))


def test_answering_one_to_adding_errs_by_a_sixth() -> None:
    y = data.adding(length=2, n=20_000).y_train
    error = float((y - 1).square().mean())
    assert error == pytest.approx(1 / 6, abs=0.006)  # four standard errors: the squares have variance 7/180


def test_copy_memory_shows_symbols_and_asks_for_them_after_the_delay() -> None:
    split = data.copy_memory(delay=6, alphabet=3, length=2, n=40, n_test=5)
    assert split.x_train.shape == (40, 10, 5)
    assert split.x_test.shape == (5, 10, 5)
    assert torch.equal(split.x_train.sum(-1), torch.ones(40, 10))
    shown, said = split.x_train.argmax(-1), split.y_train
    assert torch.equal(shown[:, :2], said[:, -2:])
    assert shown[:, :2].unique().tolist() == [0, 1, 2]
    blank, go = 3, 4
    assert shown[:, 2:].tolist() == [[blank] * 5 + [go] + [blank] * 2] * 40  # the go sign comes one step before the first answer
    assert said[:, :-2].tolist() == [[blank] * 8] * 40
    assert split.classes == ("symbol 0", "symbol 1", "symbol 2", "blank")


def test_copy_memory_can_ask_for_the_last_symbol_alone() -> None:
    every, last = data.copy_memory(delay=4, n=30), data.copy_memory(delay=4, n=30, every_step=False)
    assert torch.equal(every.x_train, last.x_train)
    assert torch.equal(every.y_train[:, -1], last.y_train)
    assert len(last.classes) == 8


def test_fashion_rows_are_the_images_row_by_row() -> None:
    images, rows = data.fashion_mnist(flat=False), data.fashion_rows()
    assert torch.equal(rows.x_train, images.x_train[:, 0])
    assert torch.equal(rows.y_test, images.y_test)
    assert rows.classes == images.classes


def test_fashion_rows_can_be_read_pixel_by_pixel_and_permuted() -> None:
    flat = data.fashion_mnist().x_test
    pixels = data.fashion_rows(pixels=True).x_test
    assert torch.equal(pixels, flat.unsqueeze(-1))
    one, two = data.fashion_rows(pixels=True, permuted=True, seed=1), data.fashion_rows(pixels=True, permuted=True, seed=2)
    order = torch.from_numpy(np.random.RandomState(1).permutation(784))
    assert torch.equal(one.x_test, pixels[:, order])  # the same order for every image
    assert not torch.equal(one.x_test, two.x_test)
    rows = data.fashion_rows(permuted=True)
    assert torch.equal(rows.x_test, data.fashion_rows().x_test[:, np.random.RandomState(1).permutation(28)])
    assert rows.x_train.is_contiguous()  # numpy leaves the axis it drew from outermost, which is slow to read by samples
