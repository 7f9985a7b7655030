"""What is done at each step, and with what numbers."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from benchmarks.faults import steps
from benchmarks.faults.base import Operator, Program
from benchmarks.faults.edits import swapped
from benchmarks.faults.held_out.networks import ConvNet, Normed
from benchmarks.faults.held_out.programs import changed, is_own

UNSTABLE = (
    *("loss_divergence", "nan_or_inf", "exploding_gradient", "oscillating_loss", "loss_spike", "loss_stuck", "slow_convergence"),
    *("dead_relu", "saturated_activation", "plateau", "constant_output", "zero_gradient", "vanishing_gradient"),
)
STILL = ("no_parameter_update", "zero_gradient", "loss_stuck", "plateau", "slow_convergence", "vanishing_gradient")
SLOW = ("slow_convergence", "loss_stuck", "plateau", "no_parameter_update", "vanishing_gradient")
GAP = ("train_eval_gap", "generalization_failure", "overfitting", "loss_divergence", "loss_stuck", "exploding_gradient", "nan_or_inf")
ROUNDED = ("no_parameter_update", "loss_stuck", "plateau", "slow_convergence", "nan_or_inf", "zero_gradient", "loss_divergence",
           "oscillating_loss")  # fmt: skip


def head_alone_zeroed(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    """Clears the gradients of the last layer and forgets the rest."""
    x, y = batch
    for p in list(model.parameters())[-2:]:
        p.grad = None
    loss: Tensor = loss_fn(model(x), y)
    loss.backward()
    optimizer.step()
    return loss


def copy_zeroed(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    """Clears the gradients of a copy."""
    x, y = batch
    copy.deepcopy(model).zero_grad()
    loss: Tensor = loss_fn(model(x), y)
    loss.backward()
    optimizer.step()
    return loss


def kept_in_a_buffer(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    """Gathers gradients in a dictionary that is never emptied."""
    loss = steps.backward(model, batch, loss_fn, optimizer)
    kept: dict[int, Tensor] = optimizer.__dict__.setdefault("_kept", {})
    for p in model.parameters():
        if p.grad is not None:
            kept[id(p)] = kept.get(id(p), torch.zeros_like(p)) + p.grad
            p.grad = kept[id(p)].clone()
    optimizer.step()
    return loss


def clipped_before_backward(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    """Clips what is not there yet."""
    x, y = batch
    optimizer.zero_grad()
    loss: Tensor = loss_fn(model(x), y)
    clip_grad_norm_(model.parameters(), 0.25)
    loss.backward()
    optimizer.step()
    return loss


def head_alone_clipped(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    """Clips the last bias and forgets the rest."""
    loss = steps.backward(model, batch, loss_fn, optimizer)
    clip_grad_norm_(list(model.parameters())[-1:], 0.25)
    optimizer.step()
    return loss


def tensor_by_tensor(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    """Clips every parameter by itself, far too low."""
    loss = steps.backward(model, batch, loss_fn, optimizer)
    for p in model.parameters():
        clip_grad_norm_([p], 2e-4)
    optimizer.step()
    return loss


def raw_forward_first(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    """Looks at raw data through the network, in training mode, before each step."""
    with torch.no_grad():
        model(batch[0] * 40 + 120)
    return steps.plain(model, batch, loss_fn, optimizer)


def fixed_point(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    """Keeps weights as multiples of 1/32 between steps."""
    loss = steps.plain(model, batch, loss_fn, optimizer)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_((p * 32).round() / 32)
    return loss


def eight_bits(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    """Keeps weights as floats of eight bits between steps."""
    loss = steps.plain(model, batch, loss_fn, optimizer)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p.to(torch.float8_e4m3fn).to(p.dtype))
    return loss


def half_gradients(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    """Sends gradients in float16, of a loss that was made small beside others."""
    x, y = batch
    optimizer.zero_grad()
    loss: Tensor = loss_fn(model(x), y)
    (loss * 1e-7).backward()
    for p in model.parameters():
        if p.grad is not None:
            p.grad = p.grad.half().float() * 1e7
    optimizer.step()
    return loss


def _clamping_hooks(model: nn.Module) -> nn.Module:
    for p in model.parameters():
        p.register_hook(lambda g: g.clamp(-5e-6, 5e-6))
    return model


def _slow_statistics(norm: nn.Module) -> nn.Module:
    assert isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d))
    norm.momentum = 0.001  # 1 - 0.999, as another library counts
    return norm


def _early_features(model: nn.Module) -> Iterable[nn.Parameter]:
    found = list(model.parameters())
    return found[: len(found) // 4]  # a quarter of the list, cut for a test


def _old_head(model: nn.Module) -> Iterable[nn.Parameter]:
    """The optimizer gets parameters that were replaced after it was made."""
    found = list(model.parameters())
    return [*[nn.Parameter(p.detach().clone()) for p in found[:-2]], *found[-2:]]


def _batch_norm(program: Program) -> bool:
    return getattr(program.net, "make", None) is not None and program.net.make.func in {ConvNet, Normed}  # type: ignore[attr-defined]


def _standard(program: Program) -> bool:
    return program.train_step is None


def _clipped(program: Program) -> bool:
    return program.train_step is not None


OPERATORS = (
    Operator(
        name="head-alone-is-zeroed", cause="missing_zero_grad", half="held_out", symptoms=UNSTABLE, places=("loop", "optimizer"),
        on=("own-conv-bn", "deep-tanh11", "flight"), mutate=lambda p: p.having(train_step=head_alone_zeroed), fits=_standard,
    ),
    Operator(
        name="a-copy-is-zeroed", cause="missing_zero_grad", half="held_out", symptoms=UNSTABLE, places=("loop", "optimizer"),
        on=("own-deep-conv", "conv-elu"), mutate=lambda p: p.having(train_step=copy_zeroed), fits=_standard,
    ),
    Operator(
        name="kept-in-a-buffer", cause="missing_zero_grad", half="held_out", symptoms=UNSTABLE, places=("loop", "optimizer"),
        on=("deep-silu9", "own-normed"), mutate=lambda p: p.having(train_step=kept_in_a_buffer), fits=_standard,
    ),
    Operator(
        name="layers-in-a-plain-list", cause="frozen_params", half="held_out", symptoms=STILL, places=("layers", "optimizer"),
        on=("own-list",), mutate=lambda p: changed(p, plain_list=True), fits=is_own,
    ),
    Operator(
        name="features-under-no-grad", cause="frozen_params", half="held_out", symptoms=STILL, places=("layers", "loop", "optimizer"),
        on=("own-conv-digits",), mutate=lambda p: changed(p, blocked=True), fits=is_own,
    ),
    Operator(
        name="replaced-after-the-optimizer", cause="frozen_params", half="held_out", symptoms=STILL, places=("layers", "optimizer"),
        on=("own-rnn-rows", "ripples", "deep-silu9"), mutate=lambda p: p.having(trained=_old_head),
    ),
    Operator(
        name="first-quarter-alone", cause="frozen_params", half="held_out", symptoms=STILL, places=("layers", "optimizer"),
        on=("selu14", "own-deep-conv"), mutate=lambda p: p.having(trained=_early_features),
    ),
    Operator(
        name="momentum-of-another-library", cause="bn_stats", half="held_out", symptoms=GAP, places=("norms", "loop"),
        on=("own-normed", "own-conv-bn", "own-conv-digits"),
        mutate=lambda p: p.edited(swapped((nn.BatchNorm1d, nn.BatchNorm2d), _slow_statistics)), fits=_batch_norm,
    ),
    Operator(
        name="raw-data-pass-in-training-mode", cause="bn_stats", half="held_out", symptoms=GAP, places=("norms", "loop"),
        on=("own-normed", "own-conv-bn", "own-conv-digits"), mutate=lambda p: p.having(train_step=raw_forward_first), fits=_batch_norm,
    ),
    Operator(
        name="clipped-tensor-by-tensor", cause="over_clipped", half="held_out", symptoms=SLOW, places=("loop", "optimizer"),
        on=("deep-tanh11", "conv-elu", "own-encoder-post-sgd"), mutate=lambda p: p.having(train_step=tensor_by_tensor),
        fits=lambda p: p.optimizer == "sgd",
    ),
    Operator(
        name="clamping-hooks", cause="over_clipped", half="held_out", symptoms=SLOW, places=("loop", "optimizer", "layers"),
        on=("deep-silu9", "flight"), mutate=lambda p: p.edited(_clamping_hooks), fits=lambda p: p.optimizer == "sgd",
    ),
    Operator(
        name="clipped-before-backward", cause="no_grad_clip", half="held_out", symptoms=UNSTABLE, places=("loop", "optimizer"),
        on=("own-rnn-clipped", "deep-clipped10"), mutate=lambda p: p.having(train_step=clipped_before_backward), fits=_clipped,
    ),
    Operator(
        name="last-bias-alone-clipped", cause="no_grad_clip", half="held_out", symptoms=UNSTABLE, places=("loop", "optimizer"),
        on=("own-rnn-clipped", "deep-clipped10"), mutate=lambda p: p.having(train_step=head_alone_clipped), fits=_clipped,
    ),
    Operator(
        name="fixed-point-weights", cause="low_precision", half="held_out", symptoms=ROUNDED, places=("layers", "optimizer", "loop"),
        on=("own-gru", "deep-tanh11", "own-normed"), mutate=lambda p: p.having(train_step=fixed_point), fits=_standard,
    ),
    Operator(
        name="floats-of-eight-bits", cause="low_precision", half="held_out", symptoms=ROUNDED, places=("layers", "optimizer", "loop"),
        on=("deep-silu9",), mutate=lambda p: p.having(train_step=eight_bits), fits=_standard,
    ),
    Operator(
        name="half-gradients-unscaled", cause="low_precision", half="held_out", symptoms=ROUNDED,
        places=("layers", "optimizer", "loop"),
        on=("own-conv-digits", "conv-elu"), mutate=lambda p: p.having(train_step=half_gradients), fits=_standard,
    ),
)  # fmt: skip
