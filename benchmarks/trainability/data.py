"""name -> (inputs, targets) of a data set on which trainability is measured."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn import datasets
from torch import Tensor

from evengrad.errors import unknown

_Array = NDArray[Any]
_Floats = NDArray[np.float64]

FASHION = Path("/usr/share/datasets/fashion-mnist")


def load(name: str) -> tuple[Tensor, Tensor]:
    """Returns inputs float32 (samples, features), scaled as is the custom for this data, and targets int64 (samples,).

    Images (digits, fashion) are standardised with one mean and one deviation over all pixels, tables
    (wine, breast_cancer) column by column, points (circles, moons) scaled to [-1, 1] on each axis.
    """
    if name not in _RAW:
        raise unknown("data set", name, _RAW)
    read, scale = _RAW[name]
    x, y = read()
    x = scale(np.asarray(x, dtype=np.float64))
    return torch.from_numpy(x.astype(np.float32)), torch.from_numpy(np.asarray(y, dtype=np.int64))


def _pixels(x: _Floats) -> _Floats:
    return (x - x.mean()) / x.std()


def _columns(x: _Floats) -> _Floats:
    return (x - x.mean(0)) / x.std(0)


def _axes(x: _Floats) -> _Floats:
    low, high = x.min(0), x.max(0)
    return 2 * (x - low) / (high - low) - 1


def _fashion(samples: int = 2000) -> tuple[_Array, _Array]:
    """The first images of Fashion-MNIST (Xiao et al. 2017); the file is in random order."""
    with gzip.open(FASHION / "train-images-idx3-ubyte.gz") as file:
        file.seek(16)  # magic number, count, height, width
        x = np.frombuffer(file.read(samples * 784), np.uint8).reshape(samples, 784)
    with gzip.open(FASHION / "train-labels-idx1-ubyte.gz") as file:
        file.seek(8)  # magic number, count
        y = np.frombuffer(file.read(samples), np.uint8)
    return x, y


_RAW: dict[str, tuple[Callable[[], tuple[_Array, _Array]], Callable[[_Floats], _Floats]]] = {
    "digits": (partial(datasets.load_digits, return_X_y=True), _pixels),
    "circles": (partial(datasets.make_circles, 1000, noise=0.1, random_state=1), _axes),
    "wine": (partial(datasets.load_wine, return_X_y=True), _columns),
    "breast_cancer": (partial(datasets.load_breast_cancer, return_X_y=True), _columns),
    "moons": (partial(datasets.make_moons, 1000, noise=0.2, random_state=1), _axes),
    "fashion": (_fashion, _pixels),
}
