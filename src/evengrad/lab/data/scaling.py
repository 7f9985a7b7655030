"""inputs -> inputs of mean 0 and variance 1 over the training set."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from evengrad.errors import InputError
from evengrad.lab.data.split import Array, Split


def standardized(split: Split) -> Split:
    """Returns the split with inputs of mean 0 and variance 1 over the training set; the test set is scaled by the same numbers.

    Numbers are taken for each feature, that is each channel of an image (axis 1 of four), else each place on the last axis; one that is the
    same in all training samples becomes 0 in them.

    Raises:
        InputError: if an input to train on is not finite.
    """
    x_train, x_test = scaled(split.x_train.numpy(), split.x_test.numpy())
    return replace(split, x_train=torch.from_numpy(x_train).float(), x_test=torch.from_numpy(x_test).float())


def scaled(x_train: Array, x_test: Array) -> tuple[Array, Array]:
    """Returns both in float64, standardized as by `standardized`."""
    x_train = x_train.astype(np.float64)
    if bad := int((~np.isfinite(x_train)).sum()):
        raise InputError(
            f"{bad} of {x_train.size} inputs to train on are missing or infinite, so they have no mean. Fill or remove them first"
        )
    feature = 1 if x_train.ndim == 4 else x_train.ndim - 1
    axes = tuple(axis for axis in range(x_train.ndim) if axis != feature)
    mean, std = x_train.mean(axes, keepdims=True), x_train.std(axes, keepdims=True)
    constant = x_train.max(axes, keepdims=True) == x_train.min(axes, keepdims=True)  # its std may be rounding noise
    std, mean = np.where(constant, 1, std), np.where(constant, x_train[:1], mean)
    return (x_train - mean) / std, (x_test - mean) / std
