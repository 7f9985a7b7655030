"""What is learnt from: inputs and targets."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.faults.base import Operator, Program
from benchmarks.faults.edits import inputs, targets, training_inputs, training_targets

SCALE = (
    *("huge_initial_loss", "saturated_activation", "exploding_gradient", "loss_divergence", "nan_or_inf", "oscillating_loss"),
    *("dead_relu", "loss_stuck", "slow_convergence", "loss_spike", "plateau", "constant_output", "zero_gradient", "vanishing_gradient"),
)
LABELS = ("generalization_failure", "overfitting", "loss_stuck", "plateau", "constant_output", "train_eval_gap", "slow_convergence")


def _uneven(x: Tensor) -> Tensor:
    return x * torch.logspace(-2, 3, x.shape[-1])


def _shuffled(y: Tensor, random: torch.Generator) -> Tensor:
    return y[torch.randperm(len(y), generator=random)]


def _some(value: float, share: float) -> Callable[[Tensor, torch.Generator], Tensor]:
    def edit(x: Tensor, random: torch.Generator) -> Tensor:
        x[torch.rand(x.shape, generator=random) < share] = value
        return x

    return edit


def _is_regression(program: Program) -> bool:
    return program.kind == "regression" or not program.data().classes


OPERATORS = (
    Operator(
        name="raw-bytes", cause="input_not_normalized", half="tuning", symptoms=SCALE, places=("inputs",),
        on=("mlp-tanh", "deep-relu", "rnn-recall", "circles"), mutate=lambda p: p.with_data(inputs(lambda x: 64 * x + 127)),
    ),
    Operator(
        name="uneven-features", cause="input_not_normalized", half="reported", symptoms=SCALE, places=("inputs",),
        on=("energy", "blobs"), mutate=lambda p: p.with_data(inputs(_uneven)),
    ),
    Operator(
        name="targets-x1000", cause="target_not_scaled", half="tuning", symptoms=SCALE, places=("targets", "loss"),
        on=("friedman", "waves", "waves-deep"), mutate=lambda p: p.with_data(targets(lambda y: 1000 * y)), fits=_is_regression,
    ),
    Operator(
        name="targets-plus-300", cause="target_not_scaled", half="reported", symptoms=SCALE, places=("targets", "loss"),
        on=("energy", "gru-adding"), mutate=lambda p: p.with_data(targets(lambda y: y + 300)), fits=_is_regression,
    ),
    Operator(
        name="labels-shuffled", cause="labels_corrupt", half="tuning", symptoms=LABELS, places=("targets", "validation"),
        on=("mlp-relu", "conv", "circles"), mutate=lambda p: p.with_data(training_targets(_shuffled)),
    ),
    Operator(
        name="labels-of-the-next-sample", cause="labels_corrupt", half="reported", symptoms=LABELS, places=("targets", "validation"),
        on=("mlp-gelu", "energy"), mutate=lambda p: p.with_data(training_targets(lambda y, random: y.roll(1, 0))),
    ),
    Operator(
        name="labels-all-one-class", cause="labels_corrupt", half="reported", symptoms=(*LABELS, "zero_gradient"),
        places=("targets", "validation"),
        on=("blobs", "lstm-rows"), mutate=lambda p: p.with_data(training_targets(lambda y, random: torch.zeros_like(y))),
        fits=lambda p: not _is_regression(p),
    ),
    Operator(
        name="missing-values", cause="data_nan", half="tuning", symptoms=("nan_or_inf", "loss_divergence"), places=("inputs",),
        on=("mlp-relu", "friedman", "conv"), mutate=lambda p: p.with_data(training_inputs(_some(math.nan, 1e-4))),
    ),
    Operator(
        name="infinite-values", cause="data_nan", half="reported", symptoms=("nan_or_inf", "loss_divergence"), places=("inputs",),
        on=("cancer",), mutate=lambda p: p.with_data(training_inputs(_some(math.inf, 1e-4))),
    ),
    Operator(
        name="missing-targets", cause="data_nan", half="reported", symptoms=("nan_or_inf", "loss_divergence"), places=("targets",),
        on=("energy",), mutate=lambda p: p.with_data(training_targets(_some(math.nan, 0.002))), fits=_is_regression,
    ),
)  # fmt: skip
