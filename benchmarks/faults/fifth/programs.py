"""name -> healthy program of the fifth set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR

from benchmarks.faults import steps
from benchmarks.faults.base import Program
from benchmarks.faults.fifth import data
from benchmarks.faults.fifth import data_sequences as told
from benchmarks.faults.fifth.losses import both, likelihood, of_both, of_mean, two_classes
from benchmarks.faults.fifth.networks import (
    Dense,
    Gated,
    Images,
    NormedDense,
    NormedImages,
    NormedSignals,
    Retold,
    Rides,
    Skips,
    Twins,
    TwoTasks,
)
from benchmarks.faults.fifth.sequences import Cards, Cells, Patches, Posted, Words
from benchmarks.faults.fourth.networks import custom
from evengrad.lab.data import Split
from evengrad.lab.models import MLP, Net

MOMENTUM = {"momentum": 0.9}
NESTEROV = {"momentum": 0.85, "nesterov": True}
HEAVY = {"momentum": 0.95}


def slow_start(share: float) -> Any:
    """Rate from 0 to its value over the first share of the steps, and as a parabola to a fiftieth behind it."""

    def schedule(optimizer: torch.optim.Optimizer, total: int) -> Any:
        warm = max(1, int(share * total))
        return LambdaLR(optimizer, lambda s: min((s + 1) / warm, max(0.02, (max(0, total - s) / total / (1 - share)) ** 2)))

    return schedule


def one_cycle(optimizer: torch.optim.Optimizer, total: int) -> Any:
    """Up for three tenths of the steps, and down (Smith 2018)."""
    return OneCycleLR(optimizer, optimizer.param_groups[0]["lr"], total_steps=total + 1)


def _lab() -> list[Program]:
    flat, moved = data.glyphs("flat"), data.motions("flat")
    letter: dict[str, Any] = {"inputs": 100, "outputs": 6}
    motion: dict[str, Any] = {"inputs": 108, "outputs": 5}
    ground: dict[str, Any] = {"inputs": 14, "outputs": 4}
    return [
        _of("glyphs-mlp", "mlp", MLP(**letter, widths=(120, 60), initialiser="he_uniform"), flat, 1.5e-3, optimizer="adamw",
            options={"weight_decay": 0.03}, epochs=14, batch_size=45),
        _of("soil", "tabular", MLP(**ground, widths=(72, 56), activation="mish", initialiser="he_normal"), data.soil, 0.03,
            optimizer="sgd", options=HEAVY, epochs=18, batch_size=70),
        _of("soil-13", "deep", MLP(**ground, depth=13, width=50, initialiser="he_normal"), data.soil, 0.01, optimizer="sgd",
            options=MOMENTUM, epochs=14, batch_size=60),
        _of("motions-tanh-14", "deep", MLP(**motion, depth=14, width=42, activation="tanh", initialiser="glorot_uniform"), moved, 0.01,
            optimizer="sgd", options=NESTEROV, epochs=12, batch_size=45),
        _of("motions-leaky-15", "deep", MLP(**motion, depth=15, width=60, activation="leaky_relu(0.1)", initialiser="he_normal"), moved,
            5e-4, optimizer="rmsprop", epochs=10, batch_size=45),
        _of("motions-elu-11", "deep", MLP(**motion, depth=11, width=54, activation="elu", initialiser="he_normal"), moved, 6e-4,
            epochs=10, batch_size=45, schedule=one_cycle),
        _of("glyphs-clipped", "deep", MLP(**letter, depth=10, width=56, initialiser="he_normal"), flat, 0.3, optimizer="sgd",
            options=MOMENTUM, epochs=12, batch_size=60, train_step=steps.clipped(0.2)),
        _of("selu-soil-24", "deep", MLP(**ground, depth=24, width=48, activation="selu", initialiser="lecun_normal"), data.soil, 0.004,
            optimizer="sgd", options=MOMENTUM, epochs=12, batch_size=60),
        _of("selu-motions-18", "deep", MLP(**motion, depth=18, width=52, activation="selu", initialiser="lecun_normal"), moved, 0.006,
            optimizer="sgd", options=MOMENTUM, epochs=10, batch_size=50),
        _of("scurve", "regression", MLP(inputs=3, outputs=1, widths=(56, 28), activation="gelu", initialiser="he_normal"), data.scurve,
            4e-3, loss=nn.HuberLoss(), optimizer="adamw", epochs=16, batch_size=50),
        _of("phase", "regression", MLP(inputs=4, outputs=1, widths=(64, 64), initialiser="he_normal"), data.phase, 2e-3,
            loss=nn.MSELoss(), optimizer="rmsprop", epochs=25, batch_size=45),
        _of("spring", "regression", MLP(inputs=4, outputs=2, widths=(44, 44, 22), activation="tanh", initialiser="glorot_normal"),
            data.spring, 0.04, loss=nn.MSELoss(), optimizer="sgd", options=MOMENTUM, epochs=20, batch_size=50),
        _of("yinyang", "points", MLP(inputs=2, outputs=3, widths=(60, 60), initialiser="he_normal"), data.yinyang, 3e-3, epochs=30,
            batch_size=45),
    ]  # fmt: skip


def _custom() -> list[Program]:
    image, moved = data.glyphs("image"), data.motions("flat")
    signal, steps_of_nine, rows = data.motions("signal"), data.motions("steps"), data.glyphs("rows")
    return [
        _of("bands-dense", "points", custom(Dense, inputs=2, outputs=3, widths=(48, 48, 48), act=torch.tanh), data.bands, 6e-3, epochs=30,
            batch_size=60),
        _of("phase-dense", "regression", custom(Dense, inputs=4, outputs=1, widths=(60, 60), act=F.silu), data.phase, 0.06,
            loss=nn.MSELoss(), optimizer="sgd", options=MOMENTUM, epochs=25, batch_size=45),
        _of("glyphs-dense", "mlp", custom(Dense, inputs=100, outputs=6, widths=(130, 70), drop=0.25), data.glyphs("flat"), 1.5e-3,
            epochs=14, batch_size=45),
        _of("credit", "tabular", custom(Gated, inputs=9, outputs=1, width=56), data.credit, 6e-3, loss=two_classes, optimizer="adamw",
            options={"weight_decay": 0.1}, epochs=16, batch_size=50),
        _of("scurve-gated", "regression", custom(Gated, inputs=3, outputs=1, width=48), data.scurve, 0.04, loss=nn.MSELoss(),
            optimizer="sgd", options=MOMENTUM, epochs=18, batch_size=50),
        _of("soil-bn-9", "deep", custom(NormedDense, inputs=14, outputs=4, depth=9), data.soil, 0.25, optimizer="sgd", options=MOMENTUM,
            epochs=14, batch_size=60, schedule=slow_start(0.05)),
        _of("motions-bn", "conv", custom(NormedSignals, inputs=3, outputs=5), signal, 0.25, optimizer="sgd", options=MOMENTUM, epochs=6,
            batch_size=45),
        _of("glyphs-bn", "conv", custom(NormedImages, outputs=6), image, 0.2, optimizer="sgd", options=MOMENTUM, epochs=7, batch_size=45),
        _of("glyphs-conv", "conv", custom(Images, outputs=6, act=nn.GELU), image, 3e-3, optimizer="adamw", epochs=7, batch_size=45),
        _of("glyphs-conv-8", "conv", custom(Images, outputs=6, channels=12, depth=8), image, 0.03, optimizer="sgd", options=MOMENTUM,
            epochs=10, batch_size=60),
        _of("skips-16", "residual", custom(Skips, inputs=108, outputs=5, depth=16), moved, 0.02, optimizer="sgd", options=MOMENTUM,
            epochs=8, batch_size=45),
        _of("skips-tanh-18", "residual", custom(Skips, inputs=14, outputs=4, depth=18, act=torch.tanh), data.soil, 2e-3, epochs=12,
            batch_size=60),
        _of("same-letter", "mlp", custom(Twins, inputs=100), data.pairs, 3e-3, loss=two_classes, epochs=20, batch_size=50),
        _of("letter-and-place", "conv", custom(TwoTasks, classes=6), data.places, 2e-3, loss=both, epochs=9, batch_size=45,
            metric=of_both),
        _of("phase-likelihood", "regression", custom(Dense, inputs=4, outputs=2, widths=(64, 48)), data.phase, 2e-3, loss=likelihood,
            epochs=25, batch_size=45, metric=of_mean),
        _of("letters-code", "regression", custom(Retold, features=100), data.letters, 4e-3, loss=nn.MSELoss(), epochs=25, batch_size=50),
        _of("letters-code-sgd", "regression", custom(Retold, features=100, code=16, drop=0.0, act=nn.Tanh), data.letters, 0.5,
            loss=nn.MSELoss(), optimizer="sgd", options=MOMENTUM, epochs=30, batch_size=50),
        _of("trips", "regression", custom(Rides), data.trips, 8e-3, loss=nn.SmoothL1Loss(), epochs=14, batch_size=50),
        _of("order", "recurrent", custom(Words, vocabulary=20, outputs=4), told.order, 0.015, epochs=12, batch_size=50),
        _of("thermostat", "recurrent", custom(Cells, inputs=2, outputs=1), told.thermostat(), 0.015, loss=nn.MSELoss(), epochs=9,
            batch_size=60),
        _of("flag", "recurrent", custom(Cells, inputs=4, outputs=4, cell="rnn"), told.flag, 4e-3, epochs=10, batch_size=50),
        _of("motions-rnn", "recurrent", custom(Cells, inputs=9, outputs=5, hidden=36, cell="rnn"), steps_of_nine, 0.15, optimizer="sgd",
            options=MOMENTUM, epochs=10, batch_size=45, train_step=steps.clipped(0.25)),
        _of("flashcards", "attention", custom(Cards, inputs=14, outputs=4), told.flashcards, 8e-3, epochs=14, batch_size=50),
        _of("rows-heads", "attention", custom(Patches, inputs=10, length=10, outputs=6), rows, 4e-3, optimizer="adamw", epochs=8,
            batch_size=50),
        _of("motions-heads", "attention", custom(Patches, inputs=9, length=12, outputs=5, depth=1, normed=False), steps_of_nine, 5e-3,
            epochs=7, batch_size=60),
        _of("cards-heads", "attention", custom(Patches, inputs=14, length=7, outputs=4, depth=1, normed=False, last=True), told.flashcards,
            5e-3, epochs=9, batch_size=50),
        _of("motions-post", "attention", custom(Posted, inputs=18, length=6, outputs=5), data.motions("parts"), 9e-3, epochs=6,
            batch_size=75, schedule=slow_start(0.4)),
        _of("rows-post", "attention", custom(Posted, inputs=10, length=10, outputs=6, width=28, depth=5, heads=2), rows, 0.012,
            optimizer="adamw", epochs=7, batch_size=75, schedule=slow_start(0.4)),
    ]  # fmt: skip


def _of(name: str, kind: str, net: Net, source: Callable[[], Split], lr: float, **fields: Any) -> Program:
    return Program(name=name, kind=kind, half="fifth", net=net, data=source, lr=lr, **fields)


PROGRAMS: dict[str, Program] = {p.name: p for p in [*_lab(), *_custom()]}
