"""name -> healthy program of the fourth set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR

from benchmarks.faults import steps
from benchmarks.faults.base import Program
from benchmarks.faults.fourth import data
from benchmarks.faults.fourth import data_sequences as told
from benchmarks.faults.fourth.networks import Branches, ByHand, NormedTower, Pictures, ResidualPictures, Signals, Tower, custom
from benchmarks.faults.fourth.sequences import Bag, Code, Factors, Finder, Heads, Loop, Mixed, Mixer, PostNorm, Reader
from evengrad.lab.data import Split
from evengrad.lab.models import MLP, Net

MOMENTUM = {"momentum": 0.9}
NESTEROV = {"momentum": 0.9, "nesterov": True}


def binary(output: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy of one logit."""
    return F.binary_cross_entropy_with_logits(output.flatten(), targets.to(output.dtype))


def of_tags(split: Split) -> Callable[[nn.Module], float]:
    """Returns the share of the tags' variance that probabilities explain."""

    def explained(model: nn.Module) -> float:
        with torch.no_grad():
            left = (torch.sigmoid(model(split.x_test)) - split.y_test).square().mean()
        return max(-1.0, 1 - float(left / split.y_test.var(correction=0)))

    return explained


def ramp(share: float) -> Any:
    """Rate from 0 to its value over the first share of the steps; it stays there for a while, and falls to a twentieth as a line."""

    def schedule(optimizer: torch.optim.Optimizer, total: int) -> Any:
        warm = max(1, int(share * total))
        return LambdaLR(optimizer, lambda s: min((s + 1) / warm, max(0.05, (total - s) / (0.5 * total))) if s < total else 0.05)

    return schedule


def cosine(optimizer: torch.optim.Optimizer, total: int) -> Any:
    """Rate as a cosine to nearly nothing."""
    return CosineAnnealingLR(optimizer, total, eta_min=1e-5)


def _lab() -> list[Program]:
    stripes: dict[str, Any] = {"inputs": 144, "outputs": 5}
    lines: dict[str, Any] = {"inputs": 40, "outputs": 5}
    wave: dict[str, Any] = {"inputs": 48, "outputs": 5}
    flat, strongest = data.textures("flat"), lambda: data.spectra("strongest")
    return [
        _of("iris", "tabular", MLP(inputs=4, outputs=3, widths=(24, 12), initialiser="he_normal"), data.iris, 0.01, epochs=25,
            batch_size=15),
        _of("shells", "tabular", MLP(inputs=5, outputs=3, widths=(64, 48), activation="silu", initialiser="he_normal"), data.shells, 0.05,
            optimizer="sgd", options=MOMENTUM, epochs=20, batch_size=50),
        _of("hastie", "tabular", MLP(inputs=10, outputs=1, widths=(72, 36), activation="gelu", initialiser="he_normal"), data.hastie,
            3e-3, loss=binary, optimizer="adamw", options={"weight_decay": 0.02}, epochs=14, batch_size=60),
        _of("pinwheel", "points", MLP(inputs=2, outputs=5, depth=2, width=32, activation="tanh", initialiser="glorot_normal"),
            data.pinwheel, 3e-3, optimizer="rmsprop", epochs=15, batch_size=50),
        _of("arm", "regression", MLP(inputs=3, outputs=2, depth=2, width=48, activation="tanh", initialiser="glorot_normal"), data.arm,
            0.05, loss=nn.MSELoss(), optimizer="sgd", options=NESTEROV, epochs=20, batch_size=50),
        _of("impedance", "regression", MLP(inputs=4, outputs=1, widths=(64, 32), initialiser="he_normal"), data.impedance, 3e-3,
            loss=nn.MSELoss(), epochs=16, batch_size=50),
        _of("impedance-sgd", "regression", MLP(inputs=4, outputs=1, widths=(40, 40, 20), activation="elu", initialiser="lecun_normal"),
            data.impedance, 0.02, loss=nn.SmoothL1Loss(), optimizer="sgd", options=MOMENTUM, epochs=16, batch_size=60),
        _of("lines-15", "deep", MLP(**lines, depth=15, width=52, initialiser="he_normal"), strongest, 0.01, optimizer="sgd",
            options=MOMENTUM, epochs=12, batch_size=50, schedule=cosine),
        _of("lines-tanh-13", "deep", MLP(**lines, depth=13, width=44, activation="tanh", initialiser="glorot_normal"), strongest, 0.02,
            optimizer="sgd", options=NESTEROV, epochs=12, batch_size=50),
        _of("wave-10", "deep", MLP(**wave, depth=10, width=72, initialiser="he_uniform"), data.pulses("flat"), 1e-3, epochs=16,
            batch_size=50),
        _of("wave-leaky-17", "deep", MLP(**wave, depth=17, width=64, activation="leaky_relu(0.05)", initialiser="he_normal"),
            data.pulses("flat"), 7e-4, optimizer="adamw", epochs=16, batch_size=50),
        _of("stripes-clipped", "deep", MLP(**stripes, depth=9, width=64, initialiser="he_normal"), flat, 0.3, optimizer="sgd",
            options=MOMENTUM, epochs=14, train_step=steps.clipped(0.15)),
        _of("selu-stripes-16", "deep", MLP(**stripes, depth=16, width=56, activation="selu", initialiser="lecun_normal"), flat, 0.01,
            optimizer="sgd", options=MOMENTUM, epochs=10, batch_size=50),
        _of("selu-lines-22", "deep", MLP(**lines, depth=22, width=44, activation="selu", initialiser="lecun_normal"), strongest, 0.005,
            optimizer="sgd", options=MOMENTUM, epochs=10, batch_size=50),
        _of("selu-roll", "regression", MLP(inputs=3, outputs=1, depth=9, width=40, activation="selu", initialiser="lecun_normal"),
            data.roll, 1e-3, loss=nn.MSELoss(), optimizer="adamw", epochs=16, batch_size=50),
        _of("tags", "tabular", MLP(inputs=12, outputs=6, widths=(80,), initialiser="he_normal"), data.tags, 5e-3,
            loss=nn.BCEWithLogitsLoss(), epochs=14, batch_size=50, metric=of_tags),
    ]  # fmt: skip


