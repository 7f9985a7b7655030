"""What is minimised."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.faults import steps
from benchmarks.faults.base import Operator, Program
from benchmarks.faults.held_out.programs import bce, losing

RUNAWAY = (
    *("loss_divergence", "nan_or_inf", "exploding_gradient", "huge_initial_loss", "dead_relu", "saturated_activation"),
    *("constant_output", "loss_spike", "oscillating_loss", "loss_stuck", "plateau", "generalization_failure", "zero_gradient"),
)
FLAT = ("constant_output", "loss_stuck", "plateau", "slow_convergence", "zero_gradient", "generalization_failure")
SMALL = ("slow_convergence", "loss_stuck", "plateau", "no_parameter_update", "vanishing_gradient")
NAN = ("nan_or_inf", "loss_divergence")


def error_of_the_index(output: Tensor, targets: Tensor) -> Tensor:
    """The labels are numbers to come near to."""
    return (output.mean(1) - targets.float()).square().mean()


def bce_of_the_index(output: Tensor, targets: Tensor) -> Tensor:
    """Labels of many classes where 0 and 1 are meant."""
    return F.binary_cross_entropy_with_logits(output, targets.float()[:, None].expand_as(output))


def cosine_distance(output: Tensor, targets: Tensor) -> Tensor:
    """Does not see how large the answers are."""
    return 1 - F.cosine_similarity(output.flatten(), targets.flatten(), dim=0)


def error_of_the_mean(output: Tensor, targets: Tensor) -> Tensor:
    """Means are taken before the difference."""
    return (output.mean() - targets.mean()).square()


def part_of_dataset(program: Program) -> Program:
    """The batch's sum is divided by the samples of the whole data set."""
    loss, samples = program.loss, len(program.data().x_train)
    return losing(program, lambda output, targets: loss(output, targets) * (len(targets) / samples))


