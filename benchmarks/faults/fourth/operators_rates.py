"""The rate, its schedule, and how long is trained."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, MultiplicativeLR

from benchmarks.faults.base import DataEdit, Program
from benchmarks.faults.fourth.planting import SLOW, UNSTABLE, WHERE, is_scheduled, is_sgd, planted
from evengrad.lab.data import Split


def _natural_exponent(program: Program) -> Program:
    return program.having(lr=math.exp(math.log10(program.lr)))  # exp where 10 ** was meant


def _swapped(program: Program) -> Program:
    return program.having(lr=1e-5).with_options(weight_decay=program.lr)


def _by_layer(program: Program) -> Program:
    def groups(model: nn.Module) -> Any:
        found = list(model.parameters())[::-1]  # from the head down, a matrix and its bias together
        return [{"params": found[i : i + 2], "lr": program.lr * 0.1 ** (1 + i // 2)} for i in range(0, len(found), 2)]

    return program.having(trained=groups)


def _first(samples: int) -> DataEdit:
    def edit(split: Split, seed: int) -> Split:
        return replace(split, x_train=split.x_train[:samples], y_train=split.y_train[:samples])

    return edit


def _small_part(program: Program) -> Program:
    return program.with_data(_first(len(program.data().x_train) // 16))  # the parts of a split, taken the wrong way around


def _as_many_steps(program: Program) -> Program:
    return program.with_data(_first(program.epochs * program.batch_size)).having(epochs=1)


def _multiplied(optimizer: torch.optim.Optimizer, total: int) -> Any:
    return MultiplicativeLR(optimizer, lambda step: 1 - step / (total + 1))  # a factor for LambdaLR


def _gone_early(program: Program) -> Program:
    def schedule(optimizer: torch.optim.Optimizer, total: int) -> Any:
        return LambdaLR(optimizer, lambda step: max(0.0, 1 - step * program.epochs / total))

    return program.having(schedule=schedule)


def _noam(optimizer: torch.optim.Optimizer, total: int) -> Any:
    return LambdaLR(optimizer, lambda step: 512**-0.5 * min((step + 1) ** -0.5, (step + 1) * 4000**-1.5))


def _of_another(program: Program) -> Program:
    made = program.schedule
    assert made is not None

    def schedule(optimizer: torch.optim.Optimizer, total: int) -> Any:
        return made(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=program.lr), total)

    return program.having(schedule=schedule)


def _counted_in_epochs(program: Program) -> Program:
    warm = max(1, round(0.4 * program.epochs))

    def schedule(optimizer: torch.optim.Optimizer, total: int) -> Any:
        return LambdaLR(optimizer, lambda s: min((s + 1) / warm, max(0.05, (total - s) / (0.5 * total)), 1.0))

    return program.having(schedule=schedule)


def _rounded_to_nothing(optimizer: torch.optim.Optimizer, total: int) -> Any:
    warm = max(1, int(0.4 * 10 / total))  # a share of the epochs, divided by the steps
    return LambdaLR(optimizer, lambda s: min((s + 1) / warm, max(0.05, (total - s) / total), 1.0))


OPERATORS = (
    planted("natural-exponent", "lr_too_high", _natural_exponent, ("wave-10", "figures-plain"), UNSTABLE,
            ("optimizer", "loss"), fits=lambda p: not is_sgd(p)),
    planted("rate-times-the-batch", "lr_too_high", lambda p: p.having(lr=p.lr * p.batch_size), ("lines-tanh-13", "arm", "impedance-sgd"),
            UNSTABLE, ("optimizer", "loss"), fits=is_sgd),
    planted("default-of-adadelta", "lr_too_high", lambda p: p.having(lr=1.0), ("topics", "churn", "lookup"), UNSTABLE,
            ("optimizer", "loss")),
    planted("rate-of-fine-tuning", "lr_too_low", lambda p: p.having(lr=2e-5), ("figures-plain", "ledger", "hastie"), SLOW,
            ("optimizer", "loss")),
    planted("rate-and-decay-swapped", "lr_too_low", _swapped, ("shells", "wave-10", "selu-stripes-16"), SLOW, ("optimizer", "loss")),
    planted("rate-falls-by-layer", "lr_too_low", _by_layer, ("lines-15", "stripes-plain-9"), SLOW, ("optimizer", "loss", "layers"),
            also=("frozen_params",)),
    planted("patience-of-one", "undertrained", lambda p: p.having(epochs=2), ("negations", "wave-10"), SLOW, WHERE),
    planted("split-the-wrong-way-around", "undertrained", _small_part, ("stripes-dropout", "churn", "figures-plain"),
            (*SLOW, "generalization_failure", "overfitting"), (*WHERE, "inputs")),
    planted("epochs-taken-for-steps", "undertrained", _as_many_steps, ("pulses-rnn", "negations", "lookup"),
            (*SLOW, "generalization_failure"), (*WHERE, "inputs")),
    planted("lambda-given-to-multiplicative", "scheduler_bug", lambda p: p.having(schedule=_multiplied),
            ("pulses-heads", "pulses-rnn"), SLOW, WHERE),
    planted("zero-after-one-epoch", "scheduler_bug", _gone_early, ("wave-10", "figures-plain", "ratings"), SLOW, WHERE),
    planted("noam-times-the-rate", "scheduler_bug", lambda p: p.having(schedule=_noam), ("topics-heads", "lookup"), SLOW, WHERE,
            also=("lr_too_low",)),
    planted("scheduler-of-another-optimizer", "no_warmup", _of_another, ("lines-post", "pulses-post"), UNSTABLE, (*WHERE, "layers"),
            fits=is_scheduled),
    planted("warm-up-counted-in-epochs", "no_warmup", _counted_in_epochs, ("lines-post", "pulses-post"), UNSTABLE, (*WHERE, "layers"),
            fits=is_scheduled),
    planted("warm-up-rounded-to-nothing", "no_warmup", lambda p: p.having(schedule=_rounded_to_nothing), ("lines-post",), UNSTABLE,
            (*WHERE, "layers"), fits=is_scheduled),
)  # fmt: skip
