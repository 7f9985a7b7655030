"""What is minimised, and what comes out: the most asked questions about losses and last layers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.faults.base import Program
from benchmarks.faults.edits import ending
from benchmarks.faults.fourth.planting import FLAT, LARGE, NAN, RUNAWAY, SLOW, STILL
from benchmarks.faults.sixth.planting import edited, is_classes, is_numbers, is_sgd, losing, planted
from benchmarks.faults.sixth.programs import binary

HEAD = (*STILL, "dead_relu", "saturated_activation", "generalization_failure")


def squeezed_one_side(output: Tensor, targets: Tensor) -> Tensor:
    """`MSELoss` of (N, 1) against (N,): every answer against every target."""
    return (output - targets.reshape(-1)).square().mean()


def error_of_the_label(output: Tensor, targets: Tensor) -> Tensor:
    """The squared error of the first output and the label's number."""
    return F.mse_loss(output[:, 0], targets.float())


def classes_as_numbers(output: Tensor, targets: Tensor) -> Tensor:
    """`NLLLoss` of what is no logarithm of a probability."""
    return F.nll_loss(output, targets)


def expected_label(output: Tensor, targets: Tensor) -> Tensor:
    """The squared error of the mean label under the softmax: classes have no order."""
    labels = torch.arange(output.shape[1], dtype=output.dtype)
    return F.mse_loss(output.softmax(1) @ labels, targets.to(output.dtype))


def summed(output: Tensor, targets: Tensor) -> Tensor:
    """`CrossEntropyLoss(reduction="sum")`."""
    return F.cross_entropy(output, targets, reduction="sum")


def summed_squares(output: Tensor, targets: Tensor) -> Tensor:
    """`MSELoss(reduction="sum")`."""
    return F.mse_loss(output, targets, reduction="sum")


def over_the_data_set(output: Tensor, targets: Tensor) -> Tensor:
    """The mean over a batch, divided by the size of the data set once more."""
    return F.cross_entropy(output, targets) / 1500


def percentage(output: Tensor, targets: Tensor) -> Tensor:
    """The mean absolute percentage error; some targets are 0."""
    return ((output - targets) / targets).abs().mean()


def of_logarithms(output: Tensor, targets: Tensor) -> Tensor:
    """The squared error of logarithms of what may be below -1."""
    return ((output + 1).log() - (targets.clamp(min=-0.9) + 1).log()).square().mean()


def binary_by_hand(output: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy of a sigmoid that comes to be 1 in float32."""
    p, y = output.squeeze(1).sigmoid(), targets.float()
    return -(y * p.log() + (1 - y) * (1 - p).log()).mean()


def likelihood_without_minus(output: Tensor, targets: Tensor) -> Tensor:
    """The mean log-likelihood, minimised."""
    return output.log_softmax(1).gather(1, targets[:, None]).mean()


def _negated(program: Program) -> Program:
    loss = program.loss
    return program.having(loss=lambda output, targets: -loss(output, targets))


def _maximised(program: Program) -> Program:
    return program.with_options(maximize=True)


def _ending(make: Callable[[], nn.Module]) -> Callable[[Program], Program]:
    return edited(ending(make))


def _is_binary(program: Program) -> bool:
    return program.loss is binary


_OUT = ("head", "loss", "targets")
_SIGN = ("loss", "loop", "optimizer")
_SCALE = ("loss", "optimizer", "loop")
_CHANGED = ("head", "loss")
OPERATORS = (
    planted("n-by-1-against-n", "wrong_loss", losing(squeezed_one_side), ("diabetes",), FLAT, _OUT, fits=is_numbers),
    planted("squared-error-of-labels", "wrong_loss", losing(error_of_the_label), ("clothes-gelu",), (*FLAT, *RUNAWAY), _OUT,
            fits=is_classes),
    planted("nll-of-raw-outputs", "wrong_loss", losing(classes_as_numbers), ("lenet-sgd",), RUNAWAY, _OUT, fits=is_classes,
            also=("wrong_output_activation",)),
    planted("mean-label-of-a-softmax", "wrong_loss", losing(expected_label), ("lenet-adam",), (*FLAT, *RUNAWAY), _OUT, fits=is_classes),
    planted("cross-entropy-summed", "loss_reduction", losing(summed), ("digits-plain-14",), LARGE, _SCALE,
            fits=lambda p: is_sgd(p) and is_classes(p), also=("lr_too_high",)),
    planted("squares-summed", "loss_reduction", losing(summed_squares), ("houses-sgd",), LARGE, _SCALE, fits=is_sgd,
            also=("lr_too_high",)),
    planted("over-the-data-set-too", "loss_reduction", losing(over_the_data_set), ("vgg",), SLOW, _SCALE, fits=is_sgd,
            also=("lr_too_low",)),
    planted("percentage-of-zero", "unstable_loss", losing(percentage), ("pixels-code",), NAN, ("loss", "targets"), fits=is_numbers),
    planted("error-of-logarithms", "unstable_loss", losing(of_logarithms), ("demand",), NAN, ("loss", "head"), fits=is_numbers,
            also=("wrong_output_activation",)),
    planted("binary-cross-entropy-by-hand", "unstable_loss", losing(binary_by_hand), ("cancer-bce",), NAN, _CHANGED, fits=_is_binary),
    planted("minus-in-front", "sign_error", _negated, ("lenet-adam",), (*FLAT, *RUNAWAY), _SIGN),
    planted("log-likelihood-without-its-minus", "sign_error", losing(likelihood_without_minus), ("digits-sgd",), (*FLAT, *RUNAWAY), _SIGN,
            fits=is_classes, also=("wrong_loss",)),
    planted("maximize-left-on", "sign_error", _maximised, ("rnn-clothes",), (*FLAT, *RUNAWAY), _SIGN),
    planted("relu-at-the-end", "wrong_output_activation", _ending(nn.ReLU), ("demand",), HEAD, _OUT),
    planted("sigmoid-at-the-end", "wrong_output_activation", _ending(nn.Sigmoid), ("houses",), HEAD, _OUT, fits=is_numbers),
    planted("softmax-of-one-number", "wrong_output_activation", _ending(lambda: nn.Softmax(1)), ("cancer-bce",), HEAD, _OUT),
    planted("softmax-in-front-of-cross-entropy", "redundant_output_activation", _ending(lambda: nn.Softmax(1)),
            ("digits-plain-14", "digits-sgd"), HEAD, _CHANGED, fits=is_classes),
    planted("sigmoid-before-bce-with-logits", "redundant_output_activation", _ending(nn.Sigmoid), ("cancer-bce",), HEAD,
            _CHANGED, fits=_is_binary, also=("wrong_output_activation",)),
)  # fmt: skip
