"""What is done at each step."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.faults import steps
from benchmarks.faults.base import Operator, Program
from benchmarks.faults.edits import cut_before_head, cut_in_the_middle, frozen, swapped

UNSTABLE = (
    *("loss_divergence", "nan_or_inf", "exploding_gradient", "oscillating_loss", "loss_spike", "loss_stuck"),
    *("dead_relu", "saturated_activation", "plateau", "constant_output"),
)
STILL = ("no_parameter_update", "zero_gradient", "loss_stuck", "plateau", "slow_convergence", "vanishing_gradient")
SLOW = ("slow_convergence", "loss_stuck", "plateau", "no_parameter_update", "vanishing_gradient")
GAP = ("train_eval_gap", "generalization_failure", "overfitting", "loss_divergence", "loss_stuck", "exploding_gradient", "nan_or_inf")


def no_zero_grad(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    x, y = batch
    loss: Tensor = loss_fn(model(x), y)
    loss.backward()
    optimizer.step()
    return loss


def zero_grad_now_and_then(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    taken = getattr(optimizer, "_taken", 0)
    optimizer._taken = taken + 1  # type: ignore[attr-defined]
    if taken % 100 == 0:
        optimizer.zero_grad()
    return no_zero_grad(model, batch, loss_fn, optimizer)


def eval_left_on(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    model.eval()
    return steps.plain(model, batch, loss_fn, optimizer)


def statistics_reset(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    loss = steps.plain(model, batch, loss_fn, optimizer)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.reset_running_stats()
    return loss


def ascent(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    loss = steps.backward(model, batch, loss_fn, optimizer)
    with torch.no_grad():
        for p in model.parameters():
            if p.grad is not None:
                p.add_(p.grad, alpha=optimizer.param_groups[0]["lr"])
    return loss


def _of_a_copy(model: nn.Module) -> Iterable[nn.Parameter]:
    return copy.deepcopy(model).parameters()


def _only_first(model: nn.Module) -> Iterable[nn.Parameter]:
    return list(model.parameters())[:2]


def _still_norm(norm: nn.Module) -> nn.Module:
    assert isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d))
    norm.momentum = 0.0
    return norm


def _batch_norm(program: Program) -> bool:
    return getattr(program.net, "norm", "none") == "batch"


def _standard(program: Program) -> bool:
    return program.train_step is None


OPERATORS = (
    Operator(
        name="no-zero-grad", cause="missing_zero_grad", half="tuning", symptoms=UNSTABLE, places=("loop", "optimizer"),
        on=("mlp-tanh", "deep-relu", "friedman", "conv-bn"), mutate=lambda p: p.having(train_step=no_zero_grad), fits=_standard,
    ),
    Operator(
        name="zero-grad-every-100th", cause="missing_zero_grad", half="reported", symptoms=UNSTABLE, places=("loop", "optimizer"),
        on=("energy", "conv-mean"), mutate=lambda p: p.having(train_step=zero_grad_now_and_then), fits=_standard,
    ),
    Operator(
        name="optimizer-of-a-copy", cause="frozen_params", half="tuning", symptoms=STILL, places=("optimizer", "layers"),
        on=("mlp-relu", "gru-rows"), mutate=lambda p: p.having(trained=_of_a_copy),
    ),
    Operator(
        name="cut-before-the-head", cause="frozen_params", half="tuning", symptoms=STILL, places=("layers", "loop"),
        on=("spirals", "friedman", "deep-tanh"), mutate=lambda p: p.edited(cut_before_head),
    ),
    Operator(
        name="only-biases-learn", cause="frozen_params", half="reported", symptoms=STILL, places=("layers", "optimizer"),
        on=("deep-elu",), mutate=lambda p: p.edited(frozen(lambda name: "bias" in name)),
    ),
    Operator(
        name="only-the-first-layer", cause="frozen_params", half="reported", symptoms=STILL, places=("optimizer", "layers"),
        on=("deep-relu14",), mutate=lambda p: p.having(trained=_only_first),
    ),
    Operator(
        name="cut-in-the-middle", cause="frozen_params", half="reported", symptoms=STILL, places=("layers", "loop"),
        on=("waves-huber",), mutate=lambda p: p.edited(cut_in_the_middle),
    ),
    Operator(
        name="statistics-never-move", cause="bn_stats", half="tuning", symptoms=GAP, places=("norms", "loop"),
        on=("deep-bn", "conv-bn", "residual-bn"), mutate=lambda p: p.edited(swapped((nn.BatchNorm1d, nn.BatchNorm2d), _still_norm)),
        fits=_batch_norm,
    ),
    Operator(
        name="statistics-reset-each-step", cause="bn_stats", half="reported", symptoms=GAP, places=("norms", "loop"),
        on=("bn-after",), mutate=lambda p: p.having(train_step=statistics_reset), fits=_batch_norm,
    ),
    Operator(
        name="eval-left-on", cause="bn_stats", half="reported", symptoms=(*GAP, *UNSTABLE), places=("norms", "loop"),
        on=("residual-conv", "bn-after"), mutate=lambda p: p.having(train_step=eval_left_on), fits=_batch_norm,
    ),
    Operator(
        name="clipped-at-1e-4", cause="over_clipped", half="tuning", symptoms=SLOW, places=("loop", "optimizer"),
        on=("mlp-tanh", "waves", "deep-relu"), mutate=lambda p: p.having(train_step=steps.clipped(1e-4)),
        fits=lambda p: p.optimizer == "sgd",
    ),
    Operator(
        name="values-clipped-at-1e-5", cause="over_clipped", half="reported", symptoms=SLOW, places=("loop", "optimizer"),
        on=("deep-elu", "energy"), mutate=lambda p: p.having(train_step=steps.clipped_by_value(1e-5)),
        fits=lambda p: p.optimizer == "sgd",
    ),
    Operator(
        name="not-clipped", cause="no_grad_clip", half="tuning", symptoms=(*UNSTABLE, "slow_convergence"), places=("loop", "optimizer"),
        on=("rnn-clipped", "deep-clipped"), mutate=lambda p: p.having(train_step=None), fits=lambda p: p.train_step is not None,
    ),
    Operator(
        name="clipped-at-1000", cause="no_grad_clip", half="reported", symptoms=(*UNSTABLE, "slow_convergence"),
        places=("loop", "optimizer"),
        on=("rnn-rows-clipped", "deep-gelu-clipped"), mutate=lambda p: p.having(train_step=steps.clipped(1000.0)),
        fits=lambda p: p.train_step is not None,
    ),
    Operator(
        name="ascent-by-hand", cause="sign_error", half="tuning", symptoms=UNSTABLE, places=("loss", "loop", "optimizer"),
        on=("mlp-tanh", "deep-bn"), mutate=lambda p: p.having(train_step=ascent), fits=_standard,
    ),
)  # fmt: skip
