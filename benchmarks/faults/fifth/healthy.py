"""Floors of the fifth set's data, and programs of it that look odd and are fine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.faults import steps
from benchmarks.faults.base import ModelEdit, Program
from benchmarks.faults.edits import ACTIVATIONS, ending, frozen, inputs, swapped
from benchmarks.faults.fifth import healthy_steps as odd
from benchmarks.faults.fifth.programs import PROGRAMS
from benchmarks.faults.pretrained import Pretrained
from evengrad.lab.data import Split

_pretrained = Pretrained(PROGRAMS.__getitem__, seed=500)
FLOORS = {  # accuracy, or share of variance explained (places: mean gain of both tasks), on the test set
    "glyphs": 0.85, "motions": 0.78, "soil": 0.88, "credit": 0.88, "yinyang": 0.86, "bands": 0.88, "scurve": 0.95, "phase": 0.85,
    "spring": 0.95, "trips": 0.93, "places": 0.85, "pairs": 0.78, "letters": 0.8, "order": 0.95, "thermostat": 0.95, "flag": 0.95,
    "flashcards": 0.95,
}  # fmt: skip


def unusual() -> list[tuple[Program, float]]:
    """Returns each program with the least score that says it is well."""
    return [(change(PROGRAMS[name]).having(name=f"{what}--{name}"), floor) for what, change, name, floor in _ODDITIES]


def _tuned(program: Program) -> Program:
    """Fine-tuning at a two-hundredth of the rate."""
    return _pretrained(program).having(lr=program.lr / 200, epochs=3, schedule=None)


def _head_alone(head: str) -> Callable[[Program], Program]:
    """Returns a change to a trained network whose head alone learns on."""
    return lambda p: _pretrained(p).edited(frozen(lambda name: name.startswith(head))).having(epochs=4, schedule=None)


def _tables_frozen(program: Program) -> Program:
    """Embeddings stay as they were drawn, as random features do."""
    return program.edited(frozen(lambda name: not name.startswith(("zone", "hour", "day"))))


class Late(nn.Module):
    """A ReLU that opens at 0.7: most units are off for a sample, none for all."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x - 0.7)


def _late(program: Program) -> Program:
    return program.edited(swapped(ACTIVATIONS, lambda old: Late())).having(epochs=2 * program.epochs)


def _zeroed(part: str) -> ModelEdit:
    """Returns an edit that starts parameters of these names from zero."""

    @torch.no_grad()
    def edit(model: nn.Module) -> nn.Module:
        for name, p in model.named_parameters():
            if part in name:
                p.zero_()
        return model

    return edit


def _one_hot(program: Program) -> Program:
    """Targets as one-hot numbers, a twentieth of them spread over all classes."""

    def edit(split: Split, seed: int) -> Split:
        count = len(split.classes)
        parts = [0.95 * F.one_hot(y, count).float() + 0.05 / count for y in (split.y_train, split.y_test)]
        return replace(split, classes=(), y_train=parts[0], y_test=parts[1])

    return program.with_data(edit).having(metric=odd.of_one_hot)


def _noisy_targets(split: Split, seed: int) -> Split:
    random = torch.Generator().manual_seed(8)
    parts = [y + 0.7 * torch.randn(y.shape, generator=random) for y in (split.y_train, split.y_test)]
    return replace(split, y_train=parts[0], y_test=parts[1])


def _weighted(program: Program) -> Program:
    """A class that is rare in training, and weights for it."""

    def edit(split: Split, seed: int) -> Split:
        keep = (split.y_train != 0) | (torch.arange(len(split.y_train)) % 5 == 0)
        return replace(split, x_train=split.x_train[keep], y_train=split.y_train[keep])

    weights = torch.ones(len(program.data().classes))
    weights[0] = 4.0
    return program.with_data(edit).having(loss=nn.CrossEntropyLoss(weight=weights))


def _probabilities(output: Tensor, targets: Tensor) -> Tensor:
    return F.binary_cross_entropy(output[:, 0], targets.to(output.dtype))


def _signed(split: Split) -> Callable[[nn.Module], float]:
    def right(model: nn.Module) -> float:
        with torch.no_grad():
            return float(((model(split.x_test)[:, 0] > 0.5).long() == split.y_test).float().mean())

    return right


def _adamw(**options: Any) -> Callable[[Program], Program]:
    return lambda p: p.having(optimizer="adamw", options=options)


def _longer(factor: int, **options: Any) -> Callable[[Program], Program]:
    return lambda p: p.having(epochs=factor * p.epochs, **options)


