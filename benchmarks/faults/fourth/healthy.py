"""Floors of the fourth set's data, and programs of it that look odd and are fine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, ExponentialLR, LambdaLR

from benchmarks.faults import steps
from benchmarks.faults.base import ModelEdit, Program
from benchmarks.faults.edits import ACTIVATIONS, ending, frozen, inputs, swapped
from benchmarks.faults.fourth.programs import PROGRAMS
from benchmarks.faults.pretrained import Pretrained
from evengrad.lab.data import Split

_pretrained = Pretrained(PROGRAMS.__getitem__, seed=300)
FLOORS = {  # accuracy, or share of variance explained, on the test set
    "textures": 0.9, "figures": 0.85, "pulses": 0.88, "iris": 0.9, "shells": 0.9, "hastie": 0.88, "pinwheel": 0.95, "flower": 0.9,
    "churn": 0.88, "arm": 0.95, "impedance": 0.95, "roll": 0.95, "ratings": 0.93, "reviews": 0.9, "topics": 0.9, "tides": 0.95,
    "ledger": 0.95, "lookup": 0.95, "spectra": 0.8, "spectra-lines": 0.85, "digit_codes": 0.85, "tags": 0.7,
}  # fmt: skip


def unusual() -> list[tuple[Program, float]]:
    """Returns each program with the least score that says it is well."""
    return [(change(PROGRAMS[name]).having(name=f"{what}--{name}"), floor) for what, change, name, floor in _ODDITIES]


def _tuned(program: Program) -> Program:
    """Fine-tuning at a three-hundredth of the rate."""
    return _pretrained(program).having(lr=program.lr / 300, epochs=3, schedule=None)


def _frozen_but(*parts: str) -> Callable[[Program], Program]:
    """Returns a change to a trained network of which only parameters of these names learn."""
    return lambda p: _pretrained(p).edited(frozen(lambda name: name.startswith(parts))).having(epochs=4, schedule=None)


def _head_anew(program: Program) -> Program:
    """A trained body that is frozen, and a head that starts anew."""

    def edit(model: nn.Module) -> nn.Module:
        found = {k: v for k, v in _pretrained.weights(program.name).items() if not k.startswith("head")}
        model.load_state_dict(found, strict=False)
        return model

    return program.edited(edit, frozen(lambda name: name.startswith("head")))


class Sparsest(nn.Module):
    """Keeps the largest fifth of the units of each sample."""

    def forward(self, x: Tensor) -> Tensor:
        least = x.topk(max(1, x.shape[1] // 5), dim=1).values[:, -1:]
        return torch.where(x >= least, x, torch.zeros_like(x)).relu()


def adaptive(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    """Clips each gradient at a twentieth of its weights."""
    loss = steps.backward(model, batch, loss_fn, optimizer)
    for p in model.parameters():
        if p.grad is not None:
            p.grad *= (0.05 * p.detach().norm().clamp(min=0.1) / p.grad.norm().clamp(min=1e-9)).clamp(max=1.0)
    optimizer.step()
    return loss


def scaled(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    """Scales the loss up for backward, and gradients down before they are clipped: right mixed precision."""
    x, y = batch
    optimizer.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(x)
    loss: Tensor = loss_fn(out.float(), y)
    (loss * 4096).backward()
    for p in model.parameters():
        if p.grad is not None:
            p.grad /= 4096
    clip_grad_norm_(model.parameters(), 5.0)
    optimizer.step()
    return loss


def sharpness_aware(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    """Takes the gradient a little uphill (Foret 2021)."""
    loss = steps.backward(model, batch, loss_fn, optimizer)
    found = [(p, p.grad.clone()) for p in model.parameters() if p.grad is not None]
    norm = torch.stack([g.norm() for _, g in found]).norm().clamp(min=1e-9)
    with torch.no_grad():
        for p, g in found:
            p.add_(g, alpha=float(0.02 / norm))
    steps.backward(model, batch, loss_fn, optimizer)
    with torch.no_grad():
        for p, g in found:
            p.sub_(g, alpha=float(0.02 / norm))
    optimizer.step()
    return loss


def mixed_up(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    """Mixes pairs of samples and their losses (Zhang 2018)."""
    x, y = batch
    share, order = float(torch.distributions.Beta(0.4, 0.4).sample()), torch.randperm(len(x))
    optimizer.zero_grad()
    out = model(share * x + (1 - share) * x[order])
    loss: Tensor = share * loss_fn(out, y) + (1 - share) * loss_fn(out, y[order])
    loss.backward()
    optimizer.step()
    return loss


def _noisy(std: float) -> Callable[[Program], Program]:
    def edit(split: Split, seed: int) -> Split:
        random = torch.Generator().manual_seed(6)
        return replace(split, x_train=split.x_train + std * torch.randn(split.x_train.shape, generator=random))

    return lambda program: program.with_data(edit)


def _zero_head(name: str) -> ModelEdit:
    @torch.no_grad()
    def edit(model: nn.Module) -> nn.Module:
        for p in model.get_submodule(name).parameters():
            p.zero_()
        return model

    return edit


def _restarts(optimizer: torch.optim.Optimizer, total: int) -> Any:
    return CosineAnnealingWarmRestarts(optimizer, max(1, total // 4))


def _slowly_down(optimizer: torch.optim.Optimizer, total: int) -> Any:
    return ExponentialLR(optimizer, 0.03 ** (1 / total))


def _root(optimizer: torch.optim.Optimizer, total: int) -> Any:
    return LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 40, (40 / (step + 1)) ** 0.5 * 1.5))


def _focal(output: Tensor, targets: Tensor) -> Tensor:
    found = F.cross_entropy(output, targets, reduction="none")
    return ((1 - (-found).exp()) ** 2 * found).mean()


def _one_hot_error(output: Tensor, targets: Tensor) -> Tensor:
    return (output - F.one_hot(targets, output.shape[1])).square().sum(1).mean()


def _unfinished(program: Program) -> Program:
    return program.having(epochs=max(2, program.epochs // 3))


_ODDITIES: tuple[tuple[str, Callable[[Program], Program], str, float], ...] = (
    ("tuned-at-a-300th", _tuned, "figures-plain", 0.93),
    ("tuned-at-a-300th", _tuned, "negations", 0.9),
    ("frozen-words", _frozen_but("decide", "mlps", "norms"), "topics-heads", 0.9),
    ("frozen-encoder", _frozen_but("decoder"), "spectra-code", 0.8),
    ("head-anew", _head_anew, "branches-20", 0.85),
    ("sparsest-fifth", lambda p: p.edited(swapped(ACTIVATIONS, lambda old: Sparsest())), "shells", 0.8),
    ("sparsest-fifth", lambda p: p.edited(swapped(ACTIVATIONS, lambda old: Sparsest())), "tags", 0.6),
    ("batches-of-600", lambda p: p.having(batch_size=600, epochs=5 * p.epochs, lr=2 * p.lr), "hastie", 0.88),
    ("full-batch", lambda p: p.having(batch_size=2000, epochs=300, options={"weight_decay": 1e-4}), "impedance", 0.95),
    ("scaled-bfloat16", lambda p: p.having(train_step=scaled), "stripes-plain-9", 0.88),
    ("scaled-bfloat16", lambda p: p.having(train_step=scaled), "stripes-mixer", 0.88),
    ("converged", lambda p: p.having(epochs=4 * p.epochs), "pinwheel", 0.95),
    ("trained-on", lambda p: _pretrained(p).having(schedule=None, epochs=4), "arm", 0.95),
    ("unfinished", _unfinished, "ledger", 0.8),
    ("adaptive-clipping", lambda p: p.having(train_step=adaptive), "lines-tanh-13", 0.85),
    ("sharpness-aware", lambda p: p.having(train_step=sharpness_aware), "stripes-bn", 0.88),
    ("mixed-up", lambda p: p.having(train_step=mixed_up, epochs=2 * p.epochs), "stripes-dropout", 0.9),
    ("noisy-inputs", _noisy(0.7), "selu-stripes-16", 0.85),
    ("zero-head", lambda p: p.edited(_zero_head("decide")), "lookup", 0.95),
    ("warm-restarts", lambda p: p.having(schedule=_restarts), "lines-15", 0.83),
    ("slowly-down", lambda p: p.having(schedule=_slowly_down), "wave-10", 0.85),
    ("inverse-root", lambda p: p.having(schedule=_root), "pulses-heads", 0.88),
    ("focal", lambda p: p.having(loss=_focal), "shells", 0.88),
    ("squares-of-one-hot", lambda p: p.having(loss=_one_hot_error, lr=p.lr / 3), "pinwheel", 0.93),
    ("tanh-for-targets-within-1", lambda p: p.edited(ending(nn.Tanh)), "digits-code", 0.82),
    ("dropout-of-0.5", lambda p: p.with_net(dropout=0.5).having(epochs=2 * p.epochs), "tags", 0.65),
    ("decay-of-0.3", lambda p: p.having(optimizer="adamw", lr=2e-3, options={"weight_decay": 0.3}, schedule=None), "lines-bn-9", 0.83),
    ("raw-but-small", lambda p: p.with_data(inputs(lambda x: 0.25 * x + 0.3)), "figures-plain", 0.8),
    ("no-validation", lambda p: p.having(validated=False), "ratings", 0.93),
    ("low-momentum-norms", lambda p: p.edited(swapped((nn.BatchNorm1d,), lambda old: _momentum(old, 0.02))), "pulses-bn", 0.88),
)  # fmt: skip


def _momentum(norm: nn.Module, value: float) -> nn.Module:
    assert isinstance(norm, nn.BatchNorm1d)
    norm.momentum = value
    return norm
