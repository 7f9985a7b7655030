"""What a batch of runs is trained on and how, as data; what was seen on the way."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from evengrad.errors import InputError
from evengrad.lab.engine.losses import RunsLoss
from evengrad.lab.engine.optimizers import Optimizer

Array = npt.NDArray[np.floating]
PART = 512  # samples that are evaluated at once


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Samples that all runs share, and which of them each run uses: `index` (runs, n) int64, or None for all of them."""

    x: Tensor
    y: Tensor
    index: Tensor | None = None

    @property
    def count(self) -> int:
        """Samples a run."""
        return len(self.x) if self.index is None else self.index.shape[1]

    def batch(self, runs: int, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Returns inputs and targets (runs, batch, ...) of the places `chosen` (runs, batch) in each run's own list of samples."""
        if self.index is not None:
            chosen = self.index.gather(1, chosen)
        flat = chosen.reshape(-1)
        return tuple(t.index_select(0, flat).view(runs, -1, *t.shape[1:]) for t in (self.x, self.y))  # type: ignore[return-value]

    def first(self, count: int | None) -> Samples:
        """Returns the first so many samples of each run, all of them for None."""
        if self.index is not None:
            return replace(self, index=self.index[:, :count])
        return replace(self, x=self.x[:count], y=self.y[:count])

    def parts(self, runs: int, size: int = PART) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields all samples of every run, `size` at a time; nothing is copied where all runs share them."""
        for start in range(0, self.count, size):
            if self.index is None:
                yield tuple(t[start : start + size].expand(runs, -1, *t.shape[1:]) for t in (self.x, self.y))  # type: ignore[misc]
            else:
                width = min(size, self.count - start)
                yield self.batch(runs, torch.arange(start, start + width, device=self.x.device).expand(runs, -1))


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Gradient clipping: `kind` is `value` (each element to [-threshold, threshold]) or `norm` (the L2 norm over all weights of a run)."""

    kind: str
    threshold: float

    def __post_init__(self) -> None:
        if self.kind not in {"value", "norm"} or not self.threshold > 0:
            raise InputError(f"clipping is by 'value' or 'norm' with a threshold above 0; got {self.kind!r} with {self.threshold!r}")


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The learning rate over a training: a linear warm-up, then a decay.

    Attributes:
        warmup: Share of all steps over which the rate rises from zero, in [0, 1).
        decay: `none`, `linear` or `cosine` to zero, or `exponential` to a hundredth.
    """

    warmup: float = 0.0
    decay: str = "none"

    def __post_init__(self) -> None:
        if not 0 <= self.warmup < 1 or self.decay not in _DECAYS:
            raise InputError(f"a schedule needs warmup in [0, 1) and decay among {', '.join(_DECAYS)}; got {self.warmup}, {self.decay!r}")

    def factor(self, step: int, steps: int) -> float:
        """Returns what the learning rate of this step (from 0) is multiplied by."""
        warm = self.warmup * steps
        if step < warm:
            return (step + 1) / math.ceil(warm)
        return _DECAYS[self.decay]((step - warm) / max(1.0, steps - warm))


_DECAYS: dict[str, Callable[[float], float]] = {
    "none": lambda t: 1.0,
    "linear": lambda t: 1.0 - t,
    "cosine": lambda t: 0.5 + 0.5 * math.cos(math.pi * t),
    "exponential": lambda t: 0.01**t,
}
CONSTANT = Schedule()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a batch of runs is trained; what is a tuple has a member for each run.

    Attributes:
        loss: What is minimised, a mean over each run's samples.
        optimizers: One a run.
        seeds: One a run: the order of its samples and its dropout masks.
        epochs: Passes over the data.
        batch_size: Samples a step.
        clips: One a run, of one kind; empty for none.
        schedule: The learning rate over time.
        l1: Weight of the sum of magnitudes of each run's weights; empty for none.
        patience: Evaluations without a better validation loss after which a run has stopped; its best weights are restored.
        evaluate_every: Steps between evaluations; 0 for none.
        record_every: Steps between records of gradients by layer; 0 for none.
        signals: Record what flows through the layers too, by one more pass.
        frozen: Names of parameters that do not learn.
        rates: Parameters with a learning rate of their own, as pairs of a name and what part of the optimizer's rate it is.
    """

    loss: RunsLoss
    optimizers: tuple[Optimizer, ...]
    seeds: tuple[int, ...]
    epochs: int
    batch_size: int
    clips: tuple[Clip, ...] = ()
    schedule: Schedule = CONSTANT
    l1: tuple[float, ...] = ()
    patience: int | None = None
    evaluate_every: int = 0
    record_every: int = 0
    signals: bool = False
    frozen: tuple[str, ...] = ()
    rates: tuple[tuple[str, float], ...] = ()


@dataclass
class History:
    """What was seen: `curves` {name: (evaluations, runs)} at `steps`, `columns` {name: (records, layers, runs)} at `record_steps`.

    `stopped_at` (runs,) is the step whose weights a run ended with.
    """

    steps: list[int] = field(default_factory=list)
    curves: dict[str, list[Array]] = field(default_factory=dict)
    record_steps: list[int] = field(default_factory=list)
    columns: dict[str, list[Array]] = field(default_factory=dict)
    stopped_at: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def add(self, into: dict[str, list[Array]], values: dict[str, Tensor]) -> None:
        """Adds one line; one copy to the host."""
        host = torch.stack([v.float() for v in values.values()]).cpu().numpy()
        for name, value in zip(values, host, strict=True):
            into.setdefault(name, []).append(value)

    def extend(self, values: dict[str, Tensor]) -> None:
        """Adds several lines of columns, each (records, layers, runs); one copy to the host."""
        host = torch.stack(list(values.values())).float().cpu().numpy()
        for name, lines in zip(values, host, strict=True):
            self.columns.setdefault(name, []).extend(lines)