_ODDITIES: tuple[tuple[str, Callable[[Program], Program], str, float], ...] = (
    ("tuned-at-a-200th", _tuned, "glyphs-conv", 0.93),
    ("tuned-at-a-200th", _tuned, "order", 0.95),
    ("head-alone", _head_alone("out"), "glyphs-conv-8", 0.9),
    ("head-alone", _head_alone("out"), "rows-heads", 0.85),
    ("frozen-tables", _tables_frozen, "trips", 0.9),
    ("opens-late", _late, "glyphs-mlp", 0.9),
    ("opens-late", _late, "yinyang", 0.82),
    ("batches-of-900", _longer(5, batch_size=900), "glyphs-mlp", 0.93),
    ("full-batch", lambda p: p.having(batch_size=3000, epochs=300), "scurve", 0.95),
    ("batches-of-six", lambda p: p.having(batch_size=6, lr=p.lr / 8, epochs=6), "spring", 0.95),
    ("master-weights", lambda p: p.having(train_step=odd.master_weights), "glyphs-conv", 0.9),
    ("master-weights", lambda p: p.having(train_step=odd.master_weights), "phase", 0.8),
    ("autocast", lambda p: p.having(train_step=steps.autocast), "same-letter", 0.75),
    ("converged", _longer(5), "thermostat", 0.97),
    ("converged", _longer(4), "spring", 0.97),
    ("trained-on", lambda p: _pretrained(p).having(schedule=None, epochs=5), "motions-bn", 0.95),
    ("a-step-every-second-batch", lambda p: p.having(train_step=odd.every_second_batch, epochs=2 * p.epochs), "flashcards", 0.95),
    ("normalised", lambda p: p.having(train_step=odd.normalised, options={}, lr=0.05, schedule=odd.trapezoid), "spring", 0.95),
    ("noisy-gradients", lambda p: p.having(train_step=odd.noisy_gradients), "soil-13", 0.85),
    ("lookahead", lambda p: p.having(train_step=odd.lookahead), "rows-heads", 0.85),
    ("erased-in-part", _longer(2, train_step=odd.erased_in_part), "glyphs-bn", 0.9),
    ("staircase", lambda p: p.having(schedule=odd.staircase), "bands-dense", 0.88),
    ("triangles", lambda p: p.having(schedule=odd.triangles), "motions-tanh-14", 0.75),
    ("trapezoid", lambda p: p.having(schedule=odd.trapezoid), "flag", 0.95),
    ("by-logsumexp", lambda p: p.having(loss=odd.by_logsumexp), "motions-leaky-15", 0.8),
    ("margins", lambda p: p.having(loss=odd.margins, lr=2 * p.lr), "soil", 0.88),
    ("log-cosh", lambda p: p.having(loss=odd.log_cosh), "phase-dense", 0.9),
    ("charbonnier", lambda p: p.having(loss=odd.charbonnier, lr=p.lr / 2), "trips", 0.93),
    ("one-hot-targets", _one_hot, "glyphs-dense", 0.9),
    ("one-hot-targets", _one_hot, "motions-heads", 0.93),
    ("log-softmax-and-likelihood", lambda p: p.edited(ending(lambda: nn.LogSoftmax(1))).having(loss=nn.NLLLoss()), "motions-elu-11", 0.78),
    ("sigmoid-and-its-loss", lambda p: p.edited(ending(nn.Sigmoid)).having(loss=_probabilities, metric=_signed), "credit", 0.88),
    ("dropout-of-0.6", lambda p: p.with_net(dropout=0.6).having(epochs=2 * p.epochs), "glyphs-mlp", 0.85),
    ("decay-of-one", _adamw(weight_decay=1.0), "trips", 0.9),
    ("smoothed-by-0.3", lambda p: p.having(loss=nn.CrossEntropyLoss(label_smoothing=0.3)), "glyphs-conv-8", 0.85),
    ("zero-branches", lambda p: p.edited(_zeroed("back.")), "skips-16", 0.9),
    ("noisy-targets", lambda p: p.with_data(_noisy_targets).having(epochs=p.epochs // 2), "scurve", 0.5),
    ("rare-class-with-weights", _weighted, "motions-heads", 0.9),
    ("inputs-in-0-1", lambda p: p.with_data(inputs(lambda x: x.clamp(-2, 3) / 5 + 0.4)).having(epochs=2 * p.epochs), "glyphs-conv", 0.85),
    ("no-validation", lambda p: p.having(validated=False), "letter-and-place", 0.85),
)  # fmt: skip
