"""A very deep network and data -> trained by gradient descent with momentum, layer by layer on the way back, with what was measured."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from evengrad.lab.data import Split
from evengrad.lab.deep.layers import Params
from evengrad.lab.deep.network import DeepNet

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class DeepRun:
    """What a training left.

    Attributes:
        losses: Mean loss of each step's batch, before the step (steps,).
        accuracies: Accuracy on it, in [0, 1] (steps,).
        steps_to_target: Steps until the mean of the last five accuracies reached the target; NaN if it never did.
        train_accuracy: At the end, of all training samples.
        test_accuracy: At the end, of all test samples.
        recorded: Steps whose signals are there, counted from 0.
        signals: Name -> (recorded, layers), one value a layer (or block), the first layer first: RMS and spread over the samples of the
            state after it, mean L2 norm of a sample's loss slope at its output, RMS of its weights' gradient.
    """

    losses: Floats
    accuracies: Floats
    steps_to_target: float
    train_accuracy: float
    test_accuracy: float
    recorded: tuple[int, ...]
    signals: dict[str, Floats]


class Descent:
    """Gradient descent with momentum on a deep network, equal to `torch.optim.SGD`; each stretch of layers steps as soon as it can.

    Args:
        net: What learns.
        lr: Learning rate.
        momentum: Share of the last step that is kept.
    """

    def __init__(self, net: DeepNet, *, lr: float, momentum: float = 0.9) -> None:
        self._net, self._lr, self._momentum = net, lr, momentum
        self._velocity = {name: torch.zeros_like(w) for name, w in net.parameters.items()}

    def step(self, x: Tensor, y: Tensor, *, record: bool = False) -> tuple[Tensor, dict[str, Floats]]:
        """Takes one step; returns the logits before it and, to `record`, the signals of each layer (layers,), else nothing."""
        found = {name: np.empty(self._net.count) for name in SIGNALS if record}

        def visit(part: slice, gradients: Params, states: Tensor, slopes: Tensor) -> None:
            for name, values in found.items():
                values[part] = SIGNALS[name](gradients, states, slopes).cpu().numpy()
            for name, g in gradients.items():
                v = self._velocity[name][part].mul_(self._momentum).add_(g)
                self._net.parameters[name][part].add_(v, alpha=-self._lr)

        return self._net.gradients(x, y, visit), found


def _grad_rms(gradients: Params) -> Tensor:
    return torch.cat([g.double().flatten(1) for g in gradients.values() if g.dim() > 2], 1).square().mean(1).sqrt()


SIGNALS: dict[str, Callable[[Params, Tensor, Tensor], Tensor]] = {  # in double: what float32 still holds must not underflow when squared
    "out_rms": lambda gradients, states, slopes: states.double().flatten(1).square().mean(1).sqrt(),
    "out_spread": lambda gradients, states, slopes: states.double().var(1, correction=0).flatten(1).mean(1).sqrt(),
    "grad_out_norm": lambda gradients, states, slopes: torch.linalg.vector_norm(slopes.double().flatten(2), dim=2).mean(1),
    "grad_rms": lambda gradients, states, slopes: _grad_rms(gradients),
}
"""Name -> (gradients, states, slopes) of a stretch of layers -> the signal of each (layers,)."""


def train(
    net: DeepNet,
    data: Split,
    *,
    lr: float,
    momentum: float = 0.9,
    batch_size: int = 96,
    steps: int = 30,
    target: float = 0.9,
    seed: int = 0,
    record: tuple[int, ...] = (0,),
) -> DeepRun:
    """Trains for some steps, or until a loss is not finite; readout scaled on the first batch.

    Args:
        net: What learns.
        data: Already scaled (see `centred`), on the network's device.
        lr: Learning rate.
        momentum: Share of the last step that is kept.
        batch_size: Samples of a batch; the last one of an epoch may have fewer.
        steps: Steps.
        target: Accuracy that counts as reached.
        seed: Names the order of the samples.
        record: Steps at which signals are recorded, counted from 0.
    """
    descent = Descent(net, lr=lr, momentum=momentum)
    losses: list[float] = []
    accuracies: list[float] = []
    found: dict[int, dict[str, Floats]] = {}
    for step, index in enumerate(itertools.islice(batches(len(data.y_train), batch_size, seed), steps)):
        x, y = data.x_train[index], data.y_train[index]
        if not step:
            net.scale_readout(x)
        logits, seen = descent.step(x, y, record=step in record)
        found |= {step: seen} if seen else {}
        losses.append(float(F.cross_entropy(logits, y)))
        accuracies.append(float((logits.argmax(1) == y).double().mean()))
        if not math.isfinite(losses[-1]):
            break
    return DeepRun(
        losses=np.array(losses),
        accuracies=np.array(accuracies),
        steps_to_target=steps_to(accuracies, target),
        train_accuracy=accuracy(net, *data.train, batch_size),
        test_accuracy=accuracy(net, *data.test, batch_size),
        recorded=tuple(found),
        signals={name: np.stack([seen[name] for seen in found.values()]) for name in SIGNALS if found},
    )


def steps_to(accuracies: list[float], target: float, window: int = 5) -> float:
    """Returns the number of steps after which the mean accuracy of the last `window` batches is at least `target`; NaN if it never is."""
    for count in range(window, len(accuracies) + 1):
        if sum(accuracies[count - window : count]) / window >= target:
            return float(count)
    return math.nan


def accuracy(net: DeepNet, x: Tensor, y: Tensor, batch_size: int) -> float:
    """Returns the share of right answers; an answer that is not finite is wrong."""
    right = 0
    for inputs, labels in zip(x.split(batch_size), y.split(batch_size), strict=True):
        logits = net.logits(inputs)
        right += int(((logits.argmax(1) == labels) & logits.isfinite().all(1)).sum())
    return right / len(y)


def batches(count: int, size: int, seed: int) -> Iterator[Tensor]:
    """Yields the samples of each batch (size,) without end; every epoch is another order of all samples."""
    for epoch in itertools.count():
        yield from torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch)).split(size)


def centred(data: Split, device: str | torch.device = "cpu") -> Split:
    """Returns the data with features (N, n) of mean 0 and, all together, an RMS of 1 over the training set."""
    mean = data.x_train.mean(0)
    rms = (data.x_train - mean).square().mean().sqrt()
    return replace(
        data,
        x_train=((data.x_train - mean) / rms).to(device),
        x_test=((data.x_test - mean) / rms).to(device),
        y_train=data.y_train.to(device),
        y_test=data.y_test.to(device),
    )
