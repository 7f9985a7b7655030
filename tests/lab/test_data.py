from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from evengrad.errors import InputError, UnknownNameError
from evengrad.lab import data
from evengrad.lab.data import Split


@pytest.fixture(scope="module")
def fashion() -> Split:
    return data.fashion_mnist()


@pytest.mark.parametrize("options", [{}, {"n": 7, "noise": 0.3, "seed": 5}])
def test_two_circles_are_those_of_scikit_learn_number_for_number(options: dict[str, float]) -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    asked = {"n": 1000, "noise": 0.1, "seed": 1} | options
    x, y = datasets.make_circles(n_samples=asked["n"], noise=asked["noise"], random_state=asked["seed"])
    x = preprocessing.MinMaxScaler((-1, 1)).fit_transform(x).astype(np.float32)
    circles = data.two_circles(**options)  # type: ignore[arg-type]
    half = asked["n"] // 2
    for ours, theirs in zip((*circles.train, *circles.test), (x[:half], y[:half], x[half:], y[half:]), strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs)  # exact: the same operations in the same order


def test_two_circles_fill_the_square_and_split_in_half() -> None:
    circles = data.two_circles()
    x = torch.cat((circles.x_train, circles.x_test))
    assert circles.x_train.shape == circles.x_test.shape == (500, 2)
    assert x.amin(0).tolist() == [-1, -1]
    assert x.amax(0).tolist() == [1, 1]
    assert torch.cat((circles.y_train, circles.y_test)).bincount().tolist() == [500, 500]


def test_two_circles_leave_the_global_generator_alone() -> None:
    np.random.seed(3)
    expected = np.random.rand()
    np.random.seed(3)
    data.two_circles()
    assert np.random.rand() == expected


def test_too_few_points_for_two_circles_are_refused() -> None:
    with pytest.raises(InputError, match=r"at least 4 points; got n=3"):
        data.two_circles(n=3)


def test_embedded_fashion_mnist_is_balanced_and_scaled(fashion: Split) -> None:
    assert fashion.x_train.shape == (5000, 784)
    assert fashion.x_test.shape == (1000, 784)
    assert fashion.x_train.dtype == torch.float32
    assert fashion.y_train.bincount().tolist() == [500] * 10
    assert fashion.y_test.bincount().tolist() == [100] * 10
    assert fashion.x_train.min() == 0
    assert fashion.x_train.max() == 1
    assert float(fashion.x_train.mean()) == pytest.approx(0.286, abs=0.005)  # the mean of all 60,000, up to sampling


def test_any_first_part_of_embedded_fashion_mnist_is_balanced(fashion: Split) -> None:
    for n in (10, 130, 1000):
        assert fashion.y_train[:n].bincount().tolist() == [n // 10] * 10
        assert fashion.y_test[:n].bincount().tolist() == [n // 10] * 10


def test_images_keep_their_pixels_when_not_flattened(fashion: Split) -> None:
    images = data.fashion_mnist(flat=False)
    assert images.x_train.shape == (5000, 1, 28, 28)
    assert torch.equal(images.x_train.flatten(1), fashion.x_train)


def test_embedded_images_are_the_first_of_each_class_of_the_published_ones(fashion: Split) -> None:
    if not data.DEBIAN_FASHION_MNIST.exists():
        pytest.skip("needs Debian's package dataset-fashion-mnist")
    full = data.fashion_mnist(full=True)
    assert len(full.y_train) == 60_000
    assert full.y_test.bincount().tolist() == [1000] * 10
    for label in range(10):
        published = full.x_train[full.y_train == label][:500]
        assert torch.equal(fashion.x_train[fashion.y_train == label], published)
        assert torch.equal(fashion.x_test[fashion.y_test == label], full.x_test[full.y_test == label][:100])


def test_a_file_that_is_not_the_published_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 1, 7])))
    with pytest.raises(InputError, match=r"expected MD5 f4a8712d7a061bf5bd6d2ca38dc4d50a after decompression, found"):
        data.read_debian_fashion_mnist(tmp_path)


@pytest.mark.parametrize(
    ("name", "shape", "classes"), [("digits", (1797, 64), 10), ("wine", (178, 13), 3), ("breast_cancer", (569, 30), 2)]
)
def test_tables_of_scikit_learn_are_split_by_class(name: str, shape: tuple[int, int], classes: int) -> None:
    pytest.importorskip("sklearn")
    split = data.load(name)
    labels = torch.cat((split.y_train, split.y_test)).bincount()
    assert len(split.y_train) + len(split.y_test) == shape[0]
    assert split.x_train.shape[1] == shape[1]
    assert len(split.classes) == len(labels) == classes
    np.testing.assert_allclose(split.y_test.bincount() / labels, 0.2, atol=0.02)  # one in five, up to rounding


@pytest.mark.parametrize("name", ["wine", "breast_cancer"])
def test_features_are_standardized_by_the_training_set_alone(name: str) -> None:
    pytest.importorskip("sklearn")
    split, raw = data.load(name), data.load(name, standardize=False)
    np.testing.assert_allclose(split.x_train.mean(0), 0, atol=1e-5)  # float32
    np.testing.assert_allclose(split.x_train.std(0, correction=0), 1, atol=1e-5)
    expected = (raw.x_test.double() - raw.x_train.double().mean(0)) / raw.x_train.double().std(0, correction=0)
    np.testing.assert_allclose(split.x_test, expected, rtol=1e-3, atol=1e-4)
    assert raw.x_train.std(0).max() > 1000 * raw.x_train.std(0).min()


def test_digits_are_standardized_where_a_pixel_varies() -> None:
    pytest.importorskip("sklearn")
    split, raw = data.load("digits", standardize=True), data.load("digits")
    varies = raw.x_train.amax(0) > raw.x_train.amin(0)
    np.testing.assert_allclose(split.x_train.mean(0), 0, atol=1e-5)  # float32
    np.testing.assert_allclose(split.x_train.std(0, correction=0), varies, atol=1e-5)
    assert 0 <= raw.x_train.min() < raw.x_train.max() == 1


def test_training_and_test_samples_do_not_overlap() -> None:
    pytest.importorskip("sklearn")
    split = data.breast_cancer()
    assert not {tuple(row.tolist()) for row in split.x_train} & {tuple(row.tolist()) for row in split.x_test}


@pytest.mark.parametrize("name", sorted(set(data.names()) - {"mnist", "cifar10"}))  # these two are downloaded
def test_every_data_set_is_the_same_on_every_call_and_owns_its_memory(name: str) -> None:
    if name in {"digits", "wine", "breast_cancer"}:
        pytest.importorskip("sklearn")
    first = data.load(name)
    copies = [t.clone() for t in (*first.train, *first.test)]
    first.x_train.zero_()
    first.y_test.zero_()
    second = data.load(name)
    assert all(torch.equal(a, b) for a, b in zip(copies, (*second.train, *second.test), strict=True))
    assert second.name == name
    assert second.y_train.dtype == (torch.int64 if second.classes else torch.float32)
    assert second.x_train.dtype == torch.float32
    if second.classes:
        assert int(second.y_train.min()) >= 0
        assert int(second.y_train.max()) < len(second.classes)


def test_missing_scikit_learn_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(InputError, match=r"pip install 'evengrad\[lab\]'"):
        data.wine()


def test_unknown_name_offers_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"no data set is called 'two_circle'\. Did you mean 'two_circles'\?"):
        data.load("two_circle")
