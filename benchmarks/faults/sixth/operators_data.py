"""What is learnt from: inputs as they were read, targets in their own unit, labels that are not theirs, missing values."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from benchmarks.faults.base import Program
from benchmarks.faults.edits import inputs, targets, training_inputs, training_targets
from benchmarks.faults.fourth.planting import LABELS, LARGE, NAN
from benchmarks.faults.sixth.data import as_bytes, diabetes
from benchmarks.faults.sixth.planting import is_classes, is_numbers, planted, with_data
from evengrad.lab import data


def _raw(program: Program) -> Program:
    """Leaves out the scaler: proline and the area of a cell are in the thousands."""
    found = data.wine if program.name.startswith("wine") else data.breast_cancer
    return program.having(data=partial(found, standardize=False))


def _shuffled(y: Tensor, random: torch.Generator) -> Tensor:
    return y[torch.randperm(len(y), generator=random)]


def _next_row_s(y: Tensor, random: torch.Generator) -> Tensor:
    return y.roll(1, 0)  # a header was counted as a row


def _half_wrong(y: Tensor, random: torch.Generator) -> Tensor:
    """DeepCrime's TCL: labels of a part of the training data are changed."""
    wrong = torch.rand(len(y), generator=random) < 0.7
    return torch.where(wrong, (y + 1) % (int(y.max()) + 1), y)


def _missing(x: Tensor, random: torch.Generator) -> Tensor:
    x[torch.rand(x.shape, generator=random) < 0.001] = math.nan  # what `read_csv` makes of an empty cell
    return x


def _over_the_deviation(x: Tensor) -> Tensor:
    return (x - x.mean(0)) / x.std(0)  # a pixel at the border is 0 in each image


_INPUTS = ("inputs",)
_LABELS = ("targets", "validation", "inputs", "loop")
_TARGETS = ("targets", "loss")
OPERATORS = (
    planted("pixels-in-bytes", "input_not_normalized", with_data(inputs(as_bytes)),
            ("lenet-sgd", "digits-sgd"), LARGE, _INPUTS),
    planted("scaler-left-out", "input_not_normalized", _raw, ("wine-sgd",), LARGE, _INPUTS),
    planted("targets-in-their-unit", "target_not_scaled", lambda p: p.having(data=partial(diabetes, raw=True)), ("diabetes",), LARGE,
            _TARGETS, fits=is_numbers),
    planted("prices-in-dollars", "target_not_scaled", with_data(targets(lambda y: 250_000 + 80_000 * y)), ("houses",), LARGE,
            _TARGETS, fits=is_numbers),
    planted("labels-shuffled-alone", "labels_corrupt", with_data(training_targets(_shuffled)),
            ("pixels-adam",), LABELS, _LABELS),
    planted("labels-of-the-row-before", "labels_corrupt", with_data(training_targets(_next_row_s)), ("demand",),
            LABELS, _LABELS),
    planted("labels-off-by-one-in-part", "labels_corrupt", with_data(training_targets(_half_wrong)), ("vgg",), LABELS,
            _LABELS, fits=is_classes),
    planted("empty-cells", "data_nan", with_data(training_inputs(_missing)), ("cancer-bce",), NAN, _INPUTS),
    planted("divided-by-a-deviation-of-zero", "data_nan", with_data(inputs(_over_the_deviation)), ("pixels-tanh",), NAN,
            _INPUTS),
)  # fmt: skip
