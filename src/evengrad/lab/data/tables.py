"""name -> a small table that comes with scikit-learn, split by class."""

from __future__ import annotations

import importlib

import numpy as np

from evengrad.errors import InputError
from evengrad.lab.data.scaling import scaled
from evengrad.lab.data.split import Array, Split, legacy_random, split


def digits(*, flat: bool = True, standardize: bool = False) -> Split:
    """Returns scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, scaled to [0, 1]: (N, 64), or (N, 1, 8, 8) if not `flat`.

    `standardize=True` gives each pixel (the whole image if not `flat`) mean 0 and variance 1 over the training set instead.

    Reference: Alpaydin & Kaynak 1998, https://archive.ics.uci.edu/dataset/80
    """
    x, y, classes = _from_sklearn("digits")
    x = (x / 16).reshape((-1, 64) if flat else (-1, 1, 8, 8))
    return _shuffled("digits", classes, x, y, standardize=standardize)


def wine(*, standardize: bool = True) -> Split:
    """Returns 178 wines with 13 features; `standardize=False` leaves scales that differ by a factor of thousands.

    Reference: Aeberhard & Forina 1992, https://archive.ics.uci.edu/dataset/109
    """
    return _tabular("wine", standardize)


def breast_cancer(*, standardize: bool = True) -> Split:
    """Returns 569 tumours with 30 features; `standardize=False` leaves scales that differ by a factor of hundreds of thousands.

    Reference: Street, Wolberg & Mangasarian 1993, https://archive.ics.uci.edu/dataset/17
    """
    return _tabular("breast_cancer", standardize)


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
    order = legacy_random(0).permutation(len(y))
    held_out = np.zeros(len(y), bool)
    for label in np.unique(y):
        held_out[order[y[order] == label][::5]] = True
    train, test = order[~held_out[order]], order[held_out[order]]
    inputs = scaled(x[train], x[test]) if standardize else (x[train], x[test])
    return split(name, classes, (inputs[0], y[train]), (inputs[1], y[test]))
