"""An experiment and a seed -> a trained model and its metric: the plain loop that every trial runs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from evengrad.errors import InputError
from evengrad.remedies import discovered
from evengrad.rig import Rig
from evengrad.trace.batch import Batch, Loss, call, scalar_loss
from evengrad.trace.capture import tensors_in
from evengrad.types import Proposal, Series

TrainStep = Callable[[nn.Module, Any, Any, torch.optim.Optimizer], Any]


@dataclass(frozen=True)
class Experiment:
    """How a network is built and trained, so that it can be done again with another seed or a change.

    Args:
        model: `model() -> nn.Module`; drawn anew for every seed.
        data: `(x, y)` arrays or tensors with samples first, a `torch.utils.data.Dataset` of `(x, y)`, or a function that is called
            once an epoch and returns an iterable of `(x, y)` batches.
        loss_fn: `loss_fn(output, targets) -> scalar tensor`.
        optimizer: `optimizer(model) -> torch.optim.Optimizer`.
        validation: Data to judge the metric on, in any of those forms; None judges on the training data.
        scheduler: `scheduler(optimizer)`, stepped after each batch.
        metric: `auto` (accuracy for integer targets, else minus the loss), `accuracy`, `loss`, or `f(model) -> float`.
        maximize: True if a larger metric is better.
        epochs: Passes over the data.
        batch_size: Samples a batch; ignored where data is a function.
        train_step: `train_step(model, batch, loss_fn, optimizer) -> loss` in place of one standard step.
        device: Device to train on; None leaves the model where it is built.
        repairs: Proposals that are applied whenever it is built.

    Raises:
        InputError: if a part is not callable, or a number is out of range.

    Example:
        >>> eg.Experiment(lambda: nn.Linear(2, 2), (x, y), nn.CrossEntropyLoss(), lambda m: torch.optim.SGD(m.parameters(), 0.1))
    """

    model: Callable[[], nn.Module]
    data: Any
    loss_fn: Loss
    optimizer: Callable[[nn.Module], torch.optim.Optimizer]
    validation: Any = field(default=None, kw_only=True)
    scheduler: Callable[[torch.optim.Optimizer], Any] | None = field(default=None, kw_only=True)
    metric: str | Callable[[nn.Module], float] = field(default="auto", kw_only=True)
    maximize: bool = field(default=True, kw_only=True)
    epochs: int = field(default=10, kw_only=True)
    batch_size: int = field(default=128, kw_only=True)
    train_step: TrainStep | None = field(default=None, kw_only=True)
    device: str | torch.device | None = field(default=None, kw_only=True)
    repairs: tuple[Proposal, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        for name in ("model", "loss_fn", "optimizer"):
            value = getattr(self, name)
            if not callable(value) or (name == "model" and isinstance(value, nn.Module)):
                hint = "lambda: MyModel()" if name == "model" else "lambda model: torch.optim.SGD(model.parameters(), 0.1)"
                raise InputError(
                    f"Experiment's {name} must be a function{'' if name == 'loss_fn' else f', such as {hint}'}; got {type(value).__name__}"
                )
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise InputError(f"Experiment's {name} must be at least 1; got {getattr(self, name)}")
        if isinstance(self.metric, str) and self.metric not in {"auto", "accuracy", "loss"}:
            raise InputError(f"Experiment's metric must be 'auto', 'accuracy', 'loss' or a function of the model; got {self.metric!r}")

    def repaired(self, proposals: Sequence[Proposal]) -> Experiment:
        """Returns the experiment with these proposals added to its repairs."""
        return replace(self, repairs=(*self.repairs, *proposals))


@dataclass(frozen=True)
class TrainResult:
    """A trained model, its metric (NaN if it diverged), the loss of each step float64 (N,), and wall-clock seconds."""

    metric: float
    losses: Series
    model: nn.Module
    seconds: float


class Watcher(Protocol):
    """What looks on while a rig trains."""

    def before(self, rig: Rig, batch: Batch) -> None:
        """Sees the batch, before the step."""

    def after(self, rig: Rig, batch: Batch) -> None:
        """Sees the rig, after the step."""


def build(experiment: Experiment, seed: int = 0) -> Rig:
    """Builds model, optimizer and data for one seed and applies the experiment's repairs; torch's generators are left as they were.

    Raises:
        InputError: if a function of the experiment returns something else than it should, or the data are empty.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = experiment.model()
        if not isinstance(model, nn.Module):
            raise InputError(f"Experiment's model() must return an nn.Module; got {type(model).__name__}")
        if experiment.device is not None:
            model = model.to(checked_device(experiment.device))
        if not any(p.requires_grad for p in model.parameters()):
            raise InputError("the model has no parameter with requires_grad: nothing can be trained. Unfreeze a layer")
        optimizer = experiment.optimizer(model)
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise InputError(f"Experiment's optimizer(model) must return a torch.optim.Optimizer; got {type(optimizer).__name__}")
        scheduler = experiment.scheduler(optimizer) if experiment.scheduler else None
        device = next(model.parameters()).device
        source = batches_of(experiment.data, experiment.batch_size, seed)
        rig = Rig(model, optimizer, experiment.loss_fn, lambda epoch: (b.to(device) for b in source(epoch)), scheduler, seed)
        first_batch(rig)
        remedies = discovered()
        for proposal in experiment.repairs:
            remedies[proposal.remedy]().apply(rig, proposal)
    return rig


