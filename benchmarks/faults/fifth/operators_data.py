"""What is learnt from: inputs and targets."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.faults.base import Program
from benchmarks.faults.edits import inputs, targets, training_inputs, training_targets
from benchmarks.faults.fifth.planting import is_classes, is_numbers, is_standard, planted, stepping
from benchmarks.faults.fourth.planting import LABELS, LARGE, NAN
from evengrad.lab.data import Split


def _of_another_set(x: Tensor) -> Tensor:
    return ((60 * x + 128) - 0.485) / 0.229  # constants for values in 0 ... 1, and bytes


def _on_a_map(x: Tensor) -> Tensor:
    return 200 * x + torch.tensor([500_000.0, 5_600_000.0])


def _glitch(split: Split, seed: int) -> Split:
    low, high = split.x_train.min(), 40_000.0  # one reading of a sensor
    x = [(part - low) / (high - low) for part in (split.x_train.clone(), split.x_test)]
    x[0][3] = 1.0
    return replace(split, x_train=x[0], x_test=x[1])


def _raw(x: Tensor, random: torch.Generator) -> Tensor:
    return 60 * x + 90


def _one_task_in_grams(split: Split, seed: int) -> Split:
    def change(y: Tensor) -> Tensor:
        return torch.stack([y[:, 0], 2000 * y[:, 1] + 5000], 1)

    return replace(split, y_train=change(split.y_train), y_test=change(split.y_test))


def _reshaped(y: Tensor, random: torch.Generator) -> Tensor:
    return y.T.reshape(y.shape)  # reshaped where it was to be transposed


def sorted_inputs(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    """Sorts the samples of a batch as for packing, and forgets their labels."""
    x, y = batch
    optimizer.zero_grad()
    loss: Tensor = loss_fn(model(x[x.flatten(1).abs().sum(1).argsort(descending=True)]), y)
    loss.backward()
    optimizer.step()
    return loss


def mixed_with_the_other(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    """Mixes pairs of samples, and keeps the label of the one that is the smaller part."""
    x, y = batch
    share, order = 0.8 + 0.2 * float(torch.rand(())), torch.randperm(len(x))
    optimizer.zero_grad()
    loss: Tensor = loss_fn(model(share * x + (1 - share) * x[order]), y[order])
    loss.backward()
    optimizer.step()
    return loss


def _rolling(x: Tensor, random: torch.Generator) -> Tensor:
    x[:20, 1] = math.nan  # a mean over the 20 before
    return x


def _over_their_length(x: Tensor, random: torch.Generator) -> Tensor:
    x[torch.randperm(len(x), generator=random)[:6]] = 0.0  # nothing was recorded
    length = x.flatten(1).norm(dim=1).reshape(-1, *[1] * (x.dim() - 1))
    return x / length * x[0].numel() ** 0.5  # type: ignore[no-any-return]


def _angle(y: Tensor, random: torch.Generator) -> Tensor:
    return (y / 2).acos() - math.pi / 2  # of what is above 1 now and then


def _data(*edits: Callable[[Split, int], Split]) -> Callable[[Program], Program]:
    return lambda program: program.with_data(*edits)


_LABELS = ("targets", "validation", "inputs", "loop")
_TARGETS = ("targets", "loss")
OPERATORS = (
    planted("constants-of-another-set", "input_not_normalized", _data(inputs(_of_another_set)),
            ("glyphs-conv-8",), LARGE, ("inputs",)),
    planted("metres-on-a-map", "input_not_normalized", _data(inputs(_on_a_map)), ("bands-dense",), LARGE, ("inputs",)),
    planted("a-glitch-in-min-and-max", "input_not_normalized", _data(_glitch), ("soil", "spring"), LARGE, ("inputs",)),
    planted("training-set-left-raw", "input_not_normalized", _data(training_inputs(_raw)), ("motions-leaky-15",),
            (*LARGE, "generalization_failure", "overfitting"), ("inputs", "validation")),
    planted("pascals", "target_not_scaled", _data(targets(lambda y: 101_325 + 8000 * y)), ("thermostat",), LARGE, _TARGETS,
            fits=is_numbers),
    planted("orders-of-magnitude", "target_not_scaled", _data(targets(lambda y: 10 ** (1.5 * y + 4))), ("scurve", "spring"),
            LARGE, _TARGETS, fits=is_numbers),
    planted("one-task-in-grams", "target_not_scaled", _data(_one_task_in_grams), ("letter-and-place",), LARGE, _TARGETS),
    planted("through-a-truth-value", "labels_corrupt", _data(training_targets(lambda y, random: y.bool().long())),
            ("glyphs-mlp",), LABELS, _LABELS, fits=is_classes),
    planted("reshaped-for-transposed", "labels_corrupt", _data(training_targets(_reshaped)), ("letters-code-sgd", "spring"), LABELS,
            _LABELS, fits=is_numbers),
    planted("sorted-without-labels", "labels_corrupt", stepping(sorted_inputs), ("motions-heads",), LABELS, _LABELS,
            fits=is_standard),
    planted("mixed-with-the-other-s-labels", "labels_corrupt", stepping(mixed_with_the_other), ("glyphs-bn",), LABELS, _LABELS,
            fits=is_standard),
    planted("first-rows-of-a-rolling-mean", "data_nan", _data(training_inputs(_rolling)), ("soil",), NAN, ("inputs",)),
    planted("blank-rows-over-their-length", "data_nan", _data(training_inputs(_over_their_length)), ("glyphs-mlp", "motions-bn"), NAN,
            ("inputs",)),
    planted("angle-of-more-than-one", "data_nan", _data(training_targets(_angle)), ("thermostat",), NAN, ("targets",),
            fits=is_numbers),
)  # fmt: skip
