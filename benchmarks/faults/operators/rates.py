"""The rate, its schedule, and how long is trained."""

from __future__ import annotations

from typing import Any

import torch
from torch.optim.lr_scheduler import ExponentialLR, LambdaLR

from benchmarks.faults.base import Operator, Program
from benchmarks.faults.programs import cosine

UNSTABLE = (
    *("loss_divergence", "nan_or_inf", "exploding_gradient", "oscillating_loss", "loss_spike", "loss_stuck"),
    *("dead_relu", "saturated_activation", "plateau", "constant_output"),
)
SLOW = ("slow_convergence", "loss_stuck", "plateau", "no_parameter_update")


def _warm(optimizer: torch.optim.Optimizer, total: int) -> Any:
    return LambdaLR(optimizer, lambda step: step // total)  # whole numbers: 0 until the end


def _one_epoch(program: Program) -> Program:
    return program.having(epochs=1)


OPERATORS = (
    Operator(
        name="rate-x100", cause="lr_too_high", half="tuning", symptoms=UNSTABLE, places=("optimizer", "loss"),
        on=("mlp-tanh", "conv", "spirals", "friedman"), mutate=lambda p: p.having(lr=p.lr * 100),
    ),
    Operator(
        name="rate-of-one-half", cause="lr_too_high", half="reported", symptoms=UNSTABLE, places=("optimizer", "loss"),
        on=("mlp-gelu", "waves-huber", "lstm-rows"), mutate=lambda p: p.having(lr=0.5),
        fits=lambda p: p.lr < 0.1,
    ),
    Operator(
        name="rate-by-1000", cause="lr_too_low", half="tuning", symptoms=SLOW, places=("optimizer", "loss"),
        on=("mlp-relu", "deep-tanh", "friedman"), mutate=lambda p: p.having(lr=p.lr / 1000),
    ),
    Operator(
        name="rate-of-1e-6", cause="lr_too_low", half="reported", symptoms=SLOW, places=("optimizer", "loss"),
        on=("conv-mean", "energy"), mutate=lambda p: p.having(lr=1e-6),
    ),
    Operator(
        name="one-epoch", cause="undertrained", half="tuning", symptoms=SLOW, places=("loop", "loss", "optimizer"),
        on=("conv", "circles", "rnn-recall", "deep-relu"), mutate=_one_epoch,
    ),
    Operator(
        name="huge-batches", cause="undertrained", half="reported", symptoms=SLOW, places=("loop", "loss", "optimizer"),
        on=("pre-norm-rows", "lstm-rows"), mutate=lambda p: p.having(batch_size=2000),
    ),
    Operator(
        name="rate-falls-each-step", cause="scheduler_bug", half="tuning", symptoms=SLOW, places=("optimizer", "loop"),
        on=("mlp-relu", "friedman", "conv"), mutate=lambda p: p.having(schedule=lambda o, total: ExponentialLR(o, 0.8)),
    ),
    Operator(
        name="warm-up-in-whole-numbers", cause="scheduler_bug", half="reported", symptoms=SLOW, places=("optimizer", "loop"),
        on=("mlp-gelu", "conv-strided-bn"), mutate=lambda p: p.having(schedule=_warm),
    ),
    Operator(
        name="rate-grows-each-step", cause="scheduler_bug", half="reported", symptoms=UNSTABLE, places=("optimizer", "loop", "loss"),
        on=("deep-elu", "energy"), mutate=lambda p: p.having(schedule=lambda o, total: ExponentialLR(o, 1.05)),
        also=("lr_too_high",),
    ),
    Operator(
        name="no-schedule", cause="no_warmup", half="tuning", symptoms=(*UNSTABLE, "vanishing_gradient", "slow_convergence"),
        places=("optimizer", "loop", "loss"), on=("post-norm", "post-norm-4"), mutate=lambda p: p.having(schedule=None),
        fits=lambda p: p.schedule is not None,
    ),
    Operator(
        name="cosine-alone", cause="no_warmup", half="reported", symptoms=(*UNSTABLE, "vanishing_gradient", "slow_convergence"),
        places=("optimizer", "loop", "loss"), on=("post-norm-last", "post-norm-sgd"), mutate=lambda p: p.having(schedule=cosine),
        fits=lambda p: p.schedule is not None,
    ),
)  # fmt: skip
