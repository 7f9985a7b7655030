"""(inputs, targets) for training and test -> Split: what every data set of the lab is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from evengrad.errors import InputError

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """A data set, split.

    Attributes:
        name: The name that `load` knows it by.
        classes: Name of each class, label i is `classes[i]`; () where the targets are numbers to come near to.
        x_train: float32 (N, ...).
        y_train: int64 in [0, len(classes)), (N,) or, with a label for each step of a sequence, (N, steps); float32 if `classes` is ().
        x_test: float32 (M, ...).
        y_test: As `y_train`, (M, ...).
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


def legacy_random(seed: int) -> np.random.RandomState:
    """Returns numpy's legacy generator: its stream is frozen, so that a seed draws the same numbers with every version."""
    if not 0 <= seed < 2**32:
        raise InputError(f"expected a seed from 0 to 2**32 - 1; got {seed}")
    return np.random.RandomState(seed)


def split(name: str, classes: tuple[str, ...], train: tuple[Array, Array], test: tuple[Array, Array]) -> Split:
    """Makes tensors of (inputs, targets) for training and test: float32, and int64 for targets that are not fractions."""
    (x_train, y_train), (x_test, y_test) = (_tensors(*part) for part in (train, test))
    return Split(name=name, classes=classes, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)


def _tensors(x: Array, y: Array) -> tuple[Tensor, Tensor]:
    kind = np.float32 if np.issubdtype(y.dtype, np.floating) else np.int64
    return torch.from_numpy(np.ascontiguousarray(x, np.float32)), torch.from_numpy(np.ascontiguousarray(y, kind))
