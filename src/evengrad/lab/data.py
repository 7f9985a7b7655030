"""name -> arrays: the lab's data sets as torch tensors, split into training and test, the same on every call."""

from __future__ import annotations

import gzip
import hashlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from evengrad.errors import InputError, unknown

Array = npt.NDArray[Any]

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
FASHION_CLASSES = ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
_FASHION_FILES = {  # array -> (file, MD5 of the decompressed bytes: Debian compressed them anew)
    "x_train": ("train-images-idx3-ubyte.gz", "f4a8712d7a061bf5bd6d2ca38dc4d50a"),
    "y_train": ("train-labels-idx1-ubyte.gz", "9018921c3c673c538a1fc5bad174d6f9"),
    "x_test": ("t10k-images-idx3-ubyte.gz", "8181f5470baa50b63fa0f6fddb340f0a"),
    "y_test": ("t10k-labels-idx1-ubyte.gz", "15d484375f8d13e6eb1aabb0c3f46965"),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """A classification data set, split.

    Attributes:
        name: The name that `load` knows it by.
        classes: Name of each class; label i is `classes[i]`.
        x_train: float32 (N, ...).
        y_train: int64 (N,), in [0, len(classes)).
        x_test: float32 (M, ...).
        y_test: int64 (M,).
    """

    name: str
    classes: tuple[str, ...]
    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor

    @property
    def train(self) -> tuple[Tensor, Tensor]:
        """Inputs and labels to train on."""
        return self.x_train, self.y_train

    @property
    def test(self) -> tuple[Tensor, Tensor]:
        """Inputs and labels to judge on."""
        return self.x_test, self.y_test


def load(name: str, **options: Any) -> Split:
    """Returns the data set called `name`; options are those of the function of that name.

    Raises:
        UnknownNameError: if there is none.

    Example:
        >>> load("two_circles").x_train.shape
        torch.Size([500, 2])
    """
    if name not in _LOADERS:
        raise unknown("data set", name, _LOADERS)
    return _LOADERS[name](**options)


def names() -> tuple[str, ...]:
    """Lists what `load` knows."""
    return tuple(sorted(_LOADERS))


def two_circles(n: int = 1000, noise: float = 0.1, seed: int = 1) -> Split:
    """Returns two concentric circles in the plane, each feature scaled to [-1, 1], the first half to train on.

    Number for number `make_circles(n, noise=noise, random_state=seed)` of scikit-learn followed by `MinMaxScaler((-1, 1))` over all
    points, so that published results on it can be repeated without scikit-learn. Class 0 is the outer circle (radius 1), class 1 the inner
    one (radius 0.8).

    Args:
        n: Number of points, at least 4.
        noise: Standard deviation of the normal noise on each coordinate, before scaling.
        seed: Seed of the legacy generator that scikit-learn uses.
    """
    if n < 4:
        raise InputError(f"two circles need at least 4 points; got n={n}")
    random = np.random.RandomState(seed)  # the legacy generator: its stream is frozen, and is the one that is published
    outer = np.linspace(0, 2 * np.pi, n // 2, endpoint=False)
    inner = np.linspace(0, 2 * np.pi, n - n // 2, endpoint=False)
    x = np.stack((np.append(np.cos(outer), np.cos(inner) * 0.8), np.append(np.sin(outer), np.sin(inner) * 0.8)), axis=1)
    y = np.repeat([0, 1], [len(outer), len(inner)])
    order = np.arange(n)
    random.shuffle(order)
    x, y = x[order], y[order]
    x += random.normal(scale=noise, size=x.shape)
    low, high = x.min(axis=0), x.max(axis=0)
    scale = 2 / (high - low)
    x = x * scale + (-1 - low * scale)
    half = n // 2
    return _split("two_circles", ("outer", "inner"), (x[:half], y[:half]), (x[half:], y[half:]))


def fashion_mnist(*, full: bool = False, flat: bool = True) -> Split:
    """Returns Fashion-MNIST, pixels scaled to [0, 1]: the embedded balanced subset (5,000 + 1,000), or everything (60,000 + 10,000).

    Args:
        full: Read all images from Debian's package `dataset-fashion-mnist`.
        flat: (N, 784) if True, else (N, 1, 28, 28).

    Raises:
        InputError: if `full` and the package is not installed.

    Reference: Xiao, Rasul & Vollgraf 2017, https://arxiv.org/abs/1708.07747
    """
    arrays = read_debian_fashion_mnist() if full else _embedded("fashion_mnist.npz")
    shape = (-1, 784) if flat else (-1, 1, 28, 28)
    x_train, x_test = (arrays[k].reshape(shape).astype(np.float32) / 255 for k in ("x_train", "x_test"))
    return _split("fashion_mnist", FASHION_CLASSES, (x_train, arrays["y_train"]), (x_test, arrays["y_test"]))


def digits(*, flat: bool = True) -> Split:
    """Returns scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, scaled to [0, 1]: (N, 64), or (N, 1, 8, 8) if not `flat`."""
    x, y, classes = _from_sklearn("digits")
    x = (x / 16).reshape((-1, 64) if flat else (-1, 1, 8, 8))
    return _shuffled("digits", classes, x, y)


def wine(*, standardize: bool = True) -> Split:
    """Returns 178 wines with 13 features; `standardize=False` leaves scales that differ by a factor of thousands."""
    return _tabular("wine", standardize)


def breast_cancer(*, standardize: bool = True) -> Split:
    """Returns 569 tumours with 30 features; `standardize=False` leaves scales that differ by a factor of hundreds of thousands."""
    return _tabular("breast_cancer", standardize)


_LOADERS: dict[str, Callable[..., Split]] = {f.__name__: f for f in (two_circles, fashion_mnist, digits, wine, breast_cancer)}


def read_debian_fashion_mnist(folder: Path = DEBIAN_FASHION_MNIST) -> dict[str, npt.NDArray[np.uint8]]:
    """Returns all of Fashion-MNIST as it was published: x_train, y_train, x_test, y_test, uint8.

    Raises:
        InputError: if a file is missing, or is not the published one.
    """
    arrays = {}
    for name, (file, md5) in _FASHION_FILES.items():
        path = folder / file
        if not path.exists():
            raise InputError(
                f"the full Fashion-MNIST was not found: {path} is missing. Install Debian's package (apt-get install "
                f"dataset-fashion-mnist), or use full=False for the embedded 5,000 + 1,000 images"
            )
        raw = gzip.decompress(path.read_bytes())
        if (found := hashlib.md5(raw, usedforsecurity=False).hexdigest()) != md5:
            raise InputError(f"{path} is not the published Fashion-MNIST file: expected MD5 {md5} after decompression, found {found}")
        arrays[name] = _parse_idx(raw)
    return arrays


def _parse_idx(raw: bytes) -> npt.NDArray[np.uint8]:
    """Reads the IDX format: two zero bytes, type, number of axes, the sizes (big-endian), the bytes."""
    axes = raw[3]
    shape = np.frombuffer(raw, ">u4", count=axes, offset=4).astype(int)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape)


def _embedded(file: str) -> dict[str, Array]:
    with resources.as_file(resources.files("evengrad.lab") / "_data" / file) as path, np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def _from_sklearn(name: str) -> tuple[Array, Array, tuple[str, ...]]:
    try:
        datasets = importlib.import_module("sklearn.datasets")
    except ImportError as error:
        raise InputError(f"the data set {name!r} comes with scikit-learn, which is not installed: pip install 'evengrad[lab]'") from error
    bunch = getattr(datasets, f"load_{name}")()
    return bunch.data, bunch.target, tuple(str(c) for c in bunch.target_names)


def _tabular(name: str, standardize: bool) -> Split:
    x, y, classes = _from_sklearn(name)
    return _shuffled(name, classes, x, y, standardize=standardize)


def _shuffled(name: str, classes: tuple[str, ...], x: Array, y: Array, *, standardize: bool = False) -> Split:
    """Takes every fifth sample of each class, in a fixed random order, as the test set; scales by the training set alone."""
    order = np.random.RandomState(0).permutation(len(y))
    held_out = np.zeros(len(y), bool)
    for label in np.unique(y):
        held_out[order[y[order] == label][::5]] = True
    train, test = order[~held_out[order]], order[held_out[order]]
    if standardize:
        x = (x - x[train].mean(axis=0)) / x[train].std(axis=0)
    return _split(name, classes, (x[train], y[train]), (x[test], y[test]))


def _split(name: str, classes: tuple[str, ...], train: tuple[Array, Array], test: tuple[Array, Array]) -> Split:
    (x_train, y_train), (x_test, y_test) = (_tensors(*part) for part in (train, test))
    return Split(name=name, classes=classes, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)


def _tensors(x: Array, y: Array) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(np.asarray(x, np.float32)), torch.from_numpy(np.asarray(y, np.int64))
