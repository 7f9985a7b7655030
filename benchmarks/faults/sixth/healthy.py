"""Floors of the sixth set's data, and programs of it that are unusual and fine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.faults import steps
from benchmarks.faults.base import Program
from benchmarks.faults.edits import ending, frozen
from benchmarks.faults.fourth.networks import with_options
from benchmarks.faults.pretrained import Pretrained
from benchmarks.faults.sixth.programs import PROGRAMS

_pretrained = Pretrained(PROGRAMS.__getitem__, seed=600)
FLOORS = {  # accuracy, or share of variance explained, on the test set
    "clothes": 0.62, "pixels": 0.8, "diabetes": 0.4, "houses": 0.75, "rings": 0.95, "demand": 0.93, "reviews": 0.85,
}  # fmt: skip


def unusual() -> list[tuple[Program, float]]:
    """Returns each program with the least score that says it is well."""
    return [(change(PROGRAMS[name]).having(name=f"{what}--{name}"), floor) for what, change, name, floor in _ODDITIES]


def _transferred(program: Program) -> Program:
    """A trained network whose head alone learns on, at a third of the rate."""
    return _pretrained(program).edited(frozen(lambda name: name.startswith("fc"))).having(lr=program.lr / 3, epochs=3, schedule=None)


def _smaller(output: Tensor, targets: Tensor) -> Tensor:
    return 0.5 * F.mse_loss(output, targets) + 0.5 * F.l1_loss(output, targets)


def warmed(optimizer: torch.optim.Optimizer, total: int) -> Any:
    """From a tenth, over 20 steps."""
    return torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, 1.0, 20)


def _options(**options: Any) -> Callable[[Program], Program]:
    return lambda program: with_options(program, **options)


def _nll(program: Program) -> Program:
    return program.edited(ending(lambda: nn.LogSoftmax(1))).having(loss=nn.NLLLoss())


_ODDITIES: tuple[tuple[str, Callable[[Program], Program], str, float], ...] = (
    ("head-tuned", _transferred, "resnet", 0.65),
    ("leaky", _options(act=nn.LeakyReLU), "pixels-adam", 0.9),
    ("log-softmax-and-nll", _nll, "lenet-adam", 0.62),
    ("amsgrad", lambda p: p.with_options(amsgrad=True), "houses", 0.85),
    ("nesterov", lambda p: p.with_options(nesterov=True), "rings-tanh", 0.95),
    ("decay-of-5e-4", lambda p: p.with_options(weight_decay=5e-4), "vgg", 0.93),
    ("squares-and-distances", lambda p: p.having(loss=_smaller), "demand", 0.93),
    ("clipped-at-5", lambda p: p.having(train_step=steps.clipped(5.0)), "lstm-clothes", 0.7),
    ("clipped-at-1", lambda p: p.having(train_step=steps.clipped(1.0)), "encoder", 0.85),
    ("twice-the-epochs", lambda p: p.having(epochs=2 * p.epochs), "cancer-bce", 0.93),
    ("warmed-up", lambda p: p.having(schedule=warmed), "lenet-sgd", 0.65),
    ("dropout-of-a-half", lambda p: with_options(p, drop=0.5).having(epochs=2 * p.epochs), "pixels-adam", 0.9),
)  # fmt: skip
