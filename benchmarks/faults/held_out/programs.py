"""name -> healthy program of the held-out half: other networks, data and optimizers than those that rules were made with."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.faults import steps
from benchmarks.faults.base import Loss, Program
from benchmarks.faults.held_out import data
from benchmarks.faults.held_out.networks import (
    Blocks,
    ConvNet,
    DeepConv,
    Encoder,
    LastState,
    Listed,
    Normed,
    Own,
    Packed,
    Plain,
    Tokens,
    Written,
    own,
)
from evengrad.lab.models import CNN, MLP, Net

NESTEROV = {"momentum": 0.9, "nesterov": True}


def bce(output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of one logit."""
    return F.binary_cross_entropy_with_logits(output[:, 0], targets.float())


def one_cycle(optimizer: torch.optim.Optimizer, total: int) -> Any:
    """Rate up to three times its value and down again."""
    peak = [3 * group["lr"] for group in optimizer.param_groups]
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=total + 1, cycle_momentum=False)


def linear_warm_up(share: float) -> Any:
    """Rate from 0 over the first share of the steps, and linearly to 0 over the rest."""

    def schedule(optimizer: torch.optim.Optimizer, total: int) -> Any:
        warm = max(1, int(share * total))
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min((s + 1) / warm, max(0.0, (total - s) / (total - warm))))

    return schedule


def polynomial(optimizer: torch.optim.Optimizer, total: int) -> Any:
    """Rate falls to 0 as a square."""
    return torch.optim.lr_scheduler.PolynomialLR(optimizer, total, power=2.0)


def _lab() -> list[Program]:
    cloth: dict[str, Any] = {"inputs": 49, "outputs": 10}
    pixels: dict[str, Any] = {"inputs": 64, "outputs": 10}
    return [
        _of("garments-adagrad", "mlp", MLP(**cloth, widths=(96, 48), initialiser="he_uniform"), data.garments, 0.03, optimizer="adagrad",
            epochs=7),
        _of("digits-mish", "mlp", MLP(**pixels, widths=(80,), activation="mish", initialiser="he_normal"), data.digits, 0.1,
            optimizer="sgd", epochs=20, batch_size=40),
        _of("parity", "mlp", MLP(inputs=64, outputs=1, widths=(64, 32), activation="leaky_relu(0.1)", initialiser="he_normal"),
            data.even_digits, 3e-3, loss=bce, epochs=10, batch_size=50),
        _of("deep-silu9", "deep", MLP(**pixels, depth=9, width=56, activation="silu", initialiser="he_normal"), data.digits, 0.02,
            optimizer="sgd", options=NESTEROV, epochs=12, batch_size=50),
        _of("deep-tanh11", "deep", MLP(**cloth, depth=11, width=64, activation="tanh", initialiser="glorot_uniform"), data.garments, 0.01,
            optimizer="sgd", options=NESTEROV, epochs=8, schedule=polynomial),
        _of("deep-relu18", "deep", MLP(**pixels, depth=18, width=64, initialiser="he_normal"), data.digits, 4e-4, epochs=14,
            batch_size=50),
        _of("deep-relu13", "deep", MLP(**cloth, depth=13, width=56, initialiser="he_uniform"), data.garments, 0.01, optimizer="sgd",
            options=NESTEROV, epochs=10, schedule=one_cycle),
        _of("deep-prelu20", "deep", MLP(**pixels, depth=20, width=48, activation="prelu", initialiser="he_normal"), data.digits, 5e-3,
            optimizer="sgd", options=NESTEROV, epochs=14, batch_size=50),
        _of("deep-clipped10", "deep", MLP(**cloth, depth=10, width=48, initialiser="he_normal"), data.garments, 0.25, optimizer="sgd",
            options={"momentum": 0.85}, epochs=8, train_step=steps.clipped(0.2)),
        _of("selu14", "deep", MLP(**cloth, depth=14, width=48, activation="selu", initialiser="lecun_normal"), data.garments, 0.005,
            optimizer="sgd", options=NESTEROV, epochs=8),
        _of("selu-rings", "points", MLP(inputs=2, outputs=3, depth=10, width=32, activation="selu", initialiser="lecun_normal"),
            data.rings, 1e-3, optimizer="rmsprop", epochs=20),
        _of("conv-elu", "conv", CNN(inputs=(1, 14, 14), outputs=4, channels=(6, 12), dense=24, activation="elu", padding="same",
            initialiser="lecun_normal", dropouts=(0.0, 0.0)), data.shoes, 0.02, optimizer="sgd", options=NESTEROV, epochs=6, batch_size=50),
        _of("tumours", "tabular", MLP(inputs=10, outputs=1, widths=(32, 16, 8), activation="elu", initialiser="lecun_normal"),
            data.tumours, 5e-3, loss=bce, epochs=25, batch_size=24),
        _of("wines", "tabular", MLP(inputs=8, outputs=3, widths=(96,), activation="tanh", initialiser="glorot_normal"), data.wines, 0.05,
            optimizer="adagrad", epochs=30, batch_size=12),
        _of("flight", "regression", MLP(inputs=5, outputs=1, widths=(64, 32), activation="gelu", initialiser="he_normal"), data.flight,
            0.02, loss=nn.MSELoss(), optimizer="sgd", options=NESTEROV, epochs=16, batch_size=50),
        _of("ripples", "regression", MLP(inputs=2, outputs=1, depth=3, width=40, activation="silu", initialiser="he_normal"),
            data.ripples, 5e-3, loss=nn.L1Loss(), optimizer="adamw", epochs=25),
        _of("crescents", "points", MLP(inputs=2, outputs=1, widths=(40, 20), activation="tanh", initialiser="glorot_normal"),
            data.crescents, 0.1, loss=bce, optimizer="sgd", options=NESTEROV, epochs=25),
        _of("clouds", "points", MLP(inputs=2, outputs=8, widths=(48,), activation="gelu", initialiser="he_normal"), data.clouds, 0.01,
            optimizer="rmsprop", epochs=15, batch_size=40),
    ]  # fmt: skip


