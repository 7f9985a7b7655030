"""Two networks that do not train, on real data -> their reports: what `evengrad demo` shows."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from evengrad.lab import data
from evengrad.lab.models import mlp
from evengrad.repair import fix
from evengrad.report import Report
from evengrad.training import Experiment


def sigmoid_fashion() -> Experiment:
    """Twenty logistic layers of 64 units on real Fashion-MNIST: the gradient vanishes."""
    split = data.load("fashion_mnist")
    sizes = [784, *[64] * 19, 10]
    return Experiment(
        lambda: mlp(sizes, "sigmoid"),
        (split.x_train, split.y_train),
        nn.CrossEntropyLoss(),
        lambda model: torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9),
        validation=(split.x_test, split.y_test),
        epochs=6,
    )


def tanh_circles() -> Experiment:
    """Five tanh layers of five units, weights uniform(0, 1), on two circles: saturated, and lucky for one seed in five."""
    split = data.load("two_circles")
    return Experiment(
        lambda: mlp([2, 5, 5, 5, 5, 5, 2], "tanh", "uniform_01"),
        (split.x_train, split.y_train),
        nn.CrossEntropyLoss(),
        lambda model: torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9),
        validation=(split.x_test, split.y_test),
        epochs=120,
        batch_size=32,
    )


def run(*, seeds: int = 3, progress: Callable[[str], None]) -> list[Report]:
    """Fixes both networks and returns their reports, on one thread: for layers this small, more threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _fix_both(seeds, progress)
    finally:
        torch.set_num_threads(threads)


def _fix_both(seeds: int, progress: Callable[[str], None]) -> list[Report]:
    cases = {
        "Fashion-MNIST: 20 sigmoid layers": sigmoid_fashion(),
        "two circles: 5 tanh layers, weights uniform(0, 1)": tanh_circles(),
    }
    return [
        fix(experiment, seeds=seeds, progress=lambda line, name=name: progress(f"{name}: {line}"), name=name).report  # type: ignore[misc]
        for name, experiment in cases.items()
    ]