def train(
    experiment: Experiment, *, seed: int = 0, watcher: Watcher | None = None, max_seconds: float | None = None, max_steps: int | None = None
) -> TrainResult:
    """Trains once: the same seed gives the same result, and torch's generators are left as they were.

    Args:
        experiment: What to train.
        seed: Seed of weights, data order and dropout.
        watcher: Looks on at every step.
        max_seconds: Wall-clock budget; training stops after the step that exceeds it.
        max_steps: Largest number of steps.
    """
    started = time.perf_counter()
    rig = build(experiment, seed)
    losses: list[Tensor] = []
    with torch.random.fork_rng():
        torch.manual_seed(seed + 1)  # so that dropout does not depend on how many numbers building took
        rig.model.train()
        for epoch in range(experiment.epochs):
            for batch in rig.batches(epoch):
                if watcher is not None:
                    watcher.before(rig, batch)
                losses.append(_step(rig, batch, experiment.train_step))
                if watcher is not None:
                    watcher.after(rig, batch)
                late = max_seconds is not None and time.perf_counter() - started > max_seconds
                if late or rig.step == max_steps:
                    break
            else:
                if bool(losses[-1].isfinite()):
                    continue
            break
        values = torch.stack(losses).double().cpu().numpy()
        metric = evaluate(experiment, rig) if np.isfinite(values[-1]) else math.nan
    return TrainResult(metric, values, rig.model, time.perf_counter() - started)


def evaluate(experiment: Experiment, rig: Rig) -> float:
    """Returns the metric on validation data, or on the training data where there are none; NaN where it is not finite."""
    if callable(experiment.metric):
        return float(experiment.metric(rig.model))
    data = experiment.data if experiment.validation is None else experiment.validation
    training = rig.model.training
    rig.model.eval()
    correct, total, count = 0.0, 0.0, 0
    by_accuracy = metric_name(experiment) == "accuracy"
    with torch.no_grad():
        for batch in (b.to(rig.device) for b in batches_of(data, max(experiment.batch_size, 1024), 0)(0)):
            output = call(rig.model, batch.inputs)
            if by_accuracy:
                logits, labels = next(tensors_in(output)), next(tensors_in(batch.targets))
                right = (logits.argmax(1) if logits.dim() > 1 and logits.shape[1] > 1 else logits.reshape(labels.shape) > 0) == labels
                correct, count = correct + float(right.sum()), count + right.numel()
                total += 0.0 if bool(logits.isfinite().all()) else math.nan
            else:
                loss = float(experiment.loss_fn(output, batch.targets))
                total, count = total + loss * batch.samples, count + batch.samples
    rig.model.train(training)
    if by_accuracy:
        return correct / max(1, count) + total
    sign = -1.0 if experiment.metric == "auto" else 1.0
    return sign * total / max(1, count) if math.isfinite(total) else math.nan