def _own() -> list[Program]:
    return [
        _of("own-conv-bn", "conv", own(ConvNet, outputs=4, size=14), data.shoes, 0.05, optimizer="sgd", options=NESTEROV, epochs=5,
            batch_size=50),
        _of("own-conv-digits", "conv", own(ConvNet, outputs=10, size=8, channels=10), data.digit_images, 2e-3, optimizer="adamw",
            options={"weight_decay": 0.05}, epochs=7, batch_size=50),
        _of("own-deep-conv", "conv", own(DeepConv, outputs=10), data.digit_images, 0.02, optimizer="sgd", options=NESTEROV, epochs=12,
            batch_size=50),
        _of("own-normed", "deep", own(Normed, inputs=49, outputs=10), data.garments, 0.08, optimizer="sgd", options=NESTEROV, epochs=8,
            schedule=polynomial),
        _of("own-normed-14", "deep", own(Normed, inputs=64, outputs=10, depth=14), data.digits, 0.15, optimizer="sgd", options=NESTEROV,
            epochs=10, batch_size=50),
        _of("own-list", "points", own(Listed, inputs=2, outputs=3), data.rings, 4e-3, epochs=25),
        _of("own-checkers", "points", own(Plain, inputs=2, outputs=2, width=48), data.checkers, 0.01, epochs=40, batch_size=100),
        _of("own-chirp", "regression", own(Plain, inputs=1, outputs=1, width=64, act=torch.tanh), data.chirp, 5e-3, loss=nn.MSELoss(),
            epochs=40, batch_size=50),
        _of("own-flight", "regression", own(Plain, inputs=5, outputs=1, width=40, act=F.silu), data.flight, 3e-3,
            loss=nn.HuberLoss(delta=2.0), optimizer="rmsprop", epochs=16),
        _of("own-blocks", "residual", own(Blocks, inputs=64, outputs=10), data.digits, 1e-3, optimizer="adamw", epochs=8, batch_size=50),
        _of("own-blocks-24", "residual", own(Blocks, inputs=49, outputs=10, width=40, depth=24), data.garments, 0.03, optimizer="sgd",
            options=NESTEROV, epochs=7, train_step=steps.clipped(5.0)),
        _of("own-packed", "recurrent", own(Packed, outputs=4), data.shapes, 0.01, epochs=12),
        _of("own-gru", "recurrent", own(LastState, inputs=2, outputs=1, hidden=24), data.discounted, 0.01, loss=nn.MSELoss(), epochs=12),
        _of("own-rnn-signal", "recurrent", own(LastState, inputs=5, outputs=4, hidden=32, cell="rnn"), data.signal(8), 3e-3, epochs=10,
            batch_size=50),
        _of("own-rnn-rows", "recurrent", own(LastState, inputs=8, outputs=10, hidden=48, cell="rnn", nonlinearity="tanh"),
            data.digit_rows, 2e-3, optimizer="rmsprop", epochs=14, batch_size=40),
        _of("own-rnn-clipped", "recurrent", own(LastState, inputs=8, outputs=10, hidden=48, cell="rnn", nonlinearity="relu"),
            data.digit_rows, 0.25, optimizer="sgd", options={"momentum": 0.85}, epochs=12, batch_size=50, train_step=steps.clipped(0.25)),
        _of("own-encoder", "attention", own(Encoder, inputs=8, length=8, outputs=10), data.digit_rows, 2e-3, optimizer="adamw", epochs=8,
            batch_size=50),
        _of("own-encoder-post", "attention", own(Encoder, inputs=8, length=8, outputs=10, depth=6, width=24, heads=2,
            norm_first=False), data.digit_rows, 0.012, epochs=8, batch_size=50, schedule=linear_warm_up(0.5)),
        _of("own-encoder-post-sgd", "attention", own(Encoder, inputs=8, length=8, outputs=10, depth=5, width=24, heads=2,
            norm_first=False), data.digit_rows, 0.6, optimizer="sgd", epochs=12, batch_size=50, schedule=linear_warm_up(0.5)),
        _of("own-tokens", "attention", own(Tokens, vocabulary=9, outputs=5), data.votes, 3e-3, epochs=8),
        _of("own-attention", "attention", own(Written, inputs=8, length=8, outputs=10), data.digit_rows, 3e-3, epochs=8, batch_size=50),
    ]  # fmt: skip


def _of(name: str, kind: str, net: Net, source: Any, lr: float, **fields: Any) -> Program:
    return Program(name=name, kind=kind, half="held_out", net=net, data=source, lr=lr, **fields)


def is_own(program: Program) -> bool:
    """True if the network is someone's own module."""
    return isinstance(program.net, Own)


def changed(program: Program, **options: Any) -> Program:
    """Returns the program with options of its own module changed."""
    assert isinstance(program.net, Own)
    return program.having(net=program.net.but(**options))


def losing(program: Program, loss: Loss) -> Program:
    """Returns the program with another loss."""
    return program.having(loss=loss)


PROGRAMS: dict[str, Program] = {p.name: p for p in [*_lab(), *_own()]}
