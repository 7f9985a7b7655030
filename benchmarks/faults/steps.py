"""One step of training as people write it, healthy or not: (model, batch, loss function, optimizer) -> loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from evengrad.training import TrainStep


def backward(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    """Computes the loss and its gradient, from zero."""
    x, y = batch
    optimizer.zero_grad()
    loss: Tensor = loss_fn(model(x), y)
    loss.backward()
    return loss


def clipped(limit: float) -> TrainStep:
    """Clips the norm of the gradient."""
    return _clipping(clip_grad_norm_, limit)


def clipped_by_value(limit: float) -> TrainStep:
    """Clips every number of the gradient."""
    return _clipping(clip_grad_value_, limit)


def _clipping(clip: Callable[..., Any], limit: float) -> TrainStep:
    def step(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
        loss = backward(model, batch, loss_fn, optimizer)
        clip(model.parameters(), limit)
        optimizer.step()
        return loss

    return step


def accumulating(parts: int) -> TrainStep:
    """Adds the gradients of the parts of a batch, as where memory is short."""

    def step(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
        optimizer.zero_grad()
        total = torch.zeros(())
        for x, y in zip(batch[0].chunk(parts), batch[1].chunk(parts), strict=True):
            loss = loss_fn(model(x), y) * (len(x) / len(batch[0]))
            loss.backward()
            total = total + loss.detach()
        optimizer.step()
        return total

    return step


def autocast(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    """Runs the network in bfloat16 and keeps its weights in float32."""
    x, y = batch
    optimizer.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(x)
    loss: Tensor = loss_fn(out.float(), y)
    loss.backward()
    optimizer.step()
    return loss


def plain(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    """A standard step, written out."""
    loss = backward(model, batch, loss_fn, optimizer)
    optimizer.step()
    return loss
