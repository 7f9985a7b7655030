"""What is minimised."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.faults.base import Loss, Operator, Program
from benchmarks.faults.programs import bce_with_logits

RUNAWAY = (
    *("loss_divergence", "nan_or_inf", "exploding_gradient", "huge_initial_loss", "dead_relu", "saturated_activation"),
    *("constant_output", "loss_spike", "oscillating_loss", "loss_stuck", "generalization_failure"),
)
FLAT = ("constant_output", "loss_stuck", "plateau", "slow_convergence", "zero_gradient", "generalization_failure")
SMALL = ("slow_convergence", "loss_stuck", "plateau", "no_parameter_update", "vanishing_gradient")
NAN = ("nan_or_inf", "loss_divergence")


def nll_of_logits(output: Tensor, targets: Tensor) -> Tensor:
    return F.nll_loss(output, targets)


def broadcast_mse(output: Tensor, targets: Tensor) -> Tensor:
    return (output - targets.reshape(-1)).square().mean()  # (samples, 1) - (samples,)


def l1_of_one_hot(output: Tensor, targets: Tensor) -> Tensor:
    return F.l1_loss(output.softmax(-1), F.one_hot(targets, output.shape[1]).float())


def softmax_over_samples(output: Tensor, targets: Tensor) -> Tensor:
    return F.nll_loss(output.log_softmax(0), targets)


def hinge_of_zero_and_one(output: Tensor, targets: Tensor) -> Tensor:
    return F.relu(1 - targets.float() * output.squeeze(1)).mean()


def bce_by_hand(output: Tensor, targets: Tensor) -> Tensor:
    p, y = output.squeeze(1).sigmoid(), targets.float()
    return -(y * p.log() + (1 - y) * (1 - p).log()).mean()


def squared_log_error(output: Tensor, targets: Tensor) -> Tensor:
    return ((1 + output).log() - (4 + targets).log()).square().mean()


def kl_by_hand(output: Tensor, targets: Tensor) -> Tensor:
    wanted = F.one_hot(targets, output.shape[1]).float()
    return (wanted * (wanted / output.softmax(-1)).log()).sum(-1).mean()


def softmax_by_hand(output: Tensor, targets: Tensor) -> Tensor:
    p = (50 * output).exp() / (50 * output).exp().sum(-1, keepdim=True)  # a low temperature
    return -p[torch.arange(len(p)), targets].log().mean()


def _summed(program: Program) -> Program:
    loss = program.loss
    if isinstance(loss, (nn.CrossEntropyLoss, nn.MSELoss, nn.SmoothL1Loss)):
        return program.having(loss=type(loss)(reduction="sum"))
    return program.having(loss=lambda output, targets: loss(output, targets) * len(targets))


def _divided_again(program: Program) -> Program:
    loss = program.loss

    def mean_of_mean(output: Tensor, targets: Tensor) -> Tensor:
        return loss(output, targets) / len(targets)

    return program.having(loss=mean_of_mean)


def _negated(program: Program) -> Program:
    loss = program.loss

    def negated(output: Tensor, targets: Tensor) -> Tensor:
        return -loss(output, targets)

    return program.having(loss=negated)


def _losing(loss: Loss) -> Callable[[Program], Program]:
    return lambda program: program.having(loss=loss)


def _classes(program: Program) -> bool:
    return isinstance(program.loss, nn.CrossEntropyLoss)


def _numbers(program: Program) -> bool:
    return not program.data().classes


def _logit(program: Program) -> bool:
    return program.loss is bce_with_logits


OPERATORS = (
    Operator(
        name="nll-of-logits", cause="wrong_loss", half="tuning", symptoms=RUNAWAY, places=("loss", "head"),
        on=("mlp-relu", "deep-tanh"), mutate=_losing(nll_of_logits), fits=_classes,
    ),
    Operator(
        name="broadcast-error", cause="wrong_loss", half="tuning", symptoms=FLAT, places=("loss", "targets", "head"),
        on=("friedman", "waves"), mutate=_losing(broadcast_mse), fits=_numbers,
    ),
    Operator(
        name="l1-of-one-hot", cause="wrong_loss", half="reported", symptoms=FLAT, places=("loss", "head"),
        on=("deep-tanh20",), mutate=_losing(l1_of_one_hot), fits=_classes,
    ),
    Operator(
        name="softmax-over-samples", cause="wrong_loss", half="reported", symptoms=(*FLAT, *RUNAWAY), places=("loss", "head"),
        on=("conv-mean",), mutate=_losing(softmax_over_samples), fits=_classes,
    ),
    Operator(
        name="hinge-of-zero-and-one", cause="wrong_loss", half="reported", symptoms=FLAT, places=("loss", "targets", "head"),
        on=("moons",), mutate=_losing(hinge_of_zero_and_one), fits=_logit,
    ),
    Operator(
        name="sum-in-place-of-mean", cause="loss_reduction", half="tuning", symptoms=RUNAWAY, places=("loss", "optimizer"),
        on=("mlp-tanh", "deep-relu", "waves"), mutate=_summed, also=("lr_too_high",),
    ),
    Operator(
        name="mean-divided-again", cause="loss_reduction", half="reported", symptoms=SMALL, places=("loss", "optimizer"),
        on=("deep-elu", "conv-mean"), mutate=_divided_again, also=("lr_too_low",),
    ),
    Operator(
        name="bce-by-hand", cause="unstable_loss", half="tuning", symptoms=NAN, places=("loss",),
        on=("cancer-logit", "moons-sigmoid"), mutate=_losing(bce_by_hand), fits=_logit,
    ),
    Operator(
        name="log-of-negative", cause="unstable_loss", half="tuning", symptoms=NAN, places=("loss",),
        on=("friedman", "waves"), mutate=_losing(squared_log_error), fits=_numbers, also=("wrong_loss",),
    ),
    Operator(
        name="kl-by-hand", cause="unstable_loss", half="reported", symptoms=NAN, places=("loss",),
        on=("mlp-gelu",), mutate=_losing(kl_by_hand), fits=_classes,
    ),
    Operator(
        name="softmax-by-hand", cause="unstable_loss", half="reported", symptoms=NAN, places=("loss",),
        on=("mlp-dropout",), mutate=_losing(softmax_by_hand), fits=_classes,
    ),
    Operator(
        name="loss-negated", cause="sign_error", half="tuning", symptoms=RUNAWAY, places=("loss", "loop", "optimizer"),
        on=("mlp-relu", "friedman", "conv"), mutate=_negated,
    ),
    Operator(
        name="optimizer-maximizes", cause="sign_error", half="reported", symptoms=RUNAWAY, places=("loss", "loop", "optimizer"),
        on=("mlp-dropout", "energy"), mutate=lambda p: p.with_options(maximize=True),
    ),
)  # fmt: skip
