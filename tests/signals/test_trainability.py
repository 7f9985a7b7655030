"""The chance to train: what it says about networks whose fate was measured, and where it says nothing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import evengrad as eg
from evengrad.lab import data
from evengrad.lab.models import mlp


def chance(model: nn.Module, loss_fn: nn.Module | None = None) -> float | None:
    split = data.load("fashion_mnist")
    return eg.check(model, split.x_train[:128], split.y_train[:128], loss_fn or nn.CrossEntropyLoss(), causes=False).trainability


def net(depth: int, activation: str, initialiser: str, *, width: int = 64, norm: str = "none") -> nn.Module:
    return mlp([784, *[width] * depth, 10], activation, initialiser, seed=0, norm=norm)


@pytest.mark.parametrize(
    ("depth", "activation", "initialiser"), [(1, "tanh", "default"), (4, "relu", "he_normal"), (20, "tanh", "glorot_normal")]
)
def test_is_high_for_networks_that_train(depth: int, activation: str, initialiser: str) -> None:
    found = chance(net(depth, activation, initialiser))
    assert found is not None
    assert found > 0.7


@pytest.mark.parametrize(
    ("depth", "activation", "initialiser"), [(20, "sigmoid", "default"), (30, "relu", "default"), (50, "gelu", "normal_1")]
)
def test_is_low_for_networks_that_do_not(depth: int, activation: str, initialiser: str) -> None:
    found = chance(net(depth, activation, initialiser))
    assert found is not None
    assert found < 0.1


def test_falls_with_depth() -> None:
    found = [chance(net(depth, "tanh", "default")) for depth in (2, 8, 30)]
    assert None not in found
    assert found == sorted(found, reverse=True)  # type: ignore[type-var]


@pytest.mark.parametrize(
    "model",
    [net(4, "relu", "he_normal", width=128), net(4, "relu", "he_normal", norm="batch"), nn.Sequential(nn.Linear(784, 10))],
    ids=["wider than calibrated", "normed", "no hidden layer"],
)
def test_says_nothing_outside_what_was_calibrated(model: nn.Module) -> None:
    assert chance(model) is None


def test_says_nothing_for_another_loss() -> None:
    def squares(output: torch.Tensor, _targets: torch.Tensor) -> torch.Tensor:
        return output.square().mean()

    split = data.load("fashion_mnist")
    report = eg.check(net(4, "relu", "he_normal"), split.x_train[:64], split.y_train[:64], squares, causes=False)
    assert report.trainability is None
