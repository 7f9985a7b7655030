"""Small trainings of every kind, run with and without a monitor."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import evengrad as eg


class Sequence(nn.Module):
    """An LSTM over 12 steps, and a head on its last output."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(6, 16, num_layers=2, batch_first=True)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0][:, -1])


class Attention(nn.Module):
    """Two encoder layers with dropout, and a head on their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 16)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor, *, scale: float = 1.0) -> Tensor:
        return self.head(self.encoder(self.embed(x) * scale).mean(1))


class Checkpointed(nn.Module):
    """Two blocks that are run again in backward."""

    def __init__(self, *, reentrant: bool) -> None:
        super().__init__()
        self.first, self.second, self.reentrant = nn.Linear(20, 32), nn.Sequential(nn.Linear(32, 32), nn.Tanh(), nn.Dropout(0.2)), reentrant
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(checkpoint(self.second, self.first(x), use_reentrant=self.reentrant))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(20, 32), nn.ReLU(inplace=True), nn.Dropout(0.2), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 4))


def relu() -> nn.Module:
    return nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 9, 4)
    )


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (mlp, (20,)),
    "relu": (relu, (20,)),
    "cnn": (cnn, (1, 12, 12)),
    "lstm": (Sequence, (12, 6)),
    "attention": (Attention, (12, 6)),
    "checkpointed": (lambda: Checkpointed(reentrant=False), (20,)),
    "checkpointed, reentrant": (lambda: Checkpointed(reentrant=True), (20,)),
}


@dataclass(frozen=True)
class Loop:
    """How a model is trained.

    Attributes:
        model: One of MODELS.
        optimizer: What steps.
        accumulate: Micro-batches a step.
        clip: Largest norm, or None.
        autocast: Its dtype, or None.
        scaler: True for a GradScaler.
        compiled: True for torch.compile (without generating code).
        steps: Number of steps.
        bad: Steps whose batch is multiplied by `by`.
        by: NaN, infinity or a large number.
    """

    model: str = "mlp"
    optimizer: Callable[[Any], torch.optim.Optimizer] = lambda p: torch.optim.SGD(p, 0.05, momentum=0.9)
    accumulate: int = 1
    clip: float | None = None
    autocast: torch.dtype | None = None
    scaler: bool = False
    compiled: bool = False
    steps: int = 25
    bad: tuple[int, ...] = ()
    by: float = float("nan")
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Trained:
    """What a loop left."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    losses: list[float]
    generator: Tensor
    monitor: eg.Monitor | None


def run(loop: Loop, *, watched: bool, **options: Any) -> Trained:
    """Trains; the same seeds with and without a monitor."""
    build, shape = MODELS[loop.model]
    torch.manual_seed(0)
    model = build()
    optimizer, loss_fn = loop.optimizer(model.parameters()), nn.CrossEntropyLoss()
    called = torch.compile(model, backend="aot_eager") if loop.compiled else model
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0) if loop.scaler else None
    data = torch.Generator().manual_seed(1)
    losses: list[float] = []
    watch = eg.watch(called, optimizer, scaler=scaler, loss_fn=loss_fn, **options) if watched else nullcontext()
    with watch as monitor:
        for step in range(loop.steps):
            optimizer.zero_grad()
            for _ in range(loop.accumulate):
                x, y = torch.randn(16, *shape, generator=data), torch.randint(0, 4, (16,), generator=data)
                if step in loop.bad:
                    x = x * loop.by
                with torch.autocast("cpu", dtype=loop.autocast) if loop.autocast is not None else nullcontext():
                    loss = loss_fn(called(x), y) / loop.accumulate
                (scaler.scale(loss) if scaler is not None else loss).backward()
            if scaler is not None and loop.clip is not None:
                scaler.unscale_(optimizer)
            if loop.clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), loop.clip)
            if scaler is not None:
                scaler.step(optimizer)
                scaler.update()
            else:
                optimizer.step()
            losses.append(loss.item())
            if monitor is not None:
                monitor.observe(loss=loss)
    return Trained(model, optimizer, losses, torch.get_rng_state(), monitor)
