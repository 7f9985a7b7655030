"""name -> healthy program of the sixth set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR

from benchmarks.faults import data as shared
from benchmarks.faults import steps
from benchmarks.faults.base import Program
from benchmarks.faults.fifth.data_sequences import flag, flashcards
from benchmarks.faults.fourth.networks import custom
from benchmarks.faults.sixth import data
from benchmarks.faults.sixth.networks import Autoencoder, Layers, LeNet, ResidualLayers, ResNet, Vgg, kaiming, lecun, xavier
from benchmarks.faults.sixth.sequences import Attention, Encoder, Recurrent
from evengrad.lab.data import Split

MOMENTUM = {"momentum": 0.9}


def binary(output: Tensor, targets: Tensor) -> Tensor:
    """`BCEWithLogitsLoss` of one logit."""
    return F.binary_cross_entropy_with_logits(output.squeeze(1), targets.float())


def cosine(optimizer: torch.optim.Optimizer, total: int) -> Any:
    """The rate as a cosine to 0."""
    return CosineAnnealingLR(optimizer, total)


def noam(optimizer: torch.optim.Optimizer, total: int) -> Any:
    """Up as a line over a third of the steps, and down as one over the root (Vaswani 2017)."""
    warm = max(1, total // 3)
    return LambdaLR(optimizer, lambda s: min((s + 1) / warm, (warm / (s + 1)) ** 0.5))


def _plain() -> list[Program]:
    flat = shared.fashion
    return [
        _of("pixels-adam", "mlp", custom(Layers, sizes=(64, 128, 64, 10)), data.pixels, 1e-3, epochs=15, batch_size=32),
        _of("clothes-dropout", "mlp", custom(Layers, sizes=(196, 128, 64, 10), drop=0.2), flat, 0.03, optimizer="sgd",
            options=MOMENTUM, epochs=10, batch_size=50),
        _of("pixels-tanh", "mlp", custom(Layers, sizes=(64, 96, 48, 10), act=nn.Tanh), data.pixels, 1e-3, optimizer="rmsprop",
            epochs=12, batch_size=32),
        _of("clothes-gelu", "mlp", custom(Layers, sizes=(196, 100, 100, 10), act=nn.GELU), flat, 1e-3, optimizer="adamw", epochs=8,
            batch_size=50),
        _of("digits-sgd", "mlp", custom(Layers, sizes=(64, 80, 40, 10), init=kaiming), shared.digits, 0.05, optimizer="sgd", epochs=15,
            batch_size=32),
        _of("digits-plain-14", "deep", custom(Layers, sizes=(64, *[50] * 14, 10), init=kaiming), shared.digits, 0.01, optimizer="sgd",
            options=MOMENTUM, epochs=12, batch_size=50),
        _of("clothes-plain-20", "deep", custom(Layers, sizes=(196, *[64] * 20, 10), init=kaiming), flat, 5e-4, epochs=10,
            batch_size=50),
        _of("clothes-tanh-10", "deep", custom(Layers, sizes=(196, *[60] * 10, 10), act=nn.Tanh, init=xavier), flat, 0.01,
            optimizer="sgd", options=MOMENTUM, epochs=10, batch_size=50),
        _of("digits-selu-20", "deep", custom(Layers, sizes=(64, *[56] * 20, 10), act=nn.SELU, init=lecun), shared.digits, 5e-3,
            optimizer="sgd", options=MOMENTUM, epochs=12, batch_size=50),
        _of("digits-bn-12", "deep", custom(Layers, sizes=(64, *[56] * 12, 10), norm=True), shared.digits, 0.2, optimizer="sgd",
            options=MOMENTUM, epochs=10, batch_size=50, schedule=cosine),
        _of("clothes-bn-16", "deep", custom(Layers, sizes=(196, *[48] * 16, 10), norm=True), flat, 0.05, optimizer="sgd",
            options=MOMENTUM, epochs=8, batch_size=50, schedule=cosine),
        _of("cancer-bce", "tabular", custom(Layers, sizes=(30, 32, 16, 1)), shared.cancer, 3e-3, loss=binary, epochs=20, batch_size=32),
        _of("wine-sgd", "tabular", custom(Layers, sizes=(13, 24, 3)), shared.wine, 0.03, optimizer="sgd", options=MOMENTUM, epochs=40,
            batch_size=16),
        _of("diabetes", "regression", custom(Layers, sizes=(10, 24, 1)), data.diabetes, 0.01, loss=nn.MSELoss(), optimizer="sgd",
            options=MOMENTUM, epochs=20, batch_size=32),
        _of("houses", "regression", custom(Layers, sizes=(8, 80, 80, 1)), data.houses, 2e-3, loss=nn.MSELoss(), epochs=25,
            batch_size=40),
        _of("houses-sgd", "regression", custom(Layers, sizes=(8, 96, 48, 1), init=kaiming), data.houses, 0.02, loss=nn.MSELoss(),
            optimizer="sgd", options=MOMENTUM, epochs=25, batch_size=40),
        _of("pixels-code", "regression", custom(Autoencoder), data.pixels_again, 3e-3, loss=nn.MSELoss(), epochs=25, batch_size=50),
        _of("rings", "points", custom(Layers, sizes=(2, 40, 40, 3)), data.rings, 5e-3, epochs=20, batch_size=40),
        _of("rings-tanh", "points", custom(Layers, sizes=(2, 48, 24, 3), act=nn.Tanh), data.rings, 0.1, optimizer="sgd",
            options=MOMENTUM, epochs=25, batch_size=40),
    ]  # fmt: skip


def _structured() -> list[Program]:
    return [
        _of("lenet-adam", "conv", custom(LeNet), data.clothes, 2e-3, epochs=8, batch_size=50),
        _of("lenet-sgd", "conv", custom(LeNet), shared.fashion_images, 0.03, optimizer="sgd", options=MOMENTUM, epochs=8, batch_size=50),
        _of("vgg", "conv", custom(Vgg), shared.digit_images, 0.1, optimizer="sgd", options=MOMENTUM, epochs=6, batch_size=50),
        _of("resnet", "residual", custom(ResNet), shared.fashion_images, 0.1, optimizer="sgd",
            options=MOMENTUM | {"weight_decay": 1e-4}, epochs=8, batch_size=50),
        _of("residual-layers", "residual", custom(ResidualLayers, inputs=64, outputs=10), shared.digits, 0.02, optimizer="sgd",
            options=MOMENTUM, epochs=8, batch_size=50),
        _of("lstm-clothes", "recurrent", custom(Recurrent, inputs=14, outputs=10, hidden=40), shared.fashion_rows, 5e-3, epochs=7,
            batch_size=50),
        _of("reviews", "recurrent", custom(Recurrent, inputs=16, outputs=1, words=40), data.reviews, 0.01, loss=binary, epochs=8,
            batch_size=64),
        _of("demand", "recurrent", custom(Recurrent, inputs=1, outputs=1, cell="gru"), data.demand, 0.01, loss=nn.MSELoss(), epochs=12,
            batch_size=50),
        _of("flag-gru", "recurrent", custom(Recurrent, inputs=4, outputs=4, cell="gru"), flag, 0.01, epochs=10, batch_size=50),
        _of("rnn-clothes", "recurrent", custom(Recurrent, inputs=14, outputs=10, hidden=48, cell="rnn"), shared.fashion_rows, 0.2,
            optimizer="sgd", options=MOMENTUM, epochs=8, batch_size=50, train_step=steps.clipped(0.3)),
        _of("encoder", "attention", custom(Encoder, inputs=8, length=8, outputs=10), shared.digit_rows, 2e-3, epochs=7, batch_size=50),
        _of("encoder-post", "attention", custom(Encoder, inputs=8, length=8, outputs=10, depth=6, width=28, first=False),
            shared.digit_rows, 8e-3, epochs=7, batch_size=50, schedule=noam),
        _of("cards-attention", "attention", custom(Attention, inputs=14, outputs=4), flashcards, 5e-3, epochs=10, batch_size=50),
    ]  # fmt: skip


def _of(name: str, kind: str, net: Any, source: Callable[[], Split], lr: float, **fields: Any) -> Program:
    return Program(name=name, kind=kind, half="sixth", net=net, data=source, lr=lr, **fields)


PROGRAMS: dict[str, Program] = {p.name: p for p in [*_plain(), *_structured()]}
