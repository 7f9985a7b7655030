"""name -> healthy program: small trainings of every kind that go well in a second or two."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.faults import data, steps
from benchmarks.faults.base import Program
from benchmarks.faults.fifth.programs import PROGRAMS as FIFTH
from benchmarks.faults.fourth.programs import PROGRAMS as FOURTH
from benchmarks.faults.held_out.programs import PROGRAMS as HELD_OUT
from benchmarks.faults.sixth.programs import PROGRAMS as SIXTH
from evengrad.errors import unknown
from evengrad.lab.models import CNN, MLP, Recurrent, ResidualCNN, ResidualMLP, Transformer


def bce_with_logits(output: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy of one logit and a label of 0 or 1."""
    return F.binary_cross_entropy_with_logits(output.squeeze(1), targets.float())


def warm_up(share: float) -> Any:
    """Rate from 0 to its value over the first share of the steps, and as a cosine to 0 over the rest."""

    def schedule(optimizer: torch.optim.Optimizer, total: int) -> Any:
        warm = max(1, int(share * total))
        up = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / warm, 1.0, warm)
        down = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total - warm)
        return torch.optim.lr_scheduler.SequentialLR(optimizer, [up, down], [warm])

    return schedule


def cosine(optimizer: torch.optim.Optimizer, total: int) -> Any:
    """Rate as a cosine to 0."""
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)


