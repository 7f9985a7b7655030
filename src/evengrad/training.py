"""An experiment and a seed -> a trained model and its metric: the plain loop that every trial runs."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from evengrad.batches import batches_of, users
from evengrad.errors import InputError, unknown
from evengrad.recording import Snapshot
from evengrad.remedies import discovered
from evengrad.rig import Rig
from evengrad.trace.adapters import adapted, names_from_one, original
from evengrad.trace.batch import Batch, Loss, call, scalar_loss
from evengrad.trace.capture import tensors_in
from evengrad.types import Proposal, Series

TrainStep = Callable[[nn.Module, Any, Any, torch.optim.Optimizer], Any]
Batches = Callable[[int], Iterator[Batch]]
_FUNCTIONS = {
    "model": "lambda: MyModel()",
    "loss_fn": "torch.nn.CrossEntropyLoss()",
    "optimizer": "lambda model: torch.optim.SGD(model.parameters(), 0.1)",
    "scheduler": "lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 100)",
    "train_step": "def step(model, batch, loss_fn, optimizer): ...",
}


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
        for name, example in _FUNCTIONS.items():
            value = getattr(self, name)
            left_out = value is None and name in {"scheduler", "train_step"}
            if not (left_out or callable(value)) or (name == "model" and isinstance(value, nn.Module)):
                raise InputError(f"Experiment's {name} must be a function, such as {example}; got {type(value).__name__}")
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if not isinstance(value, Integral) or value < 1:
                raise InputError(f"Experiment's {name} must be a whole number of at least 1; got {value!r}")
        if not callable(self.metric) and self.metric not in {"auto", "accuracy", "loss"}:
            raise InputError(f"Experiment's metric must be 'auto', 'accuracy', 'loss' or a function of the model; got {self.metric!r}")
        if self.metric == "loss" and self.maximize:
            raise InputError("the metric 'loss' is better when it is smaller, but maximize is True; give maximize=False, or metric='auto'")

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

    def after(self, rig: Rig, batch: Batch, loss: Tensor) -> None:
        """Sees the rig, after the step, and the step's loss."""


def build(experiment: Experiment, seed: int = 0) -> Rig:
    """Builds model, optimizer and data for one seed and applies the experiment's repairs; torch's generators are left as they were.

    Raises:
        InputError: if a function of the experiment returns something else than it should, or the data are empty or all NaN.
        ForwardError: if one of these functions raises.
    """
    with _seeded(seed):
        with users("model"), names_from_one():
            model = adapted(experiment.model())
        if not isinstance(model, nn.Module):
            raise InputError(f"Experiment's model() must return an nn.Module; got {type(model).__name__}")
        if experiment.device is not None:
            model = model.to(checked_device(experiment.device))
        if not any(p.requires_grad for p in model.parameters()):
            raise InputError("the model has no parameter with requires_grad: nothing can be trained. Unfreeze a layer")
        with users("optimizer"):
            optimizer = experiment.optimizer(model)
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise InputError(f"Experiment's optimizer(model) must return a torch.optim.Optimizer; got {type(optimizer).__name__}")
        with users("scheduler"):
            scheduler = experiment.scheduler(optimizer) if experiment.scheduler else None
        device = next(model.parameters()).device
        source = batches_of(experiment.data, experiment.batch_size, seed)
        rig = Rig(
            model,
            optimizer,
            experiment.loss_fn,
            _on_device(source, device) or source,
            scheduler,
            seed,
            train_step=experiment.train_step,
            epochs=experiment.epochs,
            validation=_on_device(validation_of(experiment), device),
        )
        first_batch(rig)
        remedies = discovered()
        for proposal in experiment.repairs:
            if proposal.remedy not in remedies:
                raise unknown("remedy", proposal.remedy, remedies)
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
        for epoch in range(rig.epochs):
            for batch in rig.batches(epoch):
                if watcher is not None:
                    watcher.before(rig, batch)
                losses.append(_step(rig, batch))
                if watcher is not None:
                    watcher.after(rig, batch, losses[-1])
                late = max_seconds is not None and time.perf_counter() - started > max_seconds
                if late or rig.step == max_steps:
                    break
            else:
                ended = [ends(rig) for ends in rig.after_epoch]  # each is told of every epoch
                if bool(losses[-1].isfinite()) and not any(ended):
                    continue
            break
        values = torch.stack(losses).double().cpu().numpy()
        metric = evaluate(experiment, rig) if np.isfinite(values[-1]) else math.nan
    return TrainResult(metric, values, original(rig.model), time.perf_counter() - started)


def again(experiment: Experiment, snapshot: Snapshot, proposals: Sequence[Proposal], *, seed: int) -> Series:
    """Takes the steps behind a snapshot again with these changes, and returns their losses float64 (N,); without changes the same ones."""
    rig, remedies = build(experiment, seed), discovered()
    rig.model.train()
    with torch.random.fork_rng():
        snapshot.restore(rig)
        for proposal in proposals:
            remedies[proposal.remedy]().apply(rig, proposal)
        losses = [_step(rig, batch) for batch in snapshot.batches]
    values: Series = torch.stack(losses).double().cpu().numpy()
    return values


