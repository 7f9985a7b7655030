"""Numbers of too few bits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.faults import steps
from benchmarks.faults.base import Operator
from benchmarks.faults.edits import in_precision

ROUNDED = ("no_parameter_update", "loss_stuck", "plateau", "slow_convergence", "nan_or_inf", "zero_gradient", "loss_divergence")


@torch.no_grad()
def _rounded(model: nn.Module) -> None:
    for p in model.parameters():
        p.copy_(p.to(torch.bfloat16))


def stored_in_bfloat16(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    """Keeps weights in bfloat16 between steps."""
    loss = steps.plain(model, batch, loss_fn, optimizer)
    _rounded(model)
    return loss


OPERATORS = (
    Operator(
        name="bfloat16-weights", cause="low_precision", half="tuning", symptoms=ROUNDED, places=("layers", "optimizer"),
        on=("mlp-patient", "waves", "deep-relu", "wine"), mutate=lambda p: p.edited(in_precision(torch.bfloat16)),
    ),
    Operator(
        name="float16-weights", cause="low_precision", half="reported", symptoms=ROUNDED, places=("layers", "optimizer"),
        on=("mlp-dropout", "waves-huber"), mutate=lambda p: p.edited(in_precision(torch.float16)),
        fits=lambda p: p.optimizer != "sgd",
    ),
    Operator(
        name="stored-in-bfloat16", cause="low_precision", half="reported", symptoms=ROUNDED, places=("layers", "optimizer", "loop"),
        on=("mlp-patient-gelu",), mutate=lambda p: p.having(train_step=stored_in_bfloat16),
        fits=lambda p: p.train_step is None,
    ),
)  # fmt: skip