def _custom() -> list[Program]:
    rows, steps_of_four = data.textures("rows"), data.pulses("steps")
    return [
        _of("flower-by-hand", "points", custom(ByHand, inputs=2, outputs=2), data.flower, 5e-3, epochs=25, batch_size=50),
        _of("flower-tower", "points", custom(Tower, inputs=2, outputs=1, widths=(40, 40), act=torch.tanh), data.flower, 0.01, loss=binary,
            epochs=30, batch_size=50),
        _of("roll-tower", "regression", custom(Tower, inputs=3, outputs=1, widths=(64, 64), act=F.silu), data.roll, 4e-3,
            loss=nn.L1Loss(), epochs=16, batch_size=50),
        _of("stripes-dropout", "mlp", custom(Tower, inputs=144, outputs=5, widths=(128, 64), drop=0.2), data.textures("flat"), 1e-3,
            optimizer="adamw", options={"weight_decay": 0.05}, epochs=14, batch_size=50),
        _of("lines-bn-9", "deep", custom(NormedTower, inputs=40, outputs=5), lambda: data.spectra("strongest"), 0.3, optimizer="sgd",
            options=MOMENTUM, epochs=10, batch_size=50, schedule=cosine),
        _of("pulses-bn", "conv", custom(Signals, outputs=5), data.pulses(), 0.3, optimizer="sgd", options=MOMENTUM, epochs=6,
            batch_size=50, schedule=cosine),
        _of("stripes-bn", "conv", custom(Pictures, outputs=5, channels=8), data.textures(), 0.15, optimizer="sgd", options=MOMENTUM,
            epochs=5, batch_size=50),
        _of("figures-plain", "conv", custom(Pictures, outputs=5, channels=16, depth=6, norm="none"), data.figures(), 2e-3, epochs=8,
            batch_size=50),
        _of("stripes-plain-9", "conv", custom(Pictures, outputs=5, channels=12, depth=9, norm="none"), data.textures(), 1e-3,
            optimizer="rmsprop", epochs=6, batch_size=50),
        _of("branches-20", "residual", custom(Branches, inputs=48, outputs=5, depth=20), data.pulses("flat"), 0.02, optimizer="sgd",
            options=MOMENTUM, epochs=12, batch_size=50),
        _of("branches-stripes", "residual", custom(Branches, inputs=144, outputs=5, width=32, depth=14), data.textures("flat"), 1e-3,
            optimizer="rmsprop", epochs=8, batch_size=50),
        _of("residual-figures", "residual", custom(ResidualPictures, outputs=5), data.figures(), 3e-3, optimizer="adamw", epochs=7,
            batch_size=50),
        _of("negations", "recurrent", custom(Reader, outputs=1, inputs=16, hidden=32, cell="lstm", vocabulary=40), told.reviews, 0.01,
            loss=binary, epochs=12, batch_size=50),
        _of("tides", "recurrent", custom(Reader, outputs=1, inputs=1, hidden=24, cell="lstm"), told.tides, 0.01, loss=nn.MSELoss(),
            epochs=10, batch_size=50),
        _of("ledger", "recurrent", custom(Reader, outputs=1, inputs=2, hidden=32, cell="gru"), told.ledger(), 0.01, loss=nn.MSELoss(),
            epochs=12, batch_size=50),
        _of("pulses-rnn", "recurrent", custom(Reader, outputs=5, inputs=4, hidden=48, cell="rnn", orthogonal=True), steps_of_four, 2e-3,
            epochs=14, batch_size=50),
        _of("pulses-loop", "recurrent", custom(Loop, inputs=4, outputs=5), steps_of_four, 0.06, optimizer="sgd", options=MOMENTUM,
            epochs=14, batch_size=50, train_step=steps.clipped(0.3)),
        _of("lookup", "attention", custom(Finder, inputs=13, outputs=5), told.lookup, 5e-3, epochs=14, batch_size=50),
        _of("topics-heads", "attention", custom(Heads, outputs=6, length=20, vocabulary=80, width=24, heads=2, depth=1),
            told.topics, 3e-3, optimizer="adamw", epochs=8, batch_size=50),
        _of("pulses-heads", "attention", custom(Heads, outputs=5, length=12, inputs=4, width=24, heads=3), steps_of_four, 3e-3, epochs=9,
            batch_size=50),
        _of("lines-post", "attention", custom(PostNorm, inputs=4, length=10, outputs=5), lambda: data.spectra("strongest in rows"), 8e-3,
            epochs=9, batch_size=50, schedule=ramp(0.4)),
        _of("pulses-post", "attention", custom(PostNorm, inputs=4, length=12, outputs=5, depth=5, width=28), steps_of_four, 9e-3,
            optimizer="adamw", epochs=9, batch_size=50, schedule=ramp(0.4)),
        _of("stripes-mixer", "attention", custom(Mixer, rows=12, inputs=12, outputs=5), rows, 3e-3, optimizer="adamw", epochs=8,
            batch_size=50),
        _of("ratings", "regression", custom(Factors, people=60, films=40), told.ratings, 0.02, loss=nn.MSELoss(), epochs=25,
            batch_size=50),
        _of("topics", "mlp", custom(Bag, vocabulary=80, outputs=6), told.topics, 0.01, epochs=12, batch_size=50),
        _of("churn", "tabular", custom(Mixed, numbers=6, outputs=1), data.churn, 5e-3, loss=binary, epochs=20, batch_size=50),
        _of("spectra-code", "regression", custom(Code, features=40), data.spectra, 3e-3, loss=nn.MSELoss(), epochs=16, batch_size=50),
        _of("digits-code", "regression", custom(Code, features=64, width=48, code=12, act=nn.Tanh), data.digit_codes, 0.2,
            loss=nn.MSELoss(), optimizer="sgd", options=NESTEROV, epochs=30, batch_size=40),
    ]  # fmt: skip


def _of(name: str, kind: str, net: Net, source: Callable[[], Split], lr: float, **fields: Any) -> Program:
    return Program(name=name, kind=kind, half="fourth", net=net, data=source, lr=lr, **fields)


PROGRAMS: dict[str, Program] = {p.name: p for p in [*_lab(), *_custom()]}
