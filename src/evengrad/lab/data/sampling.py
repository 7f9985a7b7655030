"""targets, seed -> which samples: few of them, folds, a part held out; and the weights of classes.

Samples are drawn class by class where targets are labels, one a sample; fractions and sequences of labels are drawn without regard to their
value. All indices are int64 and ascend.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from evengrad.errors import InputError
from evengrad.lab.data.split import Array, Split, legacy_random

Index = npt.NDArray[np.int64]


def few_index(y: Tensor | ArrayLike, n: int, seed: int) -> Index:
    """Draws `n` samples, from each class its share and at least one while `n` allows; those of a smaller `n` are among those of a larger.

    Args:
        y: Targets, (N, ...).
        n: How many, from 1 to N.
        seed: Seed of the draw, in [0, 2**32).

    Example:
        >>> few_index([0, 0, 0, 0, 1, 1], 3, seed=0).tolist()
        [1, 2, 5]
    """
    y = _targets(y)
    if not 1 <= n <= len(y):
        raise InputError(f"expected from 1 to {len(y)} samples, as many as there are; got n={n}")
    order = legacy_random(seed).permutation(len(y))
    labels = _labels(y)[order]
    rank = np.empty(len(y))
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        rank[of_class] = np.arange(len(of_class)) / len(of_class)  # 0 is the first of each class: Adams' apportionment
    return np.sort(order[np.argsort(rank, kind="stable")[:n]])


def hold_out_index(y: Tensor | ArrayLike, share: float, seed: int) -> tuple[Index, Index]:
    """Returns (train, held out): `round(share * N)` are held out, of each class its share; a class too small for both is trained on.

    Args:
        y: Targets, (N, ...).
        share: In (0, 1); both parts must get a sample.
        seed: Seed of the draw, in [0, 2**32).
    """
    y = _targets(y)
    held = round(share * len(y)) if 0 < share < 1 else 0
    if not 0 < held < len(y):
        raise InputError(f"expected a share between 0 and 1 that leaves samples on both sides; got {share} of {len(y)} samples")
    train = few_index(y, len(y) - held, seed)
    return train, np.setdiff1d(np.arange(len(y)), train)


def fold_index(y: Tensor | ArrayLike, k: int, i: int, seed: int) -> tuple[Index, Index]:
    """Returns (train, validation) of fold `i` of `k`; validation parts are disjoint, alike in classes and all of `N // k` samples.

    Equal sizes let folds train as one batch of networks. For that, N % k samples drawn at random are in no part of any fold.

    Args:
        y: Targets, (N, ...).
        k: Number of folds, from 2 to N.
        i: Which one, from 0 to k - 1.
        seed: Seed of the draw, in [0, 2**32); the same for all folds.
    """
    y = _targets(y)
    if not 2 <= k <= len(y):
        raise InputError(f"expected from 2 folds to as many as there are samples, {len(y)}; got k={k}")
    if not 0 <= i < k:
        raise InputError(f"fold i is one of 0 to {k - 1}; got i={i}")
    used = legacy_random(seed).permutation(len(y))[len(y) % k :]
    by_class = used[np.argsort(_labels(y)[used], kind="stable")]  # dealt out like cards, so every fold gets its share of each class
    validates = np.arange(len(used)) % k == i
    return np.sort(by_class[~validates]), np.sort(by_class[validates])


def few(split: Split, n: int, seed: int) -> Split:
    """Returns the split with `n` of its training samples, drawn as by `few_index`; the test set stays whole."""
    index = torch.from_numpy(few_index(split.y_train, n, seed))
    return replace(split, x_train=split.x_train[index], y_train=split.y_train[index])


def class_weights(y: Tensor | ArrayLike, classes: int | None = None) -> Tensor:
    """Returns N / (classes * count) for each class, float32 (classes,): with them in the loss, each class counts as much as any other.

    Args:
        y: Labels, (N,), integers from 0.
        classes: Number of classes; None for the largest label plus one.

    Raises:
        InputError: if a class has no sample, or targets are not labels.

    Reference: King & Zeng 2001, Logistic regression in rare events data, https://doi.org/10.1093/oxfordjournals.pan.a004868
    """
    y = _targets(y)
    if not _is_labels(y) or (y < 0).any():
        raise InputError(f"classes have weights, so expected one label from 0 a sample; got {y.dtype} of shape {y.shape}")
    count = np.bincount(y, minlength=classes or 0)
    if not count.all():
        raise InputError(f"class {int(np.flatnonzero(count == 0)[0])} has no sample to weigh; counts of the classes: {count.tolist()}")
    return torch.from_numpy((len(y) / (len(count) * count)).astype(np.float32))


def _targets(y: Tensor | ArrayLike) -> Array:
    return y.detach().cpu().numpy() if isinstance(y, Tensor) else np.asarray(y)


def _is_labels(y: Array) -> bool:
    return y.ndim == 1 and np.issubdtype(y.dtype, np.integer)


def _labels(y: Array) -> Array:
    return y if _is_labels(y) else np.zeros(len(y), np.int64)