def evaluate(experiment: Experiment, rig: Rig) -> float:
    """Returns the metric on validation data, or on the training data where there are none; NaN where it is not finite."""
    modes = [(module, module.training) for module in rig.model.modules()]
    rig.model.eval()
    try:
        if callable(experiment.metric):
            with users("metric"):
                return float(experiment.metric(rig.model))
        with torch.no_grad():
            value = _mean_over_data(experiment, rig)
    finally:
        for module, training in modes:
            module.training = training
    return -value if metric_name(experiment) == "-loss" else value


def _mean_over_data(experiment: Experiment, rig: Rig) -> float:
    """Accuracy, or the loss, over the samples of the validation data; NaN where it is not finite."""
    data = experiment.data if experiment.validation is None else experiment.validation
    tally = _right_answers if metric_name(experiment) == "accuracy" else _summed_loss
    total, count = 0.0, 0
    for batch in (b.to(rig.device) for b in batches_of(data, max(experiment.batch_size, 1024), 0)(0)):
        part, counted = tally(call(rig.model, batch.inputs), batch, experiment.loss_fn)
        total, count = total + part, count + counted
    return total / count if count and math.isfinite(total) else math.nan


def _summed_loss(output: Any, batch: Batch, loss_fn: Loss) -> tuple[float, int]:
    with users("loss_fn"):
        return float(loss_fn(output, batch.targets)) * batch.samples, batch.samples


def _right_answers(output: Any, batch: Batch, _loss_fn: Loss) -> tuple[float, int]:
    """How many answers are right (a whole number, so that equal accuracies are equal), of how many; NaN if an output is not finite."""
    logits, labels = next(tensors_in(output)), next(tensors_in(batch.targets))
    answers = logits.argmax(1) if logits.dim() > 1 and logits.shape[1] > 1 else logits > 0  # one output: a logit of the second class
    if answers.numel() != labels.numel():
        raise InputError(
            f"accuracy compares one label with each answer; got outputs {tuple(logits.shape)} and targets {tuple(labels.shape)}. "
            f"Give class labels, or a metric that is a function of the model"
        )
    right = float((answers.reshape(labels.shape) == labels).sum())
    return right if bool(logits.isfinite().all()) else math.nan, labels.numel()


def metric_name(experiment: Experiment) -> str:
    """Returns `accuracy`, `-loss`, `loss`, or the name of the experiment's own metric."""
    if callable(experiment.metric):
        return getattr(experiment.metric, "__name__", "metric")
    if experiment.metric != "auto":
        return experiment.metric
    targets = next(tensors_in(next(iter(batches_of(experiment.data, 1, 0)(0))).targets), None)
    return "accuracy" if targets is not None and not targets.is_floating_point() else "-loss"


def validation_of(experiment: Experiment) -> Callable[[int], Iterator[Batch]] | None:
    """Returns a function from the epoch to batches of the validation data, or None where there are none."""
    return None if experiment.validation is None else batches_of(experiment.validation, 1024, 0)


def _on_device(batches: Batches | None, device: torch.device) -> Batches | None:
    return None if batches is None else lambda epoch: (b.to(device) for b in batches(epoch))


def loop_facts(experiment: Experiment) -> dict[str, Any]:
    """Describes what training does: `types.Facts.loop`; sizes where the data have a length."""
    facts: dict[str, Any] = {"standard": experiment.train_step is None, "scheduler": experiment.scheduler is not None}
    facts["epochs"] = experiment.epochs
    data = experiment.data
    samples = len(data[0]) if isinstance(data, (tuple, list)) else len(data) if hasattr(data, "__len__") else None
    if samples:
        size = min(experiment.batch_size, samples)
        facts |= {"samples": samples, "batch_size": size, "steps": experiment.epochs * math.ceil(samples / size)}
    return facts


def first_batch(rig: Rig) -> Batch:
    """Returns the first batch of the first epoch.

    Raises:
        InputError: if there is none, or no number in it is finite.
    """
    batch = next(iter(rig.batches(0)), None)
    if batch is None or not batch.samples:
        raise InputError("the data are empty: no batch came, expected at least one. Look at how they are loaded")
    x = next((t for t in tensors_in(batch.inputs) if t.is_floating_point()), None)
    if x is not None and not bool(x.isfinite().any()):
        raise InputError(
            "every input value is NaN or infinite in the first batch: nothing can be measured. Look at how the data are loaded"
        )
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


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seeds every generator that a model can be drawn from (Keras seeds itself from Python's), and puts all back."""
    python, legacy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)


def _step(rig: Rig, batch: Batch) -> Tensor:
    assert rig.optimizer is not None  # build gave one
    if rig.train_step is not None:
        with users("train_step"):
            value = rig.train_step(rig.model, (batch.inputs, batch.targets), rig.loss_fn, rig.optimizer)
        if not isinstance(value, (Tensor, float, int)) or (isinstance(value, Tensor) and value.numel() != 1):
            got = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise InputError(f"Experiment's train_step must return the loss, a scalar; got {got}. End it with: return loss")
        loss = torch.as_tensor(value)
    else:
        rig.optimizer.zero_grad(set_to_none=True)
        loss = scalar_loss(call(rig.model, batch.inputs), batch.targets, rig.loss_fn)
        loss.backward()
        rig.optimizer.step()
    if rig.scheduler is not None:
        rig.scheduler.step()
    rig.step += 1
    return loss.detach().reshape(())
