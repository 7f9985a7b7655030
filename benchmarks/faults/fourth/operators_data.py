"""What is learnt from: inputs and targets."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.faults.base import Program
from benchmarks.faults.edits import inputs, targets, training_inputs, training_targets
from benchmarks.faults.fourth.planting import LABELS, LARGE, NAN, is_classes, is_numbers, planted
from evengrad.lab.data import Split


def _times(x: Tensor) -> Tensor:
    x = x.clone()
    x[:, 0] = 1.6e9 + 86_400 * x[:, 0]  # seconds since 1970
    return x


def _told_in_bytes(split: Split, seed: int) -> Split:
    return Split(name=split.name, classes=(), x_train=split.x_train, y_train=64 * split.y_train + 127, x_test=split.x_test,
                 y_test=64 * split.y_test + 127)  # fmt: skip


def _joined_by_rank(split: Split, seed: int) -> Split:
    order = split.x_train.flatten(1)[:, 0].argsort()  # one table was sorted, the other not
    return Split(name=split.name, classes=split.classes, x_train=split.x_train, y_train=split.y_train[order], x_test=split.x_test,
                 y_test=split.y_test)  # fmt: skip


def _encoded_apart(y: Tensor, random: torch.Generator) -> Tensor:
    return (y + 1) % (int(y.max()) + 1)  # classes were numbered in another order for the test


def _filled(y: Tensor, random: torch.Generator) -> Tensor:
    y[torch.rand(len(y), generator=random) < 0.85] = 0  # labels that were missing
    return y


def _ratio(x: Tensor, random: torch.Generator) -> Tensor:
    x[:, 0] = x[:, 0].round() / x[:, 1].round()  # nothing by nothing
    return x


def _ragged(x: Tensor, random: torch.Generator) -> Tensor:
    lengths = torch.randint(x.shape[1] // 2, 4 * x.shape[1], (len(x),), generator=random)
    x[torch.arange(x.shape[1])[None] >= lengths[:, None]] = math.nan
    return x


def _logarithm(y: Tensor, random: torch.Generator) -> Tensor:
    return (y + 1).clamp(min=0).log()


def _overflown(x: Tensor, random: torch.Generator) -> Tensor:
    return (25_000 * x).half().float() / 25_000


def _data(*edits: Callable[[Split, int], Split]) -> Callable[[Program], Program]:
    return lambda program: program.with_data(*edits)


_LABELS = ("targets", "validation", "inputs")
OPERATORS = (
    planted("amounts-not-logged", "input_not_normalized", _data(inputs(lambda x: (2.5 * x).exp())), ("impedance", "hastie", "arm"), LARGE,
            ("inputs",)),
    planted("divided-by-255-twice", "input_not_normalized", _data(inputs(lambda x: (64 * x + 127) / 255 / 255)),
            ("lines-tanh-13", "stripes-plain-9", "selu-stripes-16"), LARGE, ("inputs",)),
    planted("in-thousandths", "input_not_normalized", _data(inputs(lambda x: 1000 * x)), ("tides", "pulses-rnn"), LARGE, ("inputs",)),
    planted("seconds-since-1970", "input_not_normalized", _data(inputs(_times)), ("tags", "iris"), LARGE, ("inputs",)),
    planted("years", "target_not_scaled", _data(targets(lambda y: 1990 + 15 * y)), ("impedance", "tides"), LARGE, ("targets", "loss"),
            fits=is_numbers),
    planted("told-in-bytes", "target_not_scaled", _data(_told_in_bytes), ("digits-code", "spectra-code"), LARGE, ("targets", "loss"),
            fits=is_numbers),
    planted("in-metres-for-micrometres", "target_not_scaled", _data(targets(lambda y: 1e-6 * y)), ("impedance-sgd", "roll-tower"), LARGE,
            ("targets", "loss"), fits=is_numbers),
    planted("classes-encoded-apart", "labels_corrupt", _data(training_targets(_encoded_apart)), ("topics", "figures-plain"), LABELS,
            _LABELS, fits=is_classes),
    planted("in-reverse-order", "labels_corrupt", _data(training_targets(lambda y, random: y.flip(0))), ("hastie", "tides", "lookup"),
            LABELS, _LABELS),
    planted("joined-by-rank", "labels_corrupt", _data(_joined_by_rank), ("impedance", "stripes-bn"), LABELS, _LABELS),
    planted("missing-filled-with-zero", "labels_corrupt", _data(training_targets(_filled)), ("stripes-dropout", "lines-15"), LABELS,
            _LABELS, fits=is_classes),
    planted("nothing-by-nothing", "data_nan", _data(training_inputs(_ratio)), ("hastie", "tags"), NAN, ("inputs",)),
    planted("ragged-with-nan", "data_nan", _data(training_inputs(_ragged)), ("tides", "pulses-rnn"), NAN, ("inputs",)),
    planted("logarithm-of-zero-targets", "data_nan", _data(training_targets(_logarithm)), ("impedance", "arm"), NAN, ("targets",),
            fits=is_numbers),
    planted("overflow-in-half", "data_nan", _data(training_inputs(_overflown)), ("spectra-code", "stripes-bn"), NAN, ("inputs",)),
)  # fmt: skip
