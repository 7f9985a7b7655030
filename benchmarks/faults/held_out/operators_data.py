"""What is learnt from: inputs and targets."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.faults.base import Operator, Program
from benchmarks.faults.edits import inputs, targets, training_inputs, training_targets
from evengrad.lab.data import Split

SCALE = (
    *("huge_initial_loss", "saturated_activation", "exploding_gradient", "loss_divergence", "nan_or_inf", "oscillating_loss"),
    *("dead_relu", "loss_stuck", "slow_convergence", "loss_spike", "plateau", "constant_output", "zero_gradient", "vanishing_gradient"),
)
LABELS = ("generalization_failure", "overfitting", "loss_stuck", "plateau", "constant_output", "train_eval_gap", "slow_convergence")
NAN = ("nan_or_inf", "loss_divergence")


def _one_column(x: Tensor) -> Tensor:
    x = x.clone()
    x[:, 0] = 4000 * x[:, 0] + 20_000  # a column in money beside standardized ones
    return x


def _sorted(y: Tensor, random: torch.Generator) -> Tensor:
    return y.sort(0).values


def _mostly_random(y: Tensor, random: torch.Generator) -> Tensor:
    wrong = torch.rand(len(y), generator=random) < 0.9
    return torch.where(wrong, torch.randint(int(y.max()) + 1, y.shape, generator=random), y)


def _inputs_alone_shuffled(split: Split, seed: int) -> Split:
    order = torch.randperm(len(split.x_train), generator=torch.Generator().manual_seed(seed + 1))
    return replace(split, x_train=split.x_train[order])


def _of_logarithm(x: Tensor, random: torch.Generator) -> Tensor:
    return (x + 1.5).log()  # of numbers that are not all positive


def _spoilt(x: Tensor, random: torch.Generator) -> Tensor:
    x[7] = math.nan
    return x


def _scaled_by_nothing(x: Tensor, random: torch.Generator) -> Tensor:
    column = torch.zeros_like(x[:, -1])  # a sensor that was off
    x[:, -1] = (column - column.mean(0)) / column.std(0)
    return x


def _unknown_target(y: Tensor, random: torch.Generator) -> Tensor:
    y[::300] = math.inf
    return y


def _numbers(program: Program) -> bool:
    return not program.data().classes


OPERATORS = (
    Operator(
        name="one-column-in-money", cause="input_not_normalized", half="held_out", symptoms=SCALE, places=("inputs",),
        on=("tumours", "flight", "wines"), mutate=lambda p: p.with_data(inputs(_one_column)),
    ),
    Operator(
        name="kelvin", cause="input_not_normalized", half="held_out", symptoms=SCALE, places=("inputs",),
        on=("own-gru", "deep-tanh11", "crescents"), mutate=lambda p: p.with_data(inputs(lambda x: x + 273)),
    ),
    Operator(
        name="sixteen-bits", cause="input_not_normalized", half="held_out", symptoms=SCALE, places=("inputs",),
        on=("conv-elu", "own-deep-conv"), mutate=lambda p: p.with_data(inputs(lambda x: 10_000 * (x + 1))),
    ),
    Operator(
        name="prices-of-houses", cause="target_not_scaled", half="held_out", symptoms=SCALE, places=("targets", "loss"),
        on=("own-flight", "own-chirp", "ripples"), mutate=lambda p: p.with_data(targets(lambda y: 60_000 * y + 250_000)), fits=_numbers,
    ),
    Operator(
        name="targets-of-1e-4", cause="target_not_scaled", half="held_out", symptoms=SCALE, places=("targets", "loss"),
        on=("flight", "own-gru"), mutate=lambda p: p.with_data(targets(lambda y: 1e-4 * y)), fits=_numbers,
    ),
    Operator(
        name="targets-sorted", cause="labels_corrupt", half="held_out", symptoms=LABELS, places=("targets", "validation"),
        on=("conv-elu", "own-flight", "own-packed"), mutate=lambda p: p.with_data(training_targets(_sorted)),
    ),
    Operator(
        name="inputs-alone-shuffled", cause="labels_corrupt", half="held_out", symptoms=LABELS, places=("targets", "validation", "inputs"),
        on=("own-tokens", "clouds", "own-gru"), mutate=lambda p: p.with_data(_inputs_alone_shuffled),
    ),
    Operator(
        name="nine-of-ten-labels-at-random", cause="labels_corrupt", half="held_out", symptoms=LABELS, places=("targets", "validation"),
        on=("digits-mish", "own-conv-digits"), mutate=lambda p: p.with_data(training_targets(_mostly_random)),
        fits=lambda p: not _numbers(p),
    ),
    Operator(
        name="logarithm-of-negatives", cause="data_nan", half="held_out", symptoms=NAN, places=("inputs",),
        on=("garments-adagrad", "flight"), mutate=lambda p: p.with_data(training_inputs(_of_logarithm)),
    ),
    Operator(
        name="one-spoilt-sample", cause="data_nan", half="held_out", symptoms=NAN, places=("inputs",),
        on=("own-conv-bn", "own-rnn-rows"), mutate=lambda p: p.with_data(training_inputs(_spoilt)),
    ),
    Operator(
        name="scaled-by-a-deviation-of-zero", cause="data_nan", half="held_out", symptoms=NAN, places=("inputs",),
        on=("wines", "own-blocks"), mutate=lambda p: p.with_data(training_inputs(_scaled_by_nothing)),
    ),
    Operator(
        name="targets-infinite-where-unknown", cause="data_nan", half="held_out", symptoms=NAN, places=("targets",),
        on=("own-chirp",), mutate=lambda p: p.with_data(training_targets(_unknown_target)), fits=_numbers,
    ),
)  # fmt: skip
