"""Steps, schedules and losses that look odd and are right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.optim.lr_scheduler import CyclicLR, LambdaLR, MultiStepLR

from benchmarks.faults import steps
from evengrad.lab.data import Split

Optimizer = torch.optim.Optimizer


def every_second_batch(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Gathers the mean gradient of two batches before each step."""
    taken = optimizer.__dict__.setdefault("_taken", [0])
    x, y = batch
    loss: Tensor = loss_fn(model(x), y)
    (loss / 2).backward()
    taken[0] += 1
    if taken[0] % 2 == 0:
        optimizer.step()
        optimizer.zero_grad()
    return loss


def master_weights(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Computes with bfloat16 copies of weights that are kept in float32 (Micikevicius 2018)."""
    x, y = batch
    optimizer.zero_grad()
    halves = {name: p.to(torch.bfloat16) for name, p in model.named_parameters()}
    out = functional_call(model, halves, (x.to(torch.bfloat16),))
    loss: Tensor = loss_fn(out.float(), y)
    loss.backward()
    optimizer.step()
    return loss


def normalised(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Takes steps of one length: the gradient over its norm."""
    loss = steps.backward(model, batch, loss_fn, optimizer)
    found = [p.grad for p in model.parameters() if p.grad is not None]
    norm = torch.stack([g.norm() for g in found]).norm().clamp(min=1e-12)
    for g in found:
        g.div_(norm)
    optimizer.step()
    return loss


def noisy_gradients(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Adds noise that fades to the gradient (Neelakantan 2015)."""
    taken = optimizer.__dict__.setdefault("_taken", [0])
    taken[0] += 1
    loss = steps.backward(model, batch, loss_fn, optimizer)
    for p in model.parameters():
        if p.grad is not None:
            p.grad += 0.01 * (1 + taken[0]) ** -0.55 * torch.randn_like(p)
    optimizer.step()
    return loss


def lookahead(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Goes half of the way back every fifth step (Zhang 2019)."""
    taken = optimizer.__dict__.setdefault("_taken", [0])
    slow = optimizer.__dict__.setdefault("_slow", [p.detach().clone() for p in model.parameters()])
    loss = steps.plain(model, batch, loss_fn, optimizer)
    taken[0] += 1
    if taken[0] % 5 == 0:
        with torch.no_grad():
            for p, q in zip(model.parameters(), slow, strict=True):
                q.lerp_(p, 0.5)
                p.copy_(q)
    return loss


def erased_in_part(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Optimizer) -> Tensor:
    """Erases a fifth of each sample."""
    x, y = batch
    return steps.plain(model, (x * (torch.rand_like(x) > 0.2), y), loss_fn, optimizer)


def staircase(optimizer: Optimizer, total: int) -> Any:
    """A third of the rate behind each quarter."""
    return MultiStepLR(optimizer, [total // 4, total // 2, 3 * total // 4], 0.33)


def triangles(optimizer: Optimizer, total: int) -> Any:
    """Up and down four times (Smith 2017)."""
    rate = optimizer.param_groups[0]["lr"]
    return CyclicLR(optimizer, rate / 5, rate, step_size_up=max(1, total // 8), cycle_momentum=False)


def trapezoid(optimizer: Optimizer, total: int) -> Any:
    """Up within a twentieth, level, and down as a line over the last third."""
    return LambdaLR(optimizer, lambda s: max(0.0, min((s + 1) / (0.05 * total), 1.0, (total - s) / (0.33 * total))))


def by_logsumexp(output: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy written by hand, and stable."""
    return (output.logsumexp(1) - output.gather(1, targets[:, None])[:, 0]).mean()


def log_cosh(output: Tensor, targets: Tensor) -> Tensor:
    """The logarithm of a hyperbolic cosine, without overflow."""
    error = output - targets
    return (error + F.softplus(-2 * error) - 0.6931472).mean()


def margins(output: Tensor, targets: Tensor) -> Tensor:
    """A margin of 1 between the right class and each other (Weston 1999)."""
    return F.multi_margin_loss(output, targets)


def charbonnier(output: Tensor, targets: Tensor) -> Tensor:
    """A root of squares that is kept from zero."""
    return ((output - targets).square() + 1e-4).sqrt().mean()


def of_one_hot(split: Split) -> Callable[[nn.Module], float]:
    """Returns the accuracy where targets are one-hot."""

    def right(model: nn.Module) -> float:
        with torch.no_grad():
            return float((model(split.x_test).argmax(1) == split.y_test.argmax(1)).float().mean())

    return right
