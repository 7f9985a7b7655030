"""Too much regularisation, and batches too small."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.faults.base import ModelEdit, Operator
from benchmarks.faults.edits import ACTIVATIONS, swapped

HELD = (
    *("loss_stuck", "plateau", "slow_convergence", "vanishing_gradient", "signal_collapse", "constant_output", "train_eval_gap"),
    *("zero_gradient", "dead_relu"),
)
NOISY = (
    *("oscillating_loss", "train_eval_gap", "loss_stuck", "slow_convergence", "loss_divergence", "plateau", "loss_spike"),
    *("nan_or_inf", "dead_relu", "generalization_failure", "exploding_gradient", "constant_output"),
)


def _dropout_everywhere(p: float) -> ModelEdit:
    return swapped(ACTIVATIONS, lambda activation: nn.Sequential(activation, nn.Dropout(p)))


def _l1_step(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    x, y = batch
    optimizer.zero_grad()
    loss: Tensor = loss_fn(model(x), y) + 0.1 * torch.stack([p.abs().sum() for p in model.parameters()]).sum()
    loss.backward()
    optimizer.step()
    return loss


OPERATORS = (
    Operator(
        name="weight-decay-of-one-half", cause="over_regularized", half="tuning", symptoms=HELD, places=("optimizer", "loss", "layers"),
        on=("mlp-tanh", "deep-relu", "waves"), mutate=lambda p: p.with_options(weight_decay=0.5),
    ),
    Operator(
        name="dropout-of-0.95", cause="over_regularized", half="reported", symptoms=HELD, places=("layers",),
        on=("mlp-gelu",), mutate=lambda p: p.edited(_dropout_everywhere(0.95)),
    ),
    Operator(
        name="l1-penalty", cause="over_regularized", half="reported", symptoms=HELD, places=("loss", "loop", "optimizer", "layers"),
        on=("energy",), mutate=lambda p: p.having(train_step=_l1_step), fits=lambda p: p.train_step is None,
    ),
    Operator(
        name="batches-of-two", cause="batch_too_small", half="tuning", symptoms=NOISY, places=("loop", "optimizer", "inputs"),
        on=("deep-bn", "conv-bn", "residual-bn"), mutate=lambda p: p.having(batch_size=2, epochs=1),
    ),
    Operator(
        name="batches-of-one", cause="batch_too_small", half="reported", symptoms=NOISY, places=("loop", "optimizer", "inputs"),
        on=("energy",), mutate=lambda p: p.having(batch_size=1, epochs=1), also=("lr_too_high",),
        fits=lambda p: getattr(p.net, "norm", "none") != "batch",
    ),
    Operator(
        name="batches-of-two-in-normed-convolutions", cause="batch_too_small", half="reported", symptoms=NOISY,
        places=("loop", "optimizer", "inputs"),
        on=("bn-after",), mutate=lambda p: p.having(batch_size=2, epochs=1),
        fits=lambda p: getattr(p.net, "norm", "none") == "batch",
    ),
)  # fmt: skip
