"""Floors of the held-out data, and held-out programs that look odd and are fine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.faults import steps
from benchmarks.faults.base import Loss, ModelEdit, Program
from benchmarks.faults.edits import ending, frozen, inputs, training_targets
from benchmarks.faults.held_out.programs import PROGRAMS, losing
from benchmarks.faults.pretrained import Pretrained
from evengrad.lab.data import Split

_pretrained = Pretrained(PROGRAMS.__getitem__, seed=200)
FLOORS = {  # accuracy, or share of variance explained, on the test set
    "garments": 0.7, "shoes": 0.87, "digits_1200": 0.8, "even_digits": 0.93, "tumours": 0.9, "wines": 0.9, "rings": 0.88,
    "checkers": 0.9, "clouds": 0.88, "crescents": 0.95, "ripples": 0.9, "flight": 0.9, "chirp": 0.9, "shapes": 0.9, "signal": 0.9,
    "discounted": 0.9, "votes": 0.9,
}  # fmt: skip


def unusual() -> list[tuple[Program, float]]:
    """Returns each program with the least score that says it is well."""
    return [(change(PROGRAMS[name]).having(name=f"{what}--{name}"), floor) for what, change, name, floor in _ODDITIES]


def _frozen_stem(program: Program) -> Program:
    return _pretrained(program).edited(frozen(lambda name: not name.startswith(("conv1", "bn1")))).having(epochs=3, lr=program.lr / 10)


def norms_in_eval(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    """Fine-tunes with the statistics of before, as is usual with small batches."""
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.eval()
    return steps.plain(model, batch, loss_fn, optimizer)


def _norms_kept(program: Program) -> Program:
    return _pretrained(program).having(lr=program.lr / 50, epochs=4, schedule=None, train_step=norms_in_eval)


def _filled(part: str) -> ModelEdit:
    """Returns an edit that starts parameters whose names hold `part` from zero."""

    @torch.no_grad()
    def edit(model: nn.Module) -> nn.Module:
        for name, p in model.named_parameters():
            if part in name:
                p.zero_()
        return model

    return edit


def _some_wrong(y: Tensor, random: torch.Generator) -> Tensor:
    wrong = torch.rand(len(y), generator=random) < 0.12
    return torch.where(wrong, torch.randint(int(y.max()) + 1, y.shape, generator=random), y)


def _bce_of_probability(output: Tensor, targets: Tensor) -> Tensor:
    return F.binary_cross_entropy(output[:, 0], targets.float())


def _accuracy_of_probability(split: Split) -> Callable[[nn.Module], float]:
    def accuracy(model: nn.Module) -> float:
        with torch.no_grad():
            return float(((model(split.x_test)[:, 0] > 0.5) == split.y_test).float().mean())

    return accuracy


def _with_probability(program: Program) -> Program:
    return losing(program, _bce_of_probability).edited(ending(nn.Sigmoid)).having(metric=_accuracy_of_probability)


def _with_log_softmax(program: Program) -> Program:
    return losing(program, F.nll_loss).edited(ending(lambda: nn.LogSoftmax(-1)))


def _summed(program: Program) -> Program:
    loss: Loss = nn.MSELoss(reduction="sum")
    return losing(program, loss).having(lr=program.lr / program.batch_size)


def _cyclic(optimizer: torch.optim.Optimizer, total: int) -> Any:
    base = optimizer.param_groups[0]["lr"]
    return torch.optim.lr_scheduler.CyclicLR(optimizer, base / 5, base, step_size_up=total // 6, cycle_momentum=False)


def _weighted(program: Program) -> Program:
    return losing(program, nn.CrossEntropyLoss(weight=torch.linspace(0.5, 1.5, 10)))


def _small_batches(program: Program) -> Program:
    return program.having(batch_size=8, lr=program.lr / 5, epochs=max(2, program.epochs // 3))


def _duplicated(split: Split, seed: int) -> Split:
    """A third of the features is constant."""
    blank = torch.zeros(64, dtype=torch.bool)
    blank[::3] = True
    return replace(split, x_train=split.x_train.masked_fill(blank, 0.0), x_test=split.x_test.masked_fill(blank, 0.0))


_ODDITIES: tuple[tuple[str, Callable[[Program], Program], str, float], ...] = (
    ("fine-tuned", lambda p: _pretrained(p).having(lr=p.lr / 50, epochs=4), "own-conv-digits", 0.93),
    ("frozen-stem", _frozen_stem, "own-conv-bn", 0.88),
    ("norms-in-eval", _norms_kept, "own-normed", 0.7),
    ("zero-head", lambda p: p.edited(_filled("head")), "own-encoder", 0.8),
    ("zero-branches", lambda p: p.edited(_filled("fc2")), "own-blocks", 0.85),
    ("noisy-labels", lambda p: p.with_data(training_targets(_some_wrong)), "garments-adagrad", 0.65),
    ("sigmoid-and-bce", _with_probability, "parity", 0.93),
    ("log-softmax-and-nll", _with_log_softmax, "own-rnn-rows", 0.88),
    ("summed-at-a-small-rate", _summed, "flight", 0.9),
    ("cyclic", lambda p: p.having(schedule=_cyclic), "deep-silu9", 0.85),
    ("weighted-classes", _weighted, "digits-mish", 0.9),
    ("small-batches", _small_batches, "conv-elu", 0.85),
    ("full-batch", lambda p: p.having(batch_size=1000, epochs=250, lr=p.lr * 2), "wines", 0.9),
    ("no-first-moment", lambda p: p.having(options={"betas": (0.0, 0.99)}), "own-checkers", 0.88),
    ("black-and-white", lambda p: p.with_data(inputs(lambda x: (x > 0).float())), "own-deep-conv", 0.85),
    ("blank-features", lambda p: p.with_data(_duplicated), "own-blocks", 0.8),
    ("clipped-most-steps", lambda p: p.having(train_step=steps.clipped(0.5)), "deep-tanh11", 0.65),
    ("one-sigmoid-layer", lambda p: p.with_net(activation="sigmoid", initialiser="glorot_normal"), "clouds", 0.88),
    ("half-the-epochs", lambda p: p.having(epochs=p.epochs // 2), "own-gru", 0.85),
)  # fmt: skip
