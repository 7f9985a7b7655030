"""Losses that keep runs apart, against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from evengrad.errors import UnknownNameError
from evengrad.lab.engine.losses import LOSSES, runs_loss

CASES = {
    "bce": (nn.BCEWithLogitsLoss(), (3, 8, 1), lambda d: torch.randint(0, 2, (3, 8), generator=d)),
    "cross_entropy": (nn.CrossEntropyLoss(), (3, 8, 5), lambda d: torch.randint(0, 5, (3, 8), generator=d)),
    "mse": (nn.MSELoss(), (3, 8, 2), lambda d: torch.randn(3, 8, 2, generator=d, dtype=torch.float64)),
}


def single(name: str, outputs: Tensor, targets: Tensor) -> Tensor:
    loss = CASES[name][0]
    if name == "bce":
        return loss(outputs, targets.reshape(outputs.shape).double())
    if name == "cross_entropy":
        return loss(outputs.flatten(0, -2), targets.flatten())
    return loss(outputs, targets)


@pytest.mark.parametrize("name", CASES)
def test_value_and_slope_equal_torchs_for_each_run(name: str) -> None:
    draw = torch.Generator().manual_seed(0)
    _, shape, targets_of = CASES[name]
    outputs = (5 * torch.randn(shape, generator=draw, dtype=torch.float64)).requires_grad_()
    targets = targets_of(draw)
    each = torch.stack([single(name, o, t) for o, t in zip(outputs, targets, strict=True)])
    torch.testing.assert_close(LOSSES[name].mean(outputs, targets), each)
    (slope,) = torch.autograd.grad(each.sum(), outputs)
    torch.testing.assert_close(LOSSES[name].slope(outputs.detach(), targets), slope)


def test_sequences_of_answers_are_a_mean_over_all_of_them() -> None:
    draw = torch.Generator().manual_seed(1)
    outputs = torch.randn(2, 4, 6, 3, generator=draw, dtype=torch.float64, requires_grad=True)  # (runs, batch, time, classes)
    labels = torch.randint(0, 3, (2, 4, 6), generator=draw)
    each = torch.stack([single("cross_entropy", o, t) for o, t in zip(outputs, labels, strict=True)])
    torch.testing.assert_close(LOSSES["cross_entropy"].mean(outputs, labels), each)
    (slope,) = torch.autograd.grad(each.sum(), outputs)
    torch.testing.assert_close(LOSSES["cross_entropy"].slope(outputs.detach(), labels), slope)
    right = LOSSES["cross_entropy"].right(outputs.detach(), labels)
    assert right is not None
    assert right.shape == (2, 24)


def test_auto_goes_by_targets_and_outputs() -> None:
    labels, numbers = torch.zeros(3, dtype=torch.int64), torch.zeros(3)
    assert [runs_loss("auto", labels, n).name for n in (1, 2)] == ["bce", "cross_entropy"]
    assert runs_loss("auto", numbers, 1).name == "mse"
    with pytest.raises(UnknownNameError, match="Did you mean 'bce'"):
        runs_loss("bec", labels, 1)
