"""The rate, its schedule, and how long is trained."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LinearLR, OneCycleLR, PolynomialLR

from benchmarks.faults import steps
from benchmarks.faults.base import Program
from benchmarks.faults.fifth.planting import is_scheduled, is_sgd, is_standard, limited, planted, stepping
from benchmarks.faults.fourth.planting import LOOP, SLOW, UNSTABLE, WHERE

Optimizer = torch.optim.Optimizer
SHORT = (*SLOW, "generalization_failure", "overfitting")


def _without_minus(program: Program) -> Program:
    return program.having(lr=program.lr * 10 ** (2 * math.ceil(-math.log10(program.lr))))  # 4e-3 -> 4e3


def step_for_each_parameter(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Looks at the norm of each gradient, and takes the step in that loop: the line stands too far to the right."""
    loss = steps.backward(model, batch, loss_fn, optimizer)
    norms = []
    for p in model.parameters():
        if p.grad is not None:
            norms.append(p.grad.norm())
            optimizer.step()
    return loss


def _patience_in_batches(program: Program) -> Program:
    return limited(program, epochs=1, batches=15)


def _polynomial(optimizer: Optimizer, total: int) -> Any:
    return PolynomialLR(optimizer, power=0.9)  # `total_iters` is 5 if it is not given


def multiplied_in_place(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Warms up over 50 steps, and multiplies what the rate has become by then."""
    taken = optimizer.__dict__.setdefault("_taken", [0])
    taken[0] += 1
    for group in optimizer.param_groups:
        group["lr"] *= min(1.0, taken[0] / 50)
    return steps.plain(model, batch, loss_fn, optimizer)


def _below_zero(optimizer: Optimizer, total: int) -> Any:
    planned = total // 2  # epochs were doubled since
    return LambdaLR(optimizer, lambda step: 1 - step / planned)


def _long_cycle(optimizer: Optimizer, total: int) -> Any:
    return OneCycleLR(optimizer, optimizer.param_groups[0]["lr"], total_steps=total * 60)  # steps an epoch times steps


def _third(optimizer: Optimizer, total: int) -> Any:
    return LinearLR(optimizer)  # from a third, within 5 steps, if nothing is said


def _set_by_hand(program: Program) -> Program:
    def step(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
        for group in optimizer.param_groups:
            group["lr"] = program.lr  # left over from when there was no scheduler
        return steps.plain(model, batch, loss_fn, optimizer)

    return program.having(train_step=step)


def _resumed(program: Program) -> Program:
    made = program.schedule
    assert made is not None

    def schedule(optimizer: Optimizer, total: int) -> Any:
        scheduler = made(optimizer, total)
        scheduler.load_state_dict(scheduler.state_dict() | {"last_epoch": int(0.4 * total)})  # of an older run
        for group in optimizer.param_groups:
            group["lr"] = program.lr
        return scheduler

    return program.having(schedule=schedule)


_POST = ("motions-post", "rows-post")
_RATE = ("optimizer", "loss")
OPERATORS = (
    planted("exponent-without-its-minus", "lr_too_high", _without_minus, ("glyphs-conv",), UNSTABLE, _RATE),
    planted("a-step-for-each-parameter", "lr_too_high", stepping(step_for_each_parameter), ("motions-tanh-14",),
            UNSTABLE, (*_RATE, "loop"), fits=is_standard),
    planted("last-rate-of-a-range-test", "lr_too_high", lambda p: p.having(lr=10.0), ("letters-code-sgd", "trips"), UNSTABLE, _RATE),
    planted("epsilon-of-one", "lr_too_low", lambda p: p.with_options(eps=1.0), ("glyphs-mlp", "order"), SLOW, _RATE,
            fits=lambda p: not is_sgd(p)),
    planted("rate-as-a-whole-number", "lr_too_low", lambda p: p.having(lr=float(int(p.lr))), ("flag",), SLOW, _RATE),
    planted("dampened-to-a-thousandth", "lr_too_low", lambda p: p.with_options(dampening=0.999, nesterov=False),
            ("motions-tanh-14",), SLOW, _RATE, fits=is_sgd),
    planted("one-batch-an-epoch", "undertrained", lambda p: limited(p, batches=1), ("motions-heads", "credit"), SHORT,
            (*WHERE, "inputs")),
    planted("patience-counted-in-batches", "undertrained", _patience_in_batches, ("glyphs-dense", "flashcards"), SHORT,
            (*WHERE, "inputs")),
    planted("polynomial-over-five-steps", "scheduler_bug", lambda p: p.having(schedule=_polynomial),
            ("glyphs-mlp",), SLOW, WHERE),
    planted("warm-up-multiplied-in-place", "scheduler_bug", stepping(multiplied_in_place), ("order",), SLOW, WHERE,
            fits=is_standard),
    planted("line-that-goes-below-zero", "scheduler_bug", lambda p: p.having(schedule=_below_zero), ("letters-code-sgd",),
            (*UNSTABLE, "generalization_failure"), WHERE, fits=is_sgd),
    planted("one-cycle-far-too-long", "scheduler_bug", lambda p: p.having(schedule=_long_cycle), ("motions-tanh-14",), SLOW,
            WHERE, also=("lr_too_low",)),
    planted("from-a-third-in-five-steps", "no_warmup", lambda p: p.having(schedule=_third), ("rows-post",), UNSTABLE, (*WHERE, "layers"),
            fits=is_scheduled, also=("lr_too_high",)),
    planted("rate-set-again-by-hand", "no_warmup", _set_by_hand, ("motions-post",), UNSTABLE, (*WHERE, *LOOP, "layers"), fits=is_scheduled,
            also=("lr_too_high",)),
    planted("resumed-behind-the-warm-up", "no_warmup", _resumed, _POST, UNSTABLE, (*WHERE, "layers"), fits=is_scheduled),
)  # fmt: skip
