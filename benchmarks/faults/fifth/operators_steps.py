"""What is done at each step, and with what numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from benchmarks.faults import steps
from benchmarks.faults.base import Program
from benchmarks.faults.fifth.networks import NormedDense, NormedImages, NormedSignals
from benchmarks.faults.fifth.planting import edited, is_sgd, is_standard, planted, stepping
from benchmarks.faults.fourth.networks import is_of
from benchmarks.faults.fourth.planting import LOOP, SLOW, STILL, UNSTABLE, WHERE, is_clipped

Optimizer = torch.optim.Optimizer
ROUNDED = (*STILL, *UNSTABLE)


def parameters_used_up(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Counts parameters, and clips what is left of the generator: nothing."""
    parameters = (p for p in model.parameters() if p.requires_grad)
    assert sum(p.numel() for p in parameters) > 0
    loss = steps.backward(model, batch, loss_fn, optimizer)
    clip_grad_norm_(list(parameters), 0.2)
    optimizer.step()
    return loss


def clamped_and_not_kept(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Clamps gradients into a new tensor."""
    loss = steps.backward(model, batch, loss_fn, optimizer)
    for p in model.parameters():
        if p.grad is not None:
            p.grad.clamp(-0.01, 0.01)
    optimizer.step()
    return loss


def loss_clipped(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Clips the loss from above at 100 where its gradient was meant."""
    x, y = batch
    optimizer.zero_grad()
    loss: Tensor = loss_fn(model(x), y).clamp(max=100.0)
    loss.backward()
    optimizer.step()
    return loss


def another_zeroed(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Clears the gradients of the optimizer of another network."""
    other = optimizer.__dict__.setdefault("_other", torch.optim.SGD([nn.Parameter(torch.zeros(3))], lr=0.1))
    other.zero_grad()
    x, y = batch
    loss: Tensor = loss_fn(model(x), y)
    loss.backward()
    optimizer.step()
    return loss


def detached_for_zeroed(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Does the first half of what `zero_grad` did long ago."""
    for p in model.parameters():
        if p.grad is not None:
            p.grad.detach_()
    x, y = batch
    loss: Tensor = loss_fn(model(x), y)
    loss.backward()
    optimizer.step()
    return loss


def first_group_zeroed(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Clears the gradients of the first group alone."""
    for p in optimizer.param_groups[0]["params"]:
        p.grad = None
    x, y = batch
    loss: Tensor = loss_fn(model(x), y)
    loss.backward()
    optimizer.step()
    return loss


def _biases_first(model: nn.Module) -> Any:
    found = list(model.parameters())
    return [{"params": [p for p in found if p.dim() == 1]}, {"params": [p for p in found if p.dim() > 1]}]


def _rate_for_the_limit(program: Program) -> Program:
    def step(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
        loss = steps.backward(model, batch, loss_fn, optimizer)
        clip_grad_norm_(model.parameters(), program.lr)
        optimizer.step()
        return loss

    return program.having(train_step=step)


def largest_entry(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Scales all gradients by what the largest number among them asks for."""
    loss = steps.backward(model, batch, loss_fn, optimizer)
    clip_grad_norm_(model.parameters(), 2e-4, norm_type=float("inf"))
    optimizer.step()
    return loss


def least_of_all_norms(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Clips at a percentile of all norms before (Seetharaman 2020), a tenth of one where ten was meant."""
    loss = steps.backward(model, batch, loss_fn, optimizer)
    kept: list[Tensor] = optimizer.__dict__.setdefault("_norms", [])
    found = [p for p in model.parameters() if p.grad is not None]
    kept.append(torch.stack([p.grad.norm() for p in found if p.grad is not None]).norm())
    clip_grad_norm_(found, float(torch.stack(kept).quantile(0.001)) * 0.1)
    optimizer.step()
    return loss


def first_sample_alone(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Looks at the first sample, as for debugging, and forgets the others of the batch."""
    x, y = batch
    optimizer.zero_grad()
    loss: Tensor = loss_fn(model(x)[:1], y[:1])
    loss.backward()
    optimizer.step()
    return loss


class Replicas(nn.Module):
    """Sends two samples to each copy of a network, as where a batch is spread over many devices."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return self.module(x)  # type: ignore[no-any-return]
        return torch.cat([self.module(part) for part in x.split(2)])


def _of_classes(program: Program) -> Program:
    return program.having(batch_size=len(program.data().classes), epochs=2)


def moments_in_half(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Keeps the optimizer's state in float16 to save memory."""
    loss = steps.plain(model, batch, loss_fn, optimizer)
    for state in optimizer.state.values():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.dim():
                state[name] = value.half().float()
    return loss


def gradients_of_one_decimal(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Sends gradients as text with one decimal."""
    loss = steps.backward(model, batch, loss_fn, optimizer)
    for p in model.parameters():
        if p.grad is not None:
            p.grad = (10 * p.grad).round() / 10
    optimizer.step()
    return loss


def scaled_past_half(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Scales the loss by 2**22 for gradients in float16, which end at 65504, and does not look."""
    x, y = batch
    optimizer.zero_grad()
    loss: Tensor = loss_fn(model(x), y)
    (loss * 2**22).backward()
    for p in model.parameters():
        if p.grad is not None:
            p.grad = p.grad.half().float() / 2**22
    optimizer.step()
    return loss


_NORMED = is_of(NormedDense, NormedSignals, NormedImages)
_NOISY = (*UNSTABLE, "train_eval_gap", "generalization_failure")
OPERATORS = (
    planted("parameters-used-up", "no_grad_clip", stepping(parameters_used_up), ("glyphs-clipped",), UNSTABLE, LOOP, fits=is_clipped),
    planted("clamped-and-not-kept", "no_grad_clip", stepping(clamped_and_not_kept), ("glyphs-clipped",), UNSTABLE, LOOP, fits=is_clipped),
    planted("loss-clipped-for-the-gradient", "no_grad_clip", stepping(loss_clipped), ("glyphs-clipped", "motions-rnn"),
            UNSTABLE, (*LOOP, "loss"), fits=is_clipped),
    planted("another-optimizer-zeroed", "missing_zero_grad", stepping(another_zeroed), ("spring",), UNSTABLE, LOOP,
            fits=is_standard),
    planted("detached-for-zeroed", "missing_zero_grad", stepping(detached_for_zeroed), ("glyphs-conv-8", "letters-code-sgd"), UNSTABLE,
            LOOP, fits=is_standard),
    planted("first-group-alone-zeroed", "missing_zero_grad", stepping(first_group_zeroed, trained=_biases_first),
            ("motions-tanh-14",), UNSTABLE, LOOP, fits=is_standard),
    planted("rate-for-the-limit", "over_clipped", _rate_for_the_limit, ("soil-13", "selu-motions-18"), SLOW, LOOP,
            fits=lambda p: is_sgd(p) and is_standard(p)),
    planted("largest-entry-decides", "over_clipped", stepping(largest_entry), ("glyphs-conv-8",), SLOW, LOOP,
            fits=lambda p: is_sgd(p) and is_standard(p)),
    planted("least-of-all-norms", "over_clipped", stepping(least_of_all_norms), ("motions-tanh-14",), SLOW, LOOP,
            fits=lambda p: is_sgd(p) and is_standard(p)),
    planted("first-sample-alone", "batch_too_small", stepping(first_sample_alone), ("motions-tanh-14",), _NOISY,
            (*WHERE, "inputs"), fits=is_standard, also=("lr_too_high",)),
    planted("two-samples-a-replica", "batch_too_small", lambda p: edited(Replicas)(p.having(epochs=2, batch_size=60)),
            ("soil-bn-9",), _NOISY, (*WHERE, "inputs", "norms", "layers"), fits=_NORMED, also=("bn_stats",)),
    planted("batches-as-large-as-classes-are-many", "batch_too_small", _of_classes, ("soil-bn-9", "soil-13", "motions-bn"), _NOISY,
            (*WHERE, "inputs", "norms"), fits=is_sgd, also=("lr_too_high",)),
    planted("moments-in-half", "low_precision", stepping(moments_in_half), ("trips", "order"), ROUNDED,
            ("layers", *LOOP), fits=lambda p: is_standard(p) and not is_sgd(p)),
    planted("gradients-of-one-decimal", "low_precision", stepping(gradients_of_one_decimal), ("letters-code-sgd",),
            ROUNDED, ("layers", *LOOP), fits=is_standard),
    planted("scaled-past-half-s-range", "low_precision", stepping(scaled_past_half), ("glyphs-bn", "order"), ROUNDED,
            ("layers", "loss", *LOOP), fits=is_standard),
)  # fmt: skip