def metric_name(experiment: Experiment) -> str:
    """Returns `accuracy`, `-loss`, `loss`, or the name of the experiment's own metric."""
    if callable(experiment.metric):
        return getattr(experiment.metric, "__name__", "metric")
    if experiment.metric != "auto":
        return experiment.metric
    targets = next(tensors_in(next(iter(batches_of(experiment.data, 1, 0)(0))).targets), None)
    return "accuracy" if targets is not None and not targets.is_floating_point() else "-loss"


def batches_of(data: Any, batch_size: int, seed: int) -> Callable[[int], Iterator[Batch]]:
    """Returns a function from the epoch to its batches; their order depends on seed and epoch only, never on torch's generators.

    Raises:
        InputError: if the data are empty, or of another kind than an Experiment takes.
    """
    if callable(data) and not isinstance(data, torch.utils.data.Dataset):
        return lambda epoch: (_pair(batch) for batch in data())
    if isinstance(data, torch.utils.data.Dataset):
        return lambda epoch: _dataset_batches(data, batch_size, seed, epoch)
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise InputError(f"data must be (x, y), a Dataset, or a function that returns batches; got {type(data).__name__}")
    x, y = (torch.as_tensor(part) for part in data)
    x = x.float() if x.dtype == torch.float64 else x
    y = y.float() if y.dtype == torch.float64 else y.long() if not y.is_floating_point() else y
    if not len(x) or not x.numel():
        raise InputError("the data are empty: x has no sample")
    if len(x) != len(y):
        raise InputError(f"x has {len(x)} samples but y has {len(y)}: expected as many targets as inputs")
    return lambda epoch: (Batch(x[i], y[i]) for i in _order(len(x), seed, epoch).split(batch_size))


def first_batch(rig: Rig) -> Batch:
    """Returns the first batch of the first epoch.

    Raises:
        InputError: if there is none.
    """
    batch = next(iter(rig.batches(0)), None)
    if batch is None or not batch.samples:
        raise InputError("the data are empty: no batch came")
    return batch


def checked_device(device: str | torch.device) -> torch.device:
    """Returns the device.

    Raises:
        InputError: if this machine does not have it.
    """
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except Exception as error:
        cuda = f"{torch.cuda.device_count()} CUDA device(s)" if torch.cuda.is_available() else "no CUDA device"
        raise InputError(f"device {str(device)!r} cannot be used: this machine has {cuda}. Use device='cpu'") from error
    return found


def _order(count: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))


def _dataset_batches(data: Any, batch_size: int, seed: int, epoch: int) -> Iterator[Batch]:
    if isinstance(data, torch.utils.data.IterableDataset) or not hasattr(data, "__len__"):
        samples: Iterable[Any] = torch.utils.data.DataLoader(data, batch_size=batch_size)
        yield from (_pair(batch) for batch in samples)
        return
    for indices in _order(len(data), seed, epoch).split(batch_size):
        yield _pair(torch.utils.data.default_collate([data[int(i)] for i in indices]))


def _pair(batch: Any) -> Batch:
    if isinstance(batch, Batch):
        return batch
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        return Batch(batch[0], batch[1])
    raise InputError(f"a batch must be a pair (inputs, targets); got {type(batch).__name__}")


def _step(rig: Rig, batch: Batch, train_step: TrainStep | None) -> Tensor:
    assert rig.optimizer is not None  # build gave one
    if train_step is not None:
        loss = torch.as_tensor(train_step(rig.model, (batch.inputs, batch.targets), rig.loss_fn, rig.optimizer))
    else:
        rig.optimizer.zero_grad(set_to_none=True)
        loss = scalar_loss(call(rig.model, batch.inputs), batch.targets, rig.loss_fn)
        loss.backward()
        rig.optimizer.step()
    if rig.scheduler is not None:
        rig.scheduler.step()
    rig.step += 1
    return loss.detach().reshape(())
