"""Changes of a built network and of data that operators are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from benchmarks.faults.base import DataEdit, ModelEdit


class Detach(nn.Module):
    """Cuts the graph."""

    def forward(self, h: Tensor) -> Tensor:
        return h.detach()


class Cast(nn.Module):
    """Turns numbers into another precision."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, h: Tensor) -> Tensor:
        return h.to(self.dtype)


class Unused(nn.Module):
    """Computes an activation and forgets its result."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, h: Tensor) -> Tensor:
        self.activation(h)
        return h


ACTIVATIONS = (nn.ReLU, nn.Tanh, nn.GELU, nn.SELU, nn.SiLU, nn.Sigmoid, nn.ELU)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)


def ending(module: Callable[[], nn.Module]) -> ModelEdit:
    """Returns an edit that puts a module behind the output."""
    return lambda model: nn.Sequential(*model, module()) if isinstance(model, nn.Sequential) else nn.Sequential(model, module())


def swapped(kinds: tuple[type[nn.Module], ...], new: Callable[[nn.Module], nn.Module]) -> ModelEdit:
    """Returns an edit that replaces every module of these kinds."""

    def edit(model: nn.Module) -> nn.Module:
        for parent in list(model.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, kinds):
                    setattr(parent, name, new(child))
        return model

    return edit


def weights(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Returns the weight matrices and kernels, in order; the last is the head's."""
    return [(name, p) for name, p in model.named_parameters() if p.dim() > 1]


def scaled_weights(factor: float, *, head: bool = False) -> ModelEdit:
    """Returns an edit that multiplies weights, the head's too if asked for."""

    @torch.no_grad()
    def edit(model: nn.Module) -> nn.Module:
        found = weights(model)
        for _, p in found if head else found[:-1]:
            p.mul_(factor)
        return model

    return edit


def scaled_named(part: str, factor: float) -> ModelEdit:
    """Returns an edit that multiplies the parameters whose names hold `part`."""

    @torch.no_grad()
    def edit(model: nn.Module) -> nn.Module:
        for name, p in model.named_parameters():
            if part in name:
                p.mul_(factor)
        return model

    return edit


def drawn(fill: Callable[[Tensor], object], *, biases: bool = True) -> ModelEdit:
    """Returns an edit that fills every weight anew, and sets biases to zero."""

    @torch.no_grad()
    def edit(model: nn.Module) -> nn.Module:
        for module in model.modules():
            if isinstance(module, NORMS):
                continue
            for name, p in module.named_parameters(recurse=False):
                if p.dim() > 1:
                    fill(p)
                elif biases and "bias" in name:
                    p.zero_()
        return model

    return edit


def cut_before_head(model: nn.Module) -> nn.Module:
    """Detaches what the head gets."""
    assert isinstance(model, nn.Sequential)
    modules = list(model)
    return nn.Sequential(*modules[:-1], Detach(), modules[-1])


def cut_in_the_middle(model: nn.Module) -> nn.Module:
    """Detaches the second half from the first."""
    assert isinstance(model, nn.Sequential)
    modules = list(model)
    return nn.Sequential(*modules[: len(model) // 2], Detach(), *modules[len(model) // 2 :])


def in_precision(dtype: torch.dtype) -> ModelEdit:
    """Returns an edit that keeps weights, and computes, in another precision."""
    return lambda model: nn.Sequential(Cast(dtype), model.to(dtype), Cast(torch.float32))


def frozen(keep: Callable[[str], bool]) -> ModelEdit:
    """Returns an edit that freezes all parameters but those whose names are kept."""

    def edit(model: nn.Module) -> nn.Module:
        for name, p in model.named_parameters():
            p.requires_grad_(keep(name))
        return model

    return edit


def inputs(change: Callable[[Tensor], Tensor]) -> DataEdit:
    """Returns an edit of all inputs."""
    return lambda split, seed: replace(split, x_train=change(split.x_train), x_test=change(split.x_test))


def training_inputs(change: Callable[[Tensor, torch.Generator], Tensor]) -> DataEdit:
    """Returns an edit of the inputs to train on."""
    return lambda split, seed: replace(split, x_train=change(split.x_train.clone(), torch.Generator().manual_seed(seed)))


def targets(change: Callable[[Tensor], Tensor]) -> DataEdit:
    """Returns an edit of all targets."""
    return lambda split, seed: replace(split, y_train=change(split.y_train), y_test=change(split.y_test))


def training_targets(change: Callable[[Tensor, torch.Generator], Tensor]) -> DataEdit:
    """Returns an edit of the targets to train on."""
    return lambda split, seed: replace(split, y_train=change(split.y_train.clone(), torch.Generator().manual_seed(seed)))