def falling(optimizer: torch.optim.Optimizer, total: int) -> Any:
    """A tenth of the rate in the last third."""
    return torch.optim.lr_scheduler.StepLR(optimizer, max(1, 2 * total // 3), 0.1)


def program(name: str) -> Program:
    """Returns the program of this name."""
    if name not in PROGRAMS:
        raise unknown("program", name, PROGRAMS)
    return PROGRAMS[name]


_MOMENTUM = {"momentum": 0.9}


def _tuning() -> list[Program]:
    mlp: dict[str, Any] = {"inputs": 64, "outputs": 10}
    image: dict[str, Any] = {"inputs": (1, 8, 8), "outputs": 10}
    return [
        _of("mlp-relu", "mlp", MLP(**mlp, depth=2, width=64, initialiser="he_normal"), data.digits, 1e-3, epochs=8, batch_size=48),
        _of("mlp-tanh", "mlp", MLP(inputs=196, outputs=10, depth=3, width=64, activation="tanh", initialiser="glorot_normal"),
            data.fashion, 0.02, optimizer="sgd", options=_MOMENTUM, epochs=7),
        _of("deep-relu", "deep", MLP(**mlp, depth=12, width=48, initialiser="he_normal"), data.digits, 0.01, optimizer="sgd",
            options=_MOMENTUM, epochs=10),
        _of("deep-bn", "deep", MLP(inputs=196, outputs=10, depth=8, width=48, initialiser="he_normal", norm="batch"), data.fashion, 0.1,
            optimizer="sgd", options={"momentum": 0.9, "weight_decay": 1e-4}, epochs=7, schedule=cosine),
        _of("deep-tanh", "deep", MLP(**mlp, depth=15, width=40, activation="tanh", initialiser="glorot_normal"), data.digits, 1e-3,
            optimizer="rmsprop", epochs=10),
        _of("selu", "deep", MLP(**mlp, depth=16, width=48, activation="selu", initialiser="lecun_normal"), data.digits, 0.01,
            optimizer="sgd", options=_MOMENTUM, epochs=10),
        _of("conv", "conv", CNN(inputs=(1, 14, 14), outputs=10, channels=(8, 16), dense=32, dropouts=(0.0, 0.25),
            initialiser="he_normal"), data.fashion_images, 2e-3, epochs=6),
        _of("conv-bn", "conv", CNN(**image, channels=(8, 12, 16), dense=0, padding="same", norm="batch", pool="global",
            initialiser="he_normal", dropouts=(0.0, 0.0)), data.digit_images, 0.05, optimizer="sgd", options=_MOMENTUM, epochs=8),
        _of("residual", "residual", ResidualMLP(**mlp, blocks=10, width=40, branch="fixup"), data.digits, 0.05, optimizer="sgd",
            options=_MOMENTUM, epochs=8),
        _of("residual-bn", "residual", ResidualMLP(**mlp, blocks=8, width=40, norm="batch"), data.digits, 0.1, optimizer="sgd",
            options=_MOMENTUM, epochs=8),
        _of("gru-rows", "recurrent", Recurrent(inputs=14, outputs=10, cell="gru", hidden=40), data.fashion_rows, 5e-3, epochs=6),
        _of("rnn-recall", "recurrent", Recurrent(inputs=8, outputs=6, cell="rnn", hidden=40, initialiser="orthogonal"), data.recall(3),
            2e-3,
            epochs=10, batch_size=50),
        _of("rnn-clipped", "recurrent", Recurrent(inputs=14, outputs=10, cell="rnn", hidden=40, initialiser="orthogonal"),
            data.fashion_rows, 0.1, optimizer="sgd", options=_MOMENTUM, epochs=7, train_step=steps.clipped(0.3)),
        _of("pre-norm", "attention", Transformer(inputs=8, length=8, outputs=10, depth=2, width=32), data.digit_rows, 2e-3,
            optimizer="adamw", options={"weight_decay": 0.01}, epochs=8),
        _of("post-norm", "attention", Transformer(inputs=8, length=8, outputs=10, depth=6, width=24, heads=2, hidden=48, norm_at="post"),
            data.digit_rows, 0.01, epochs=7, schedule=warm_up(0.4)),
        _of("wine", "tabular", MLP(inputs=13, outputs=3, depth=1, width=16), data.wine, 0.02, optimizer="sgd", options=_MOMENTUM,
            epochs=30, batch_size=16),
        _of("cancer-logit", "tabular", MLP(inputs=30, outputs=1, depth=2, width=24, initialiser="he_normal"), data.cancer, 2e-3,
            loss=bce_with_logits, epochs=20, batch_size=32),
        _of("friedman", "regression", MLP(inputs=10, outputs=1, depth=2, width=48, initialiser="he_normal"), data.friedman, 3e-3,
            loss=nn.MSELoss(), epochs=20, batch_size=64),
        _of("waves", "regression", MLP(inputs=2, outputs=1, depth=3, width=32, activation="tanh", initialiser="glorot_normal"),
            data.waves, 0.05, loss=nn.MSELoss(), optimizer="sgd", options=_MOMENTUM, epochs=25),
        _of("circles", "points", MLP(inputs=2, outputs=2, depth=2, width=24, activation="tanh", initialiser="glorot_normal"),
            data.circles, 0.02, epochs=50, batch_size=50),
        _of("spirals", "points", MLP(inputs=2, outputs=2, depth=3, width=32, initialiser="he_normal"), data.spirals, 5e-3, epochs=30,
            batch_size=64),
        _of("moons-sigmoid", "points", MLP(inputs=2, outputs=1, depth=1, width=24, activation="sigmoid", initialiser="glorot_normal"),
            data.moons, 0.1, loss=bce_with_logits, epochs=40, batch_size=50),
        _of("deep-relu16", "deep", MLP(inputs=196, outputs=10, depth=16, width=48, initialiser="he_normal"), data.fashion, 0.005,
            optimizer="sgd", options=_MOMENTUM, epochs=10),
        _of("deep-clipped", "deep", MLP(**mlp, depth=8, width=48, initialiser="he_normal"), data.digits, 0.2, optimizer="sgd",
            options=_MOMENTUM, epochs=10, train_step=steps.clipped(0.2)),
        _of("selu-long", "deep", MLP(inputs=196, outputs=10, depth=24, width=40, activation="selu", initialiser="lecun_normal"),
            data.fashion, 0.005, optimizer="sgd", options=_MOMENTUM, epochs=8),
        _of("waves-deep", "regression", MLP(inputs=6, outputs=1, depth=4, width=32, activation="silu", initialiser="he_normal"),
            data.energy,
            3e-3, loss=nn.MSELoss(), epochs=20),
        _of("mlp-patient", "mlp", MLP(**mlp, depth=2, width=64, activation="tanh", initialiser="glorot_normal"), data.digits, 2e-3,
            optimizer="sgd", epochs=60),
        _of("rnn-recall-relu", "recurrent", Recurrent(inputs=8, outputs=6, cell="rnn", hidden=40, activation="relu",
            initialiser="orthogonal"), data.recall(3), 2e-3, optimizer="rmsprop", epochs=10, batch_size=50),
        _of("pre-norm-recall", "attention", Transformer(inputs=8, length=10, outputs=6, depth=2, width=32), data.recall(4), 3e-3,
            epochs=12, batch_size=50),
        _of("post-norm-4", "attention", Transformer(inputs=8, length=8, outputs=10, depth=4, width=24, heads=2, hidden=48,
            norm_at="post", activation="relu"), data.digit_rows, 0.02, epochs=7, schedule=warm_up(0.4)),
    ]  # fmt: skip


def _reported() -> list[Program]:
    mlp: dict[str, Any] = {"inputs": 196, "outputs": 10}
    return [
        _of("mlp-gelu", "mlp", MLP(**mlp, depth=2, width=48, activation="gelu", initialiser="he_normal"), data.fashion, 1e-3,
            optimizer="rmsprop", epochs=7),
        _of("mlp-dropout", "mlp", MLP(inputs=64, outputs=10, depth=2, width=64, dropout=0.3, initialiser="he_normal"), data.digits, 2e-3,
            optimizer="adamw", options={"weight_decay": 0.01}, epochs=10),
        _of("deep-elu", "deep", MLP(**mlp, depth=10, width=48, activation="elu", initialiser="lecun_normal"), data.fashion, 0.01,
            optimizer="sgd", options=_MOMENTUM, epochs=8, schedule=falling),
        _of("deep-relu14", "deep", MLP(inputs=64, outputs=10, depth=14, width=40, initialiser="he_uniform"), data.digits, 1e-3, epochs=14),
        _of("deep-tanh20", "deep", MLP(**mlp, depth=20, width=40, activation="tanh", initialiser="orthogonal"), data.fashion, 0.005,
            optimizer="sgd", options=_MOMENTUM, epochs=8),
        _of("deep-ln", "deep", MLP(inputs=64, outputs=10, depth=12, width=40, norm="layer", initialiser="he_normal"), data.digits, 0.02,
            optimizer="sgd", options=_MOMENTUM, epochs=9),
        _of("bn-after", "deep", MLP(inputs=64, outputs=10, depth=9, width=40, norm="batch", norm_at="after", initialiser="he_normal"),
            data.digits, 0.05, optimizer="sgd", options=_MOMENTUM, epochs=8, batch_size=48),
        _of("selu-deep", "deep", MLP(**mlp, depth=20, width=40, activation="selu", initialiser="lecun_normal"), data.fashion, 0.005,
            optimizer="sgd", options=_MOMENTUM, epochs=8),
        _of("conv-mean", "conv", CNN(inputs=(1, 8, 8), outputs=10, channels=(12, 16), dense=32, padding="same", pool="mean",
            initialiser="he_uniform", dropouts=(0.0, 0.0)), data.digit_images, 0.03, optimizer="sgd", options=_MOMENTUM, epochs=8),
        _of("conv-strided-bn", "conv", CNN(inputs=(1, 14, 14), outputs=10, channels=(8, 16, 16), strides=2, dense=0, padding="same",
            norm="batch", pool="none", initialiser="he_normal", dropouts=(0.0, 0.0)), data.fashion_images, 3e-3, epochs=6),
        _of("residual-conv", "residual", ResidualCNN(inputs=(1, 8, 8), outputs=10, channels=(8, 16), blocks=2, norm="batch"),
            data.digit_images, 0.05, optimizer="sgd", options=_MOMENTUM, epochs=6),
        _of("residual-rezero", "residual", ResidualMLP(**mlp, blocks=12, width=40, branch="rezero"), data.fashion, 2e-3, epochs=7),
        _of("lstm-rows", "recurrent", Recurrent(inputs=14, outputs=10, cell="lstm", hidden=40, forget_bias=1.0), data.fashion_rows, 5e-3,
            epochs=7),
        _of("gru-adding", "recurrent", Recurrent(inputs=2, outputs=1, cell="gru", hidden=32), data.adding, 0.01, loss=nn.MSELoss(),
            epochs=12, batch_size=64),
        _of("rnn-rows-clipped", "recurrent", Recurrent(inputs=8, outputs=10, cell="rnn", hidden=40, activation="relu",
            initialiser="orthogonal"), data.digit_rows, 0.2, optimizer="sgd", options=_MOMENTUM, epochs=10, train_step=steps.clipped(0.3)),
        _of("pre-norm-rows", "attention", Transformer(inputs=14, length=14, outputs=10, depth=2, width=32, heads=2, pool="last"),
            data.fashion_rows, 2e-3, epochs=6, schedule=warm_up(0.1)),
        _of("post-norm-last", "attention", Transformer(inputs=8, length=8, outputs=10, depth=6, width=24, heads=2, hidden=48,
            norm_at="post", pool="last", activation="relu"), data.digit_rows, 0.01, epochs=7, schedule=warm_up(0.4)),
        _of("cancer", "tabular", MLP(inputs=30, outputs=2, depth=2, width=20, activation="silu"), data.cancer, 0.03, optimizer="sgd",
            options=_MOMENTUM, epochs=20, batch_size=32),
        _of("wine-logit", "tabular", MLP(inputs=13, outputs=3, depth=2, width=16, initialiser="he_normal"), data.wine, 5e-3, epochs=30,
            batch_size=16),
        _of("energy", "regression", MLP(inputs=6, outputs=1, depth=2, width=40, initialiser="he_normal"), data.energy, 0.02,
            loss=nn.MSELoss(), optimizer="sgd", options=_MOMENTUM, epochs=20, batch_size=64),
        _of("waves-huber", "regression", MLP(inputs=2, outputs=1, depth=3, width=32, activation="gelu", initialiser="he_normal"),
            data.waves,
            5e-3, loss=nn.SmoothL1Loss(), epochs=20),
        _of("blobs", "points", MLP(inputs=2, outputs=5, depth=2, width=24, initialiser="he_normal"), data.blobs, 0.01, epochs=20,
            batch_size=50),
        _of("moons", "points", MLP(inputs=2, outputs=1, depth=3, width=24, activation="relu", initialiser="he_normal"), data.moons, 0.05,
            loss=bce_with_logits, optimizer="sgd", options=_MOMENTUM, epochs=30, batch_size=50),
        _of("spirals-tanh", "points", MLP(inputs=2, outputs=2, depth=3, width=40, activation="tanh",
            initialiser="variance_scaling(2, fan_in, normal)"), data.spirals, 5e-3, epochs=60, batch_size=64),
        _of("moons-tanh", "points", MLP(inputs=2, outputs=1, depth=2, width=24, activation="tanh", initialiser="glorot_normal"),
            data.moons, 0.01, loss=bce_with_logits, epochs=30, batch_size=50),
        _of("deep-relu24", "deep", MLP(**mlp, depth=24, width=40, initialiser="he_normal"), data.fashion, 5e-4, epochs=10),
        _of("deep-relu20", "deep", MLP(inputs=64, outputs=10, depth=20, width=48, initialiser="he_normal"), data.digits, 5e-3,
            optimizer="sgd", options=_MOMENTUM, epochs=14),
        _of("deep-leaky", "deep", MLP(**mlp, depth=18, width=48, activation="leaky_relu(0.01)", initialiser="he_uniform"), data.fashion,
            5e-3, optimizer="sgd", options=_MOMENTUM, epochs=10),
        _of("deep-gelu-clipped", "deep", MLP(**mlp, depth=8, width=40, activation="gelu", initialiser="he_normal"), data.fashion, 0.2,
            optimizer="sgd", options=_MOMENTUM, epochs=8, train_step=steps.clipped(0.2)),
        _of("selu-points", "points", MLP(inputs=2, outputs=2, depth=12, width=24, activation="selu", initialiser="lecun_normal"),
            data.spirals, 2e-3, epochs=25),
        _of("residual-30", "residual", ResidualMLP(inputs=64, outputs=10, blocks=30, width=32, norm="layer"), data.digits, 1e-3, epochs=8),
        _of("residual-25", "residual", ResidualMLP(**mlp, blocks=25, width=40, norm="layer", activation="elu"), data.fashion, 1e-3,
            optimizer="rmsprop", epochs=7),
        _of("mlp-patient-gelu", "mlp", MLP(**mlp, depth=2, width=48, activation="gelu", initialiser="he_normal"), data.fashion, 3e-3,
            optimizer="sgd", epochs=40),
        _of("lstm-adding", "recurrent", Recurrent(inputs=2, outputs=1, cell="lstm", hidden=32, forget_bias=1.0), data.adding, 0.02,
            loss=nn.MSELoss(), epochs=16),
        _of("attention-recall", "attention", Transformer(inputs=8, length=10, outputs=6, depth=1, width=32, heads=2), data.recall(4), 3e-3,
            optimizer="adamw", epochs=14, batch_size=50),
        _of("post-norm-sgd", "attention", Transformer(inputs=8, length=8, outputs=10, depth=6, width=24, heads=2, hidden=48,
            norm_at="post"), data.digit_rows, 0.3, optimizer="sgd", epochs=10, schedule=warm_up(0.4)),
    ]  # fmt: skip


def _of(name: str, kind: str, net: Any, source: Any, lr: float, **fields: Any) -> Program:
    return Program(name=name, kind=kind, half="", net=net, data=source, lr=lr, **fields)


PROGRAMS: dict[str, Program] = (
    {p.name: p for half, made in (("tuning", _tuning()), ("reported", _reported())) for p in (q.having(half=half) for q in made)}
    | HELD_OUT
    | FOURTH
    | FIFTH
    | SIXTH
)
