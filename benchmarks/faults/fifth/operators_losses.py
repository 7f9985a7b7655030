"""What is minimised, and what comes out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.faults import steps
from benchmarks.faults.base import Program
from benchmarks.faults.edits import ending
from benchmarks.faults.fifth.losses import both, likelihood, two_classes
from benchmarks.faults.fifth.networks import Dense, Twins
from benchmarks.faults.fifth.planting import edited, is_classes, is_numbers, is_sgd, is_standard, losing, planted, stepping
from benchmarks.faults.fourth.networks import is_of, with_options
from benchmarks.faults.fourth.planting import FLAT, LARGE, NAN, RUNAWAY, SLOW, STILL

HEAD = (*STILL, "dead_relu", "saturated_activation", "generalization_failure")


def cross_entropy_of_one(output: Tensor, targets: Tensor) -> Tensor:
    """The softmax of one number is 1 whatever it is."""
    return F.cross_entropy(output, targets.float()[:, None])


def pinball(output: Tensor, targets: Tensor) -> Tensor:
    """Asks for the 99th percentile."""
    error = targets - output
    return torch.maximum(0.99 * error, -0.01 * error).mean()


def shortfall(output: Tensor, targets: Tensor) -> Tensor:
    """Counts answers that are too small alone."""
    return F.relu(targets - output).square().mean()


def workers_added(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    """Adds the gradients of 32 workers, which see the same here, where their mean was meant."""
    loss = steps.backward(model, batch, loss_fn, optimizer)
    for p in model.parameters():
        if p.grad is not None:
            p.grad *= 32
    optimizer.step()
    return loss


def _times(factor: float) -> Callable[[Program], Program]:
    def mutate(program: Program) -> Program:
        loss = program.loss
        return program.having(loss=lambda output, targets: factor * loss(output, targets))

    return mutate


def variance_as_it_comes(output: Tensor, targets: Tensor) -> Tensor:
    """Takes the second output for a variance, which it is as long as it is positive."""
    mean, variance = output[:, :1], output[:, 1:]
    return 0.5 * (variance.log() + (targets - mean).square() / variance).mean()


def _and_the_rare(program: Program) -> Program:
    loss = program.loss

    def rare_too(output: Tensor, targets: Tensor) -> Tensor:
        rare = targets.flatten() > 1.5  # in some batches there is none
        return loss(output, targets) + 0.1 * (output - targets).flatten()[rare].square().mean()

    return program.having(loss=rare_too)


def focal_below_one(output: Tensor, targets: Tensor) -> Tensor:
    """A focus of 0.5: the slope of a root at nothing, as soon as one answer is sure."""
    found = F.cross_entropy(output, targets, reduction="none")
    return ((1 - (-found).exp()) ** 0.5 * found).mean()


def distance_of_codes(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    """Draws codes of equal letters together by the root of squares; some pairs are one image."""
    x, y = batch
    optimizer.zero_grad()
    first, second = model.codes(x)  # type: ignore[operator]
    far = (first - second).square().sum(1).sqrt()
    loss: Tensor = loss_fn(model(x), y) + 0.01 * (y * far).mean()
    loss.backward()
    optimizer.step()
    return loss


def one_term_turned(output: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy; the second minus is wrong."""
    z, y = output[:, 0], targets.to(output.dtype)
    return -(y * F.logsigmoid(z) - (1 - y) * F.logsigmoid(-z)).mean()


def variance_subtracted(output: Tensor, targets: Tensor) -> Tensor:
    """The likelihood of a normal; one sign is wrong."""
    mean, log_variance = output[:, :1], output[:, 1:].clamp(-6, 6)
    return 0.5 * ((targets - mean).square() * (-log_variance).exp() - log_variance).mean()


def second_task_subtracted(output: Tensor, targets: Tensor) -> Tensor:
    """Adds up two tasks; one sign is wrong."""
    return F.cross_entropy(output[:, :-1], targets[:, 0].long()) - F.mse_loss(output[:, -1], targets[:, 1])


def margin_turned(output: Tensor, targets: Tensor) -> Tensor:
    """A margin between the right class and the best of the others, subtracted the wrong way around."""
    mark = F.one_hot(targets, output.shape[1]).bool()
    right, other = output[mark], output.masked_fill(mark, -1e9).amax(1)
    return F.relu(1 + right - other).mean()


class Rounded(nn.Module):
    """Whole numbers, as they are wanted in the end."""

    def forward(self, x: Tensor) -> Tensor:
        return x.round()


class Shares(nn.Module):
    """What is positive, over its sum."""

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(x) + 1e-6
        return h / h.sum(1, keepdim=True)


