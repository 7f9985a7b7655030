"""What is done at each step, and with what numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from benchmarks.faults import steps
from benchmarks.faults.base import Program
from benchmarks.faults.edits import in_precision
from benchmarks.faults.fourth.planting import LOOP, SLOW, STILL, UNSTABLE, WHERE, is_clipped
from benchmarks.faults.sixth.planting import edited, is_sgd, is_standard, planted, stepping

Optimizer = torch.optim.Optimizer
ROUNDED = (*STILL, *UNSTABLE)


def clipped_in_front_of_backward(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Zeros, clip, backward, step."""
    x, y = batch
    optimizer.zero_grad()
    loss: Tensor = loss_fn(model(x), y)
    clip_grad_norm_(model.parameters(), 0.3)
    loss.backward()
    optimizer.step()
    return loss


def never_zeroed(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Backward and step, and no `zero_grad`."""
    x, y = batch
    loss: Tensor = loss_fn(model(x), y)
    loss.backward()
    optimizer.step()
    return loss


def zeroed_now_and_then(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Calls `zero_grad` in the outer loop, over epochs of 40 batches."""
    taken = optimizer.__dict__.setdefault("_taken", [0])
    if taken[0] % 40 == 0:
        optimizer.zero_grad()
    taken[0] += 1
    return never_zeroed(model, batch, loss_fn, optimizer)


def _one_at_a_time(program: Program) -> Program:
    return program.having(batch_size=1, epochs=1)


def _two_at_a_time(program: Program) -> Program:
    return program.having(batch_size=2, epochs=2)


_NOISY = (*UNSTABLE, "train_eval_gap", "generalization_failure")
_SMALL = (*WHERE, "inputs", "norms")
_DTYPE = ("layers", *LOOP)
OPERATORS = (
    planted("no-clipping-at-all", "no_grad_clip", lambda p: p.having(train_step=None), ("rnn-clothes",), UNSTABLE, LOOP, fits=is_clipped),
    planted("clipped-in-front-of-backward", "no_grad_clip", stepping(clipped_in_front_of_backward), ("rnn-clothes",), UNSTABLE, LOOP,
            fits=is_clipped),
    planted("norm-clipped-at-0.001", "over_clipped", stepping(steps.clipped(1e-3)), ("digits-sgd",), SLOW, LOOP,
            fits=is_sgd),
    planted("each-value-clipped-at-1e-5", "over_clipped", stepping(steps.clipped_by_value(1e-5)), ("houses-sgd",), SLOW,
            LOOP, fits=is_sgd),
    planted("zero-grad-forgotten", "missing_zero_grad", stepping(never_zeroed),
            ("clothes-tanh-10", "lenet-sgd"), UNSTABLE, LOOP, fits=is_standard),
    planted("zero-grad-once-an-epoch", "missing_zero_grad", stepping(zeroed_now_and_then), ("houses-sgd",), UNSTABLE,
            LOOP, fits=is_standard),
    planted("one-sample-a-step", "batch_too_small", _one_at_a_time, ("lenet-sgd",), _NOISY, _SMALL,
            fits=is_sgd, also=("lr_too_high",)),
    planted("two-samples-a-step", "batch_too_small", _two_at_a_time, ("digits-bn-12",), _NOISY, _SMALL, fits=is_sgd,
            also=("bn_stats", "lr_too_high")),
    planted("halved-for-adam", "low_precision", edited(in_precision(torch.float16)), ("pixels-adam", "pixels-tanh"), ROUNDED, _DTYPE,
            fits=lambda p: not is_sgd(p)),
)  # fmt: skip
