"""Sizes of gradients as torch counts them, thresholds from them, and the two kinds of clipping."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from evengrad.lab.clipping import Watched, clipped, suggested
from evengrad.lab.engine.fit import fit
from evengrad.lab.engine.losses import LOSSES
from evengrad.lab.engine.optimizers import SGD
from evengrad.lab.engine.plan import Clip, Plan, Samples
from evengrad.lab.models.recurrent import Recurrent

NET = Recurrent(inputs=3, outputs=1, cell="rnn", hidden=5)


@pytest.mark.parametrize("clips", [(), (Clip(kind="norm", threshold=1e-3),) * 2])
def test_sizes_are_those_of_the_whole_gradient_before_it_is_clipped(clips: tuple[Clip, ...]) -> None:
    x, y = torch.randn(8, 4, 3, generator=torch.Generator().manual_seed(0)), torch.full((8,), 5.0)
    runs = Watched([NET.build(seed) for seed in (1, 2)])
    plan = Plan(loss=LOSSES["mse"], optimizers=(SGD(lr=0.0),) * 2, seeds=(1, 2), epochs=3, batch_size=8, clips=clips)
    fit(runs, Samples(x=x, y=y), plan)
    assert runs.sizes("norm").shape == runs.sizes("value").shape == (2, 3)
    for k, seed in enumerate((1, 2)):
        network = NET.build(seed)
        nn.functional.mse_loss(network(x)[:, 0], y).backward()  # most of it is negative
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        assert runs.sizes("norm")[k] == pytest.approx(nn.utils.get_total_norm(gradients).item(), rel=1e-5)  # float32, biases too
        assert runs.sizes("value")[k] == pytest.approx(max(g.abs().max().item() for g in gradients), rel=1e-5)


def test_a_threshold_is_a_percentile_of_what_is_finite_and_not_zero() -> None:
    assert suggested(np.array([1.0, np.inf, 2.0, 0.0, np.nan, 3.0]), 50) == 2.0
    assert suggested(np.arange(1.0, 12.0), 90) == 10.0
    assert math.isinf(suggested(np.array([np.nan, 0.0]), 50))


def test_by_value_the_direction_changes_and_by_norm_it_is_kept() -> None:
    gradient = np.array([0.9, 100.0])
    for kind, expected in (("value", [0.9, 1.0]), ("norm", [0.00899964, 0.9999595])):
        assert clipped(gradient, kind, 1.0) == pytest.approx(expected, rel=1e-6)
        ours = nn.Parameter(torch.zeros(2))
        ours.grad = torch.tensor(gradient, dtype=torch.float32)
        torch_clips = nn.utils.clip_grad_value_ if kind == "value" else nn.utils.clip_grad_norm_
        torch_clips([ours], 1.0)
        assert clipped(gradient, kind, 1.0) == pytest.approx(ours.grad.numpy(), rel=1e-5)  # float32


def test_what_is_small_enough_is_left_as_it_is() -> None:
    gradient = np.array([0.3, -0.4])
    assert clipped(gradient, "norm", 0.6).tolist() == clipped(gradient, "value", 0.4).tolist() == gradient.tolist()