def added_parts(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    """Gathers gradients of parts of a batch and forgets to divide."""
    optimizer.zero_grad()
    total = torch.zeros(())
    for x, y in zip(batch[0].split(2), batch[1].split(2), strict=True):
        loss = loss_fn(model(x), y)
        loss.backward()
        total = total + loss.detach()
    optimizer.step()
    return total


def _sum_over_outputs(program: Program) -> Program:
    def summed(output: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(output, targets, reduction="none").sum()

    return losing(program, summed)


def power_of_difference(output: Tensor, targets: Tensor) -> Tensor:
    """A power of negative numbers."""
    return ((output - targets) ** 1.5).mean()


def relative_error(output: Tensor, targets: Tensor) -> Tensor:
    """Targets near zero are divided by, rounded to one decimal as they are shown."""
    return ((output - targets) / (targets * 10).round()).square().mean()


def odds_by_hand(output: Tensor, targets: Tensor) -> Tensor:
    """The logit of a probability, taken back again."""
    p = torch.sigmoid(4 * output[:, 0])
    return F.softplus(-(2 * targets.float() - 1) * (p / (1 - p)).log()).mean()


def root_of_penalty(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    """Norms of parameters by hand: the slope of a root at a bias of zero."""
    x, y = batch
    optimizer.zero_grad()
    loss: Tensor = loss_fn(model(x), y) + 1e-4 * torch.stack([p.square().sum().sqrt() for p in model.parameters()]).sum()
    loss.backward()
    optimizer.step()
    return loss


def probability_of_the_right(output: Tensor, targets: Tensor) -> Tensor:
    """Something to make large."""
    return output.softmax(1).gather(1, targets[:, None]).mean()


def explained(output: Tensor, targets: Tensor) -> Tensor:
    """The share of variance explained, to make large."""
    return 1 - (output - targets).square().mean() / targets.var().clamp(min=1e-6)


class Reverse(torch.autograd.Function):
    """Turns the gradient around, as domain adaptation does."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return -grads[0]


class Reversal(nn.Module):
    """A layer of it."""

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = Reverse.apply(x)  # type: ignore[no-untyped-call]
        return found


def _reversal_before_the_head(model: nn.Module) -> nn.Module:
    assert isinstance(model, nn.Sequential)
    modules = list(model)
    return nn.Sequential(*modules[:-1], Reversal(), modules[-1])


def negated_by_hand(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    """Turns gradients around before the step, for an optimizer that would add them."""
    loss = steps.backward(model, batch, loss_fn, optimizer)
    for p in model.parameters():
        if p.grad is not None:
            p.grad.neg_()
    optimizer.step()
    return loss


def _classes(program: Program) -> bool:
    return isinstance(program.loss, nn.CrossEntropyLoss)


def _numbers(program: Program) -> bool:
    return not program.data().classes


def _plain_sgd(program: Program) -> bool:
    return program.optimizer == "sgd" and program.train_step is None


OPERATORS = (
    Operator(
        name="squared-error-of-the-label", cause="wrong_loss", half="held_out", symptoms=(*FLAT, *RUNAWAY),
        places=("loss", "head", "targets"),
        on=("own-tokens", "own-deep-conv"), mutate=lambda p: losing(p, error_of_the_index), fits=_classes,
    ),
    Operator(
        name="binary-loss-of-the-label", cause="wrong_loss", half="held_out", symptoms=(*FLAT, *RUNAWAY),
        places=("loss", "head", "targets"),
        on=("digits-mish", "own-encoder"), mutate=lambda p: losing(p, bce_of_the_index), fits=_classes,
    ),
    Operator(
        name="error-of-the-mean", cause="wrong_loss", half="held_out", symptoms=FLAT, places=("loss", "head", "targets"),
        on=("own-chirp", "flight"), mutate=lambda p: losing(p, error_of_the_mean), fits=_numbers, also=("loss_reduction",),
    ),
    Operator(
        name="cosine-distance", cause="wrong_loss", half="held_out", symptoms=(*FLAT, *RUNAWAY), places=("loss", "head", "targets"),
        on=("own-flight", "own-gru"), mutate=lambda p: losing(p, cosine_distance), fits=_numbers,
    ),
    Operator(
        name="divided-by-the-data-set", cause="loss_reduction", half="held_out", symptoms=SMALL, places=("loss", "optimizer"),
        on=("conv-elu", "flight", "deep-silu9"), mutate=part_of_dataset, fits=_plain_sgd, also=("lr_too_low",),
    ),
    Operator(
        name="parts-added-not-averaged", cause="loss_reduction", half="held_out", symptoms=RUNAWAY, places=("loss", "optimizer", "loop"),
        on=("deep-tanh11", "conv-elu", "own-deep-conv"), mutate=lambda p: p.having(train_step=added_parts), fits=_plain_sgd,
        also=("lr_too_high",),
    ),
    Operator(
        name="sum-of-unreduced", cause="loss_reduction", half="held_out", symptoms=RUNAWAY, places=("loss", "optimizer"),
        on=("digits-mish", "own-normed", "selu14"), mutate=_sum_over_outputs, fits=_classes, also=("lr_too_high",),
    ),
    Operator(
        name="power-of-negatives", cause="unstable_loss", half="held_out", symptoms=NAN, places=("loss",),
        on=("flight", "own-chirp"), mutate=lambda p: losing(p, power_of_difference), fits=_numbers, also=("wrong_loss",),
    ),
    Operator(
        name="relative-to-targets-of-zero", cause="unstable_loss", half="held_out", symptoms=NAN, places=("loss", "targets"),
        on=("ripples", "own-gru"), mutate=lambda p: losing(p, relative_error), fits=_numbers,
    ),
    Operator(
        name="odds-by-hand", cause="unstable_loss", half="held_out", symptoms=NAN, places=("loss",),
        on=("crescents", "tumours"), mutate=lambda p: losing(p, odds_by_hand), fits=lambda p: p.loss is bce,
    ),
    Operator(
        name="root-of-a-penalty", cause="unstable_loss", half="held_out", symptoms=NAN, places=("loss", "loop"),
        on=("own-conv-digits", "deep-relu18"), mutate=lambda p: p.having(train_step=root_of_penalty),
        fits=lambda p: p.train_step is None,
    ),
    Operator(
        name="score-for-a-loss", cause="sign_error", half="held_out", symptoms=(*RUNAWAY, *FLAT), places=("loss", "loop", "optimizer"),
        on=("own-tokens", "digits-mish"), mutate=lambda p: losing(p, probability_of_the_right), fits=_classes, also=("wrong_loss",),
    ),
    Operator(
        name="explained-variance-for-a-loss", cause="sign_error", half="held_out", symptoms=(*RUNAWAY, *FLAT),
        places=("loss", "loop", "optimizer"),
        on=("own-flight", "ripples"), mutate=lambda p: losing(p, explained), fits=_numbers, also=("wrong_loss",),
    ),
    Operator(
        name="reversal-left-in", cause="sign_error", half="held_out", symptoms=(*RUNAWAY, *FLAT),
        places=("loss", "loop", "optimizer", "layers", "head"),
        on=("deep-tanh11", "garments-adagrad"), mutate=lambda p: p.edited(_reversal_before_the_head),
    ),
    Operator(
        name="gradients-turned-around", cause="sign_error", half="held_out", symptoms=(*RUNAWAY, *FLAT),
        places=("loss", "loop", "optimizer"),
        on=("own-conv-bn", "own-rnn-signal"), mutate=lambda p: p.having(train_step=negated_by_hand),
        fits=lambda p: p.train_step is None,
    ),
)  # fmt: skip
