"""The rate, its schedule, and how long is trained: DeepCrime's changes of hyperparameters (Humbatova 2021), and schedulers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ExponentialLR, LambdaLR, ReduceLROnPlateau, StepLR

from benchmarks.faults import steps
from benchmarks.faults.base import Program
from benchmarks.faults.fourth.planting import LOOP, SLOW, UNSTABLE, WHERE
from benchmarks.faults.sixth.planting import is_scheduled, is_sgd, is_standard, planted, stepping

Optimizer = torch.optim.Optimizer
SHORT = (*SLOW, "generalization_failure", "overfitting")


def _sgd_at_adam_s_rate(program: Program) -> Program:
    return program.having(optimizer="sgd", options={})


def _steps_for_epochs(optimizer: Optimizer, total: int) -> Any:
    return StepLR(optimizer, step_size=10, gamma=0.1)  # every ten epochs, as was meant


def _each_batch_by_0_9(optimizer: Optimizer, total: int) -> Any:
    return ExponentialLR(optimizer, gamma=0.9)


def plateau_of_a_maximum(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Lowers the rate when the loss no longer rises: `mode="max"`, with a loss."""
    made = optimizer.__dict__.setdefault("_plateau", ReduceLROnPlateau(optimizer, mode="max", factor=0.5, patience=5))
    loss = steps.plain(model, batch, loss_fn, optimizer)
    made.step(loss.item())
    return loss


def _short_warm_up(optimizer: Optimizer, total: int) -> Any:
    return LambdaLR(optimizer, lambda s: min((s + 1) / 2, 1.0))


_RATE = ("optimizer", "loss")
OPERATORS = (
    planted("rate-of-one", "lr_too_high", lambda p: p.having(lr=1.0), ("lenet-adam", "reviews"), UNSTABLE, _RATE,
            fits=lambda p: not is_sgd(p)),
    planted("rate-of-0.1-in-adam", "lr_too_high", lambda p: p.having(lr=0.1), ("clothes-gelu", "clothes-plain-20"), UNSTABLE,
            _RATE, fits=lambda p: not is_sgd(p)),
    planted("ten-times-the-rate", "lr_too_high", lambda p: p.having(lr=10 * p.lr), ("houses-sgd", "clothes-tanh-10"), UNSTABLE,
            _RATE, fits=is_sgd),
    planted("rate-of-a-millionth", "lr_too_low", lambda p: p.having(lr=1e-6), ("lenet-adam",), SLOW, _RATE),
    planted("sgd-at-the-rate-of-adam", "lr_too_low", _sgd_at_adam_s_rate, ("clothes-gelu", "encoder"), SLOW, _RATE,
            fits=lambda p: not is_sgd(p)),
    planted("one-epoch-alone", "undertrained", lambda p: p.having(epochs=1), ("pixels-adam",), SHORT,
            WHERE),
    planted("two-epochs-of-many", "undertrained", lambda p: p.having(epochs=2), ("flag-gru",), SHORT, WHERE),
    planted("scheduler-stepped-each-batch", "scheduler_bug", lambda p: p.having(schedule=_steps_for_epochs),
            ("lenet-adam",), SLOW, WHERE),
    planted("decay-of-0.9-each-batch", "scheduler_bug", lambda p: p.having(schedule=_each_batch_by_0_9), ("demand",),
            SLOW, WHERE),
    planted("plateau-of-a-maximum", "scheduler_bug", stepping(plateau_of_a_maximum), ("pixels-adam",), SLOW, WHERE,
            fits=is_standard),
    planted("no-schedule-at-all", "no_warmup", lambda p: p.having(schedule=None), ("encoder-post",), UNSTABLE, (*WHERE, "layers"),
            fits=is_scheduled, also=("lr_too_high",)),
    planted("two-steps-of-warm-up", "no_warmup", lambda p: p.having(schedule=_short_warm_up), ("encoder-post",), UNSTABLE,
            (*WHERE, *LOOP, "layers"), fits=is_scheduled, also=("lr_too_high",)),
)  # fmt: skip