class Clipped(nn.Module):
    """Probabilities, kept away from 0 and 1 for the sake of a logarithm."""

    def forward(self, x: Tensor) -> Tensor:
        return x.softmax(1).clamp(1e-7, 1 - 1e-7)


def _is_binary(program: Program) -> bool:
    return program.loss is two_classes


def _every(program: Program) -> Program:
    return with_options(program, at="every")


_OUT = ("head", "loss", "targets")
_SIGN = ("loss", "loop", "optimizer")
_SCALE = ("loss", "optimizer", "loop")
OPERATORS = (
    planted("cross-entropy-of-one-output", "wrong_loss", losing(cross_entropy_of_one), ("credit", "same-letter"), FLAT, _OUT,
            fits=_is_binary, also=("wrong_output_activation",)),
    planted("percentile-of-99", "wrong_loss", losing(pinball), ("thermostat",), (*FLAT, *RUNAWAY), _OUT, fits=is_numbers),
    planted("shortfall-alone", "wrong_loss", losing(shortfall), ("scurve",), (*FLAT, *RUNAWAY), _OUT, fits=is_numbers),
    planted("gradients-of-32-workers-added", "loss_reduction", stepping(workers_added), ("motions-tanh-14", "glyphs-conv-8"),
            LARGE, _SCALE, fits=lambda p: is_sgd(p) and is_standard(p), also=("lr_too_high",)),
    planted("mean-over-pixels-too", "loss_reduction", _times(0.01), ("glyphs-conv-8",), SLOW, _SCALE, fits=is_sgd,
            also=("lr_too_low",)),
    planted("in-percent", "loss_reduction", _times(100.0), ("spring",), LARGE, _SCALE, fits=is_sgd,
            also=("lr_too_high",)),
    planted("variance-as-it-comes", "unstable_loss", losing(variance_as_it_comes), ("phase-likelihood",), NAN, ("loss", "head"),
            fits=lambda p: p.loss is likelihood, also=("wrong_output_activation",)),
    planted("mean-over-the-rare", "unstable_loss", _and_the_rare, ("trips", "thermostat"), NAN, ("loss", "targets"),
            fits=is_numbers),
    planted("focus-below-one", "unstable_loss", losing(focal_below_one), ("motions-bn",), NAN, ("loss",),
            fits=is_classes),
    planted("distance-of-equal-codes", "unstable_loss", stepping(distance_of_codes), ("same-letter",), NAN, ("loss", "loop", "layers"),
            fits=is_of(Twins)),
    planted("one-term-turned", "sign_error", losing(one_term_turned), ("credit",), (*FLAT, *RUNAWAY), _SIGN,
            fits=_is_binary, also=("wrong_loss",)),
    planted("logarithm-of-the-variance-subtracted", "sign_error", losing(variance_subtracted), ("phase-likelihood",), (*FLAT, *RUNAWAY),
            _SIGN, fits=lambda p: p.loss is likelihood, also=("wrong_loss",)),
    planted("second-task-subtracted", "sign_error", losing(second_task_subtracted), ("letter-and-place",), (*FLAT, *RUNAWAY), _SIGN,
            fits=lambda p: p.loss is both, also=("wrong_loss",)),
    planted("margin-the-wrong-way-around", "sign_error", losing(margin_turned), ("motions-heads",), (*FLAT, *RUNAWAY), _SIGN,
            fits=is_classes, also=("wrong_loss",)),
    planted("head-activated-in-the-loop", "wrong_output_activation", _every, ("phase-dense", "phase-likelihood"), HEAD, _OUT,
            fits=is_of(Dense)),
    planted("log-sigmoid-for-numbers", "wrong_output_activation", edited(ending(nn.LogSigmoid)), ("scurve",), HEAD,
            _OUT, fits=is_numbers),
    planted("rounded-answers", "wrong_output_activation", edited(ending(Rounded)), ("spring",), HEAD, (*_OUT, "layers"),
            fits=is_numbers, also=("frozen_params",)),
    planted("shares-of-the-positive", "redundant_output_activation", edited(ending(Shares)), ("glyphs-conv-8",), HEAD,
            ("head", "loss"), fits=is_classes, also=("wrong_output_activation",)),
    planted("probabilities-kept-from-0-and-1", "redundant_output_activation", edited(ending(Clipped)),
            ("motions-tanh-14",), HEAD, ("head", "loss"), fits=is_classes),
    planted("log-sigmoid-before-binary", "redundant_output_activation", edited(ending(nn.LogSigmoid)), ("credit",), HEAD,
            ("head", "loss"), fits=_is_binary, also=("wrong_output_activation",)),
)  # fmt: skip
