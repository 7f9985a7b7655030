"""Recurrent networks and attention."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from benchmarks.faults import data
from benchmarks.faults.base import Operator, Program
from benchmarks.faults.edits import scaled_named
from evengrad.lab.models import Recurrent

FORGETS = (
    "vanishing_gradient",
    "loss_stuck",
    "plateau",
    "slow_convergence",
    "exploding_gradient",
    "constant_output",
    "generalization_failure",
)
SHARP = (
    *("saturated_activation", "vanishing_gradient", "zero_gradient", "loss_stuck", "plateau", "slow_convergence", "oscillating_loss"),
    *("exploding_gradient", "overfitting", "loss_spike", "generalization_failure", "loss_divergence"),
)


def _longer(delay: int) -> Callable[[Program], Program]:
    return lambda program: program.having(data=data.recall(delay))


def _plain_and_long(program: Program) -> Program:
    return program.with_net(cell="rnn", forget_bias=None).having(data=lambda: data.adding(60))


def _shut(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "bias_ih" in name:
                p[len(p) // 4 : len(p) // 2] = -8.0
    return model


def _recurrent(program: Program) -> bool:
    return isinstance(program.net, Recurrent)


OPERATORS = (
    Operator(
        name="recall-after-40-steps", cause="long_memory", half="tuning", symptoms=FORGETS, places=("layers",),
        on=("rnn-recall", "rnn-recall-relu"), mutate=_longer(40), fits=_recurrent,
    ),
    Operator(
        name="plain-rnn-over-60-steps", cause="long_memory", half="reported", symptoms=FORGETS, places=("layers",),
        on=("gru-adding", "lstm-adding"), mutate=_plain_and_long, fits=_recurrent,
    ),
    Operator(
        name="forget-gates-shut", cause="long_memory", half="reported", symptoms=FORGETS, places=("layers",),
        on=("lstm-rows",), mutate=lambda p: p.edited(_shut), fits=lambda p: getattr(p.net, "cell", "") == "lstm",
    ),
    Operator(
        name="queries-and-keys-x20", cause="attention_logits", half="tuning", symptoms=SHARP, places=("layers",),
        on=("pre-norm", "pre-norm-recall"), mutate=lambda p: p.edited(scaled_named("query.weight", 20), scaled_named("key.weight", 20)),
        fits=lambda p: p.kind == "attention",
    ),
    Operator(
        name="queries-x300", cause="attention_logits", half="reported", symptoms=SHARP, places=("layers",),
        on=("pre-norm-rows", "post-norm-last", "attention-recall"), mutate=lambda p: p.edited(scaled_named("query", 300)),
        fits=lambda p: p.kind == "attention",
    ),
)  # fmt: skip
