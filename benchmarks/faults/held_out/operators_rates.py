"""The rate, its schedule, how long is trained, and how much is held back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, MultiStepLR

from benchmarks.faults import steps
from benchmarks.faults.base import Operator, Program
from benchmarks.faults.edits import ACTIVATIONS, swapped
from evengrad.lab.data import Split

UNSTABLE = (
    *("loss_divergence", "nan_or_inf", "exploding_gradient", "oscillating_loss", "loss_spike", "loss_stuck", "plateau"),
    *("dead_relu", "saturated_activation", "constant_output", "zero_gradient", "vanishing_gradient", "slow_convergence"),
)
SLOW = ("slow_convergence", "loss_stuck", "plateau", "no_parameter_update")
HELD = (
    *("loss_stuck", "plateau", "slow_convergence", "vanishing_gradient", "signal_collapse", "constant_output", "zero_gradient"),
    *("train_eval_gap", "dead_relu", "no_parameter_update"),
)
WHERE = ("optimizer", "loop", "loss")


class Noise(nn.Module):
    """Adds noise in training."""

    def __init__(self, std: float) -> None:
        super().__init__()
        self.std = std

    def forward(self, h: Tensor) -> Tensor:
        return h + self.std * torch.randn_like(h) if self.training else h


def _body_faster(program: Program, factor: float) -> Program:
    def groups(model: nn.Module) -> Any:
        found = list(model.parameters())
        return [{"params": found[:-2], "lr": program.lr * factor}, {"params": found[-2:]}]

    return program.having(trained=groups)


def _other_optimizer(program: Program, name: str, **fields: Any) -> Program:
    return program.having(optimizer=name, options={}, **fields)


def _subset(split: Split, seed: int) -> Split:
    return replace(split, x_train=split.x_train[:100], y_train=split.y_train[:100])


def rare_steps(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    """Gathers the mean gradient of 48 batches before each step."""
    taken = getattr(optimizer, "_seen", 0) + 1
    optimizer._seen = taken  # type: ignore[attr-defined]
    x, y = batch
    loss: Tensor = loss_fn(model(x), y)
    (loss / 48).backward()
    if taken % 48 == 0:
        optimizer.step()
        optimizer.zero_grad()
    return loss


def decay_by_hand(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    """Shrinks weights after each step."""
    loss = steps.plain(model, batch, loss_fn, optimizer)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(0.9)
    return loss


def in_pairs(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    """Cuts a batch into pairs to save memory, and takes a step after each in place of gathering gradients."""
    losses = [steps.plain(model, pair, loss_fn, optimizer) for pair in zip(batch[0].split(2), batch[1].split(2), strict=True)]
    return torch.stack([loss.detach() for loss in losses]).mean()


def _milestones(optimizer: torch.optim.Optimizer, total: int) -> Any:
    return MultiStepLR(optimizer, [3, 6, 9], 0.1)  # epochs, but it is stepped after each batch


def _rate_as_factor(program: Program) -> Program:
    def schedule(optimizer: torch.optim.Optimizer, total: int) -> Any:
        return LambdaLR(optimizer, lambda step: program.lr * (1 - step / (total + 1)))

    return program.having(schedule=schedule)


def _growing(optimizer: torch.optim.Optimizer, total: int) -> Any:
    return LambdaLR(optimizer, lambda step: (step + 1) ** 0.9)  # the inverse of what was meant


def _short_warm_up(optimizer: torch.optim.Optimizer, total: int) -> Any:
    return LambdaLR(optimizer, lambda step: min((step + 1) / 2, max(0.0, 1 - step / (total + 1))))  # two epochs were meant


def _late_warm_up(optimizer: torch.optim.Optimizer, total: int) -> Any:
    warm = total // 2
    return LambdaLR(optimizer, lambda step: 1.0 if step < warm else max(0.0, (total - step) / (total - warm)))


def _plain_step(program: Program) -> bool:
    return program.train_step is None


def _sgd(program: Program) -> bool:
    return program.optimizer == "sgd"


def _scheduled(program: Program) -> bool:
    return program.schedule is not None


OPERATORS = (
    Operator(
        name="body-group-x300", cause="lr_too_high", half="held_out", symptoms=UNSTABLE, places=("optimizer", "loss", "layers"),
        on=("garments-adagrad", "own-flight", "own-conv-bn"), mutate=lambda p: _body_faster(p, 300),
    ),
    Operator(
        name="sgd-s-rate-kept-for-adam", cause="lr_too_high", half="held_out", symptoms=UNSTABLE, places=("optimizer", "loss"),
        on=("deep-silu9", "deep-tanh11", "selu14"), mutate=lambda p: _other_optimizer(p, "adam", lr=max(0.03, p.lr)), fits=_sgd,
    ),
    Operator(
        name="adam-s-rate-kept-for-sgd", cause="lr_too_low", half="held_out", symptoms=SLOW, places=("optimizer", "loss"),
        on=("deep-relu18", "own-gru", "own-encoder"), mutate=lambda p: _other_optimizer(p, "sgd", lr=3e-4),
        fits=lambda p: not _sgd(p),
    ),
    Operator(
        name="rate-divided-by-samples", cause="lr_too_low", half="held_out", symptoms=SLOW, places=("optimizer", "loss"),
        on=("digits-mish", "flight", "conv-elu"), mutate=lambda p: p.having(lr=p.lr / len(p.data().x_train)),
    ),
    Operator(
        name="a-step-every-48-batches", cause="undertrained", half="held_out", symptoms=(*SLOW, "generalization_failure"), places=WHERE,
        on=("own-packed", "own-list", "own-encoder"), mutate=lambda p: p.having(train_step=rare_steps), fits=_plain_step,
    ),
    Operator(
        name="subset-for-debugging-left-in", cause="undertrained", half="held_out",
        symptoms=(*SLOW, "generalization_failure", "overfitting"), places=(*WHERE, "inputs"),
        on=("garments-adagrad", "own-encoder", "own-blocks"), mutate=lambda p: p.with_data(_subset),
    ),
    Operator(
        name="milestones-in-epochs", cause="scheduler_bug", half="held_out", symptoms=SLOW, places=WHERE,
        on=("deep-silu9", "own-conv-digits", "ripples"), mutate=lambda p: p.having(schedule=_milestones),
    ),
    Operator(
        name="rate-given-as-factor", cause="scheduler_bug", half="held_out", symptoms=SLOW, places=WHERE,
        on=("own-checkers", "parity"), mutate=_rate_as_factor, also=("lr_too_low",),
    ),
    Operator(
        name="rate-grows-with-the-step", cause="scheduler_bug", half="held_out", symptoms=UNSTABLE, places=WHERE,
        on=("conv-elu", "flight"), mutate=lambda p: p.having(schedule=_growing), also=("lr_too_high",),
    ),
    Operator(
        name="warm-up-of-two-steps", cause="no_warmup", half="held_out", symptoms=UNSTABLE, places=(*WHERE, "layers"),
        on=("own-encoder-post",), mutate=lambda p: p.having(schedule=_short_warm_up), fits=_scheduled,
    ),
    Operator(
        name="warm-up-comes-late", cause="no_warmup", half="held_out", symptoms=UNSTABLE, places=(*WHERE, "layers"),
        on=("own-encoder-post", "own-encoder-post-sgd"), mutate=lambda p: p.having(schedule=_late_warm_up), fits=_scheduled,
    ),
    Operator(
        name="decoupled-decay-of-60", cause="over_regularized", half="held_out", symptoms=HELD, places=("optimizer", "loss", "layers"),
        on=("own-encoder", "own-conv-digits", "own-blocks"), mutate=lambda p: p.having(optimizer="adamw", options={"weight_decay": 60.0}),
    ),
    Operator(
        name="decay-by-hand", cause="over_regularized", half="held_out", symptoms=HELD, places=(*WHERE, "layers"),
        on=("flight", "deep-silu9"), mutate=lambda p: p.having(train_step=decay_by_hand), fits=_plain_step,
    ),
    Operator(
        name="noise-of-8-between-layers", cause="over_regularized", half="held_out",
        symptoms=(*HELD, "oscillating_loss", "exploding_gradient", "huge_initial_loss", "loss_spike"), places=("layers",),
        on=("deep-tanh11", "clouds"),
        mutate=lambda p: p.edited(swapped(ACTIVATIONS, lambda activation: nn.Sequential(activation, Noise(8.0)))),
    ),
    Operator(
        name="a-step-after-each-pair", cause="batch_too_small", half="held_out",
        symptoms=(*UNSTABLE, "train_eval_gap", "generalization_failure"), places=(*WHERE, "inputs", "norms"), also=("lr_too_high",),
        on=("own-normed", "own-conv-bn", "conv-elu"), mutate=lambda p: p.having(train_step=in_pairs), fits=_plain_step,
    ),
    Operator(
        name="batches-of-three-in-a-rush", cause="batch_too_small", half="held_out",
        symptoms=(*UNSTABLE, "train_eval_gap", "generalization_failure"), places=(*WHERE, "inputs", "norms"), also=("lr_too_high",),
        on=("own-normed", "selu14"), mutate=lambda p: p.having(batch_size=3, epochs=1),
    ),
)  # fmt: skip
