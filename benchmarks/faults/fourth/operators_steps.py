"""What is done at each step, and with what numbers."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from benchmarks.faults import steps
from benchmarks.faults.base import Program
from benchmarks.faults.fourth.networks import NormedTower, Pictures, Signals, is_of
from benchmarks.faults.fourth.planting import LOOP, SLOW, STILL, UNSTABLE, WHERE, is_clipped, is_sgd, is_standard, planted

Optimizer = torch.optim.Optimizer
ROUNDED = (*STILL, "oscillating_loss", "loss_divergence", "nan_or_inf")


def parentheses_forgotten(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Names `zero_grad` and does not call it."""
    x, y = batch
    optimizer.zero_grad  # noqa: B018
    loss: Tensor = loss_fn(model(x), y)
    loss.backward()
    optimizer.step()
    return loss


def zeros_for_a_local_name(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Gives zeros to a variable in place of the gradient."""
    x, y = batch
    for p in model.parameters():
        grad = p.grad
        if grad is not None:
            grad = torch.zeros_like(grad)
    loss: Tensor = loss_fn(model(x), y)
    loss.backward()
    optimizer.step()
    return loss


def _once_an_epoch(program: Program) -> Program:
    batches = math.ceil(len(program.data().x_train) / program.batch_size)

    def step(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
        taken = getattr(optimizer, "_batches", 0)
        optimizer._batches = taken + 1  # type: ignore[attr-defined]
        if taken % batches == 0:  # outside the loop over batches
            optimizer.zero_grad()
        return parentheses_forgotten(model, batch, loss_fn, optimizer)

    return program.having(train_step=step)


def clipped_before_unscaling(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Clips gradients of a loss that is scaled for mixed precision."""
    x, y = batch
    optimizer.zero_grad()
    loss: Tensor = loss_fn(model(x), y)
    (loss * 65536).backward()
    clip_grad_norm_(model.parameters(), 1.0)
    for p in model.parameters():
        if p.grad is not None:
            p.grad /= 65536
    optimizer.step()
    return loss


def clipped_by_sum(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Clips the sum of magnitudes at what is meant for their norm."""
    loss = steps.backward(model, batch, loss_fn, optimizer)
    clip_grad_norm_(model.parameters(), 0.05, norm_type=1.0)
    optimizer.step()
    return loss


def clipped_adaptively(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Clips each gradient at 1e-5 of its weights, where 1e-2 was meant."""
    loss = steps.backward(model, batch, loss_fn, optimizer)
    for p in model.parameters():
        if p.grad is not None:
            p.grad *= (1e-5 * p.detach().norm().clamp(min=1e-3) / p.grad.norm().clamp(min=1e-12)).clamp(max=1.0)
    optimizer.step()
    return loss


def clipped_after_the_step(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Clips what has been used."""
    loss = steps.plain(model, batch, loss_fn, optimizer)
    clip_grad_norm_(model.parameters(), 0.2)
    return loss


def logged_and_not_clipped(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Asks for the norm as one does to log it."""
    loss = steps.backward(model, batch, loss_fn, optimizer)
    clip_grad_norm_(model.parameters(), float("inf"))
    optimizer.step()
    return loss


def parts_of_two(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Gathers the mean gradient of pairs: batch norm sees two samples at a time."""
    optimizer.zero_grad()
    parts = list(zip(batch[0].split(2), batch[1].split(2), strict=True))
    total = torch.zeros(())
    for x, y in parts:
        loss = loss_fn(model(x), y) / len(parts)
        loss.backward()
        total = total + loss.detach()
    optimizer.step()
    return total


def sample_by_sample(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Loops over the samples of a batch, with a step for each."""
    losses = [steps.plain(model, pair, loss_fn, optimizer).detach() for pair in zip(batch[0].split(1), batch[1].split(1), strict=True)]
    return torch.stack(losses).mean()


def as_integers(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Keeps weights as integers of four bits and a scale for each tensor."""
    loss = steps.plain(model, batch, loss_fn, optimizer)
    with torch.no_grad():
        for p in model.parameters():
            scale = p.abs().max().clamp(min=1e-8) / 7
            p.copy_((p / scale).round() * scale)
    return loss


def gradients_in_eight_bits(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Sends gradients as floats of eight bits, without a scale."""
    loss = steps.backward(model, batch, loss_fn, optimizer)
    for p in model.parameters():
        if p.grad is not None:
            p.grad = (p.grad / 64).to(torch.float8_e4m3fn).to(p.dtype) * 64  # the share of one of many workers
    optimizer.step()
    return loss


def two_decimals(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Writes weights as text with two decimals after each step, and reads them again."""
    loss = steps.plain(model, batch, loss_fn, optimizer)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_((p * 100).round() / 100)
    return loss


def _stepping(step: Any, **fields: Any) -> Any:
    return lambda program: program.having(train_step=step, **fields)


_NORMED = is_of(NormedTower, Pictures, Signals)
_NOISY = (*UNSTABLE, "train_eval_gap", "generalization_failure")
OPERATORS = (
    planted("parentheses-forgotten", "missing_zero_grad", _stepping(parentheses_forgotten), ("impedance-sgd", "stripes-bn"), UNSTABLE,
            LOOP, fits=is_standard),
    planted("zeros-for-a-local-name", "missing_zero_grad", _stepping(zeros_for_a_local_name), ("lines-tanh-13", "digits-code"), UNSTABLE,
            LOOP, fits=is_standard),
    planted("zeroed-once-an-epoch", "missing_zero_grad", _once_an_epoch, ("selu-stripes-16", "arm"), UNSTABLE, LOOP, fits=is_standard),
    planted("clipped-before-unscaling", "over_clipped", _stepping(clipped_before_unscaling), ("shells", "lines-15"), SLOW, LOOP,
            fits=is_sgd),
    planted("sum-of-magnitudes-clipped", "over_clipped", _stepping(clipped_by_sum), ("arm", "lines-tanh-13"), SLOW, LOOP, fits=is_sgd),
    planted("adaptive-clipping-of-1e-5", "over_clipped", _stepping(clipped_adaptively), ("impedance-sgd", "selu-stripes-16"), SLOW, LOOP,
            fits=is_sgd),
    planted("clipped-after-the-step", "no_grad_clip", _stepping(clipped_after_the_step), ("stripes-clipped", "pulses-loop"), UNSTABLE,
            LOOP, fits=is_clipped),
    planted("norm-logged-and-not-clipped", "no_grad_clip", _stepping(logged_and_not_clipped), ("stripes-clipped", "pulses-loop"),
            UNSTABLE, LOOP, fits=is_clipped),
    planted("pairs-through-batch-norm", "batch_too_small", _stepping(parts_of_two, epochs=2), ("lines-bn-9",),
            _NOISY, (*WHERE, "inputs", "norms"), fits=_NORMED),
    planted("a-step-for-each-sample", "batch_too_small", _stepping(sample_by_sample, epochs=1),
            ("selu-stripes-16", "selu-lines-22", "lines-tanh-13"), _NOISY, (*WHERE, "inputs"), also=("lr_too_high",), fits=is_sgd),
    planted("integers-of-four-bits", "low_precision", _stepping(as_integers), ("lines-15", "digits-code", "arm"), ROUNDED,
            ("layers", *LOOP), fits=is_standard),
    planted("gradients-in-eight-bits", "low_precision", _stepping(gradients_in_eight_bits), ("lines-tanh-13",), ROUNDED,
            ("layers", *LOOP), fits=is_standard),
    planted("weights-of-two-decimals", "low_precision", _stepping(two_decimals), ("impedance", "wave-10", "topics-heads"), ROUNDED,
            ("layers", *LOOP), fits=is_standard),
)  # fmt: skip
