"""What is minimised, and what comes out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.faults.base import Loss, Program
from benchmarks.faults.edits import ending
from benchmarks.faults.fourth.planting import FLAT, LARGE, NAN, RUNAWAY, SLOW, STILL, is_classes, is_numbers, is_sgd, is_standard, planted

HEAD = (*STILL, "dead_relu", "saturated_activation", "generalization_failure")


def poisson(output: Tensor, targets: Tensor) -> Tensor:
    """For counts; these targets are standardized."""
    return F.poisson_nll_loss(output, targets)


def divergence_of_logits(output: Tensor, targets: Tensor) -> Tensor:
    """Takes logits for logarithms of probabilities."""
    return F.kl_div(output, F.one_hot(targets, output.shape[1]).to(output.dtype), reduction="batchmean")


def likelihood_multiplied(output: Tensor, targets: Tensor) -> Tensor:
    """The logarithm of a product of probabilities."""
    return -output.softmax(1).gather(1, targets[:, None]).prod().log() / len(targets)


def logarithm_of_the_positive(output: Tensor, targets: Tensor) -> Tensor:
    """The error of logarithms, of answers cut at zero."""
    return (output.clamp(min=0).log() - (targets + 4).clamp(min=1).log()).square().mean()


def _kept_apart(program: Program) -> Program:
    loss = program.loss

    def apart(output: Tensor, targets: Tensor) -> Tensor:
        differences = output[:, None] - output[None]
        return loss(output, targets) - 1e-4 * differences.square().sum(-1).sqrt().mean()  # the root of a zero for a sample and itself

    return program.having(loss=apart)


def _of_feature_sum(program: Program) -> Program:
    return program.having(loss=lambda output, targets: (output - targets).square().flatten(1).sum(1).mean())


def _of_many_parts(program: Program) -> Program:
    loss = program.loss
    return program.having(loss=lambda output, targets: loss(output, targets) / 64)  # parts that are not gathered


def _times_the_loader(program: Program) -> Program:
    loss, batches = program.loss, math.ceil(len(program.data().x_train) / program.batch_size)
    return program.having(loss=lambda output, targets: loss(output, targets) * batches)


def log_likelihood(output: Tensor, targets: Tensor) -> Tensor:
    """Something to make large."""
    return output.log_softmax(1).gather(1, targets[:, None]).mean()


def similarity(output: Tensor, targets: Tensor) -> Tensor:
    """Something to make large: one minus it was meant."""
    return F.cosine_similarity(output, targets, dim=1).mean()


def penalty_subtracted(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    """Rewards large weights."""
    x, y = batch
    optimizer.zero_grad()
    loss: Tensor = loss_fn(model(x), y) - 0.05 * torch.stack([p.square().sum() for p in model.parameters()]).sum()
    loss.backward()
    optimizer.step()
    return loss


class Exponential(nn.Module):
    """For targets that are positive."""

    def forward(self, x: Tensor) -> Tensor:
        return x.exp()


class UnitLength(nn.Module):
    """As embeddings end."""

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=1)


class GumbelSoftmax(nn.Module):
    """Draws a class in training."""

    def forward(self, x: Tensor) -> Tensor:
        return F.gumbel_softmax(x, dim=1) if self.training else x.softmax(1)


def _losing(loss: Loss) -> Callable[[Program], Program]:
    return lambda program: program.having(loss=loss)


_OUT = ("head", "loss", "targets")
_SIGN = ("loss", "loop", "optimizer")
OPERATORS = (
    planted("poisson-of-standardized", "wrong_loss", _losing(poisson), ("impedance", "tides"), (*FLAT, *RUNAWAY), _OUT, fits=is_numbers),
    planted("divergence-of-logits", "wrong_loss", _losing(divergence_of_logits), ("lines-15", "topics"), (*FLAT, *RUNAWAY), _OUT,
            fits=is_classes),
    planted("class-0-ignored", "wrong_loss", _losing(nn.CrossEntropyLoss(ignore_index=0)), ("flower-by-hand", "iris", "shells"), FLAT,
            _OUT, fits=is_classes),
    planted("summed-over-features", "loss_reduction", _of_feature_sum, ("digits-code",), LARGE, ("loss", "optimizer"),
            also=("lr_too_high",), fits=is_sgd),
    planted("divided-by-parts-not-gathered", "loss_reduction", _of_many_parts, ("arm", "lines-tanh-13", "digits-code"), SLOW,
            ("loss", "optimizer"), also=("lr_too_low",), fits=is_sgd),
    planted("times-the-loader-s-length", "loss_reduction", _times_the_loader, ("lines-tanh-13", "impedance-sgd", "selu-lines-22"), LARGE,
            ("loss", "optimizer"), also=("lr_too_high",), fits=is_sgd),
    planted("likelihoods-multiplied", "unstable_loss", _losing(likelihood_multiplied), ("stripes-clipped",), NAN, ("loss",),
            fits=is_classes),
    planted("logarithm-of-the-positive", "unstable_loss", _losing(logarithm_of_the_positive), ("impedance", "tides"), NAN, ("loss",),
            fits=is_numbers, also=("wrong_loss",)),
    planted("root-of-distances", "unstable_loss", _kept_apart, ("figures-plain", "stripes-dropout"), NAN, ("loss",), fits=is_classes),
    planted("log-likelihood-minimised", "sign_error", _losing(log_likelihood), ("lookup", "stripes-plain-9"), (*FLAT, *RUNAWAY), _SIGN,
            fits=is_classes),
    planted("similarity-minimised", "sign_error", _losing(similarity), ("spectra-code", "digits-code"), (*FLAT, *RUNAWAY), _SIGN,
            fits=is_numbers, also=("wrong_loss",)),
    planted("penalty-subtracted", "sign_error", lambda p: p.having(train_step=penalty_subtracted), ("hastie", "roll-tower"),
            (*FLAT, *RUNAWAY), _SIGN, fits=is_standard),
    planted("softmax-over-features", "wrong_output_activation", lambda p: p.edited(ending(lambda: nn.Softmax(-1))),
            ("arm", "digits-code", "spectra-code"), HEAD, _OUT, fits=is_numbers),
    planted("exponential-output", "wrong_output_activation", lambda p: p.edited(ending(Exponential)), ("impedance", "tides", "roll-tower"),
            (*HEAD, *LARGE), _OUT, fits=is_numbers),
    planted("output-of-unit-length", "wrong_output_activation", lambda p: p.edited(ending(UnitLength)), ("impedance-sgd", "roll-tower"),
            HEAD, _OUT, fits=is_numbers),
    planted("softmax-over-the-batch", "redundant_output_activation", lambda p: p.edited(ending(lambda: nn.Softmax(0))),
            ("stripes-dropout", "branches-stripes"), HEAD, ("head", "loss"), fits=is_classes, also=("wrong_output_activation",)),
    planted("softmax-in-the-network-and-in-the-loop", "redundant_output_activation",
            lambda p: p.edited(ending(lambda: nn.Softmax(1)), ending(lambda: nn.Softmax(1))), ("lines-15", "wave-10"), HEAD,
            ("head", "loss"), fits=is_classes),
    planted("gumbel-softmax-before-cross-entropy", "redundant_output_activation", lambda p: p.edited(ending(GumbelSoftmax)),
            ("lines-tanh-13", "shells"), HEAD, ("head", "loss"), fits=is_classes),
)  # fmt: skip
