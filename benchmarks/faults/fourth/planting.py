"""What operators of the fourth set share: symptoms that are right answers, and tests of where a mistake fits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from benchmarks.faults.base import Operator, Program

UNSTABLE = (
    *("loss_divergence", "nan_or_inf", "exploding_gradient", "oscillating_loss", "loss_spike", "loss_stuck", "plateau"),
    *("dead_relu", "saturated_activation", "constant_output", "zero_gradient", "vanishing_gradient", "slow_convergence"),
)
SLOW = ("slow_convergence", "loss_stuck", "plateau", "no_parameter_update")
STILL = (*SLOW, "zero_gradient", "vanishing_gradient", "constant_output")
HELD = (*STILL, "signal_collapse", "train_eval_gap", "dead_relu")
FADING = (*STILL, "saturated_activation", "signal_collapse")
LARGE = (*UNSTABLE, "huge_initial_loss")
FLAT = ("loss_stuck", "plateau", "slow_convergence", "constant_output", "zero_gradient", "generalization_failure")
RUNAWAY = (*LARGE, "generalization_failure")
LABELS = ("generalization_failure", "overfitting", "train_eval_gap", "loss_stuck", "plateau", "constant_output", "slow_convergence")
NAN = ("nan_or_inf", "loss_divergence")
LOOP = ("loop", "optimizer")
WHERE = ("optimizer", "loop", "loss")


def planted(  # noqa: PLR0917
    name: str,
    cause: str,
    mutate: Callable[[Program], Program],
    on: tuple[str, ...],
    symptoms: tuple[str, ...],
    places: tuple[str, ...],
    *,
    half: str = "fourth",
    **fields: Any,
) -> Operator:
    """Returns an operator of the fourth set, or of another."""
    return Operator(name=name, cause=cause, half=half, symptoms=symptoms, places=places, on=on, mutate=mutate, **fields)


def is_classes(program: Program) -> bool:
    """True if the loss is a cross-entropy of classes."""
    return isinstance(program.loss, nn.CrossEntropyLoss)


def is_numbers(program: Program) -> bool:
    """True if the targets are numbers to come near to."""
    return not program.data().classes and program.metric is None


def is_sgd(program: Program) -> bool:
    """True if steps are as long as gradients."""
    return program.optimizer == "sgd"


def is_standard(program: Program) -> bool:
    """True if the program has no step of its own."""
    return program.train_step is None


def is_clipped(program: Program) -> bool:
    """True if the program has a step of its own."""
    return program.train_step is not None


def is_scheduled(program: Program) -> bool:
    """True if the rate has a schedule."""
    return program.schedule is not None
