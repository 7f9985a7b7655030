"""The gradient at each step of a sequence, and runs that end where they have learned."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from evengrad.lab.data import adding, copy_memory
from evengrad.lab.engine.fit import fit
from evengrad.lab.engine.losses import LOSSES
from evengrad.lab.engine.optimizers import Adam
from evengrad.lab.engine.plan import Plan
from evengrad.lab.engine.runs import Runs
from evengrad.lab.models.recurrent import Recurrent
from evengrad.lab.through_time import through_time
from evengrad.lab.until_learned import UntilLearned

NET = Recurrent(inputs=2, outputs=1, cell="rnn", hidden=5)
SEEDS = (1, 2)


def test_it_is_each_sequences_own_gradient_at_each_step() -> None:
    data = adding(length=6, n=1, n_test=3)
    sizes, zeros = through_time(Runs([NET.build(seed) for seed in SEEDS]), data.x_test, data.y_test, LOSSES["mse"], bins=3)
    assert sizes.shape == zeros.shape == (2, 3)
    for k, seed in enumerate(SEEDS):
        network, slopes = NET.build(seed), []
        for own, y in zip(data.x_test, data.y_test, strict=True):
            x = own[None].clone().requires_grad_()
            (network(x)[0, 0] - y).square().backward()
            assert x.grad is not None
            slopes.append(x.grad[0].double())
        expected = torch.stack(slopes).square().sum(-1).view(3, 3, 2).mean((0, 2)).sqrt()  # over sequences, and two steps a stretch
        assert sizes[k] == pytest.approx(expected.numpy(), rel=1e-4)  # float32
    assert not zeros.any()


def test_what_is_below_the_smallest_float_is_counted_as_zero() -> None:
    network = Recurrent(inputs=2, outputs=1, cell="rnn", hidden=5, init_scale=0.03).build(0)
    data = adding(length=40, n=1, n_test=4)
    sizes, zeros = through_time(Runs([network]), data.x_test, data.y_test, LOSSES["mse"], bins=4)
    assert (zeros[0, 0], sizes[0, 0]) == (1.0, 0.0)
    assert 0 < zeros[0, 1] < 1  # it ends within this stretch
    assert sizes[0, 1] > 0
    assert zeros[0, 3] == 0


def test_there_are_no_more_stretches_than_steps() -> None:
    data = adding(length=6, n=1, n_test=2)
    assert through_time(Runs([NET.build(0)]), data.x_test, data.y_test, LOSSES["mse"])[0].shape == (1, 6)


def watched(goal: tuple[str, float], rates: tuple[float, ...] = (0.02, 0.0), epochs: int = 60) -> tuple[UntilLearned, Runs]:
    data = adding(length=4, n=130, n_test=50)
    runs = Runs([NET.build(1) for _ in rates])
    watch = UntilLearned(data, LOSSES["mse"], runs.count, part=40, goal=goal)
    plan = Plan(loss=LOSSES["mse"], optimizers=tuple(Adam(lr=r) for r in rates), seeds=(1,) * len(rates), epochs=epochs, batch_size=8)
    fit(runs, watch.samples, plan, probe=watch)
    watch.finish(runs)
    return watch, runs


def test_a_run_ends_where_it_has_learned_whatever_the_others_do() -> None:
    watch, _ = watched(("loss", 0.18))
    assert watch.learned.tolist() == [True, False]
    assert watch.epochs[0] < watch.epochs[1] == 60
    values, series = watch.end(0)
    assert len(series["loss"]) == watch.epochs[0] + 1
    assert values["test_loss"] == series["loss"][-1] <= 0.18 < series["loss"][-2]
    alone, runs = watched(("loss", 0.18), rates=(0.02,))
    assert alone.epochs[0] == watch.epochs[0]  # it stopped there
    assert series["gradient_end"] == pytest.approx(alone.end(0)[1]["gradient_end"], rel=1e-3)  # float32, another batch of runs
    error = nn.functional.mse_loss(
        runs.network(0)(adding(length=4, n=130, n_test=50).x_test)[:, 0], adding(length=4, n=130, n_test=50).y_test
    )
    assert error.item() == pytest.approx(alone.end(0)[0]["test_loss"], rel=1e-4)


def test_a_run_that_never_learns_is_seen_at_the_end() -> None:
    watch, _ = watched(("loss", 0.18))
    values, series = watch.end(1)
    assert values["learned"] == 0.0
    assert len(series["loss"]) == 61
    assert np.array_equal(series["gradient_end"], series["gradient_start"])  # at a rate of 0


def test_every_epoch_has_sequences_of_its_own_until_all_have_been_seen() -> None:
    data = adding(length=4, n=130, n_test=10)
    watch = UntilLearned(data, LOSSES["mse"], 2, part=40, goal=("loss", 0.0))
    runs = Runs([NET.build(seed) for seed in SEEDS])
    seen = []
    for epoch in range(4):
        watch(runs, epoch, 0)
        assert watch.samples.index is not None
        seen.append(watch.samples.index[1, [0, -1]].tolist())
    assert seen == [[0, 39], [40, 79], [80, 119], [0, 39]]


def test_an_accuracy_is_reached_from_below() -> None:
    data = copy_memory(delay=1, length=1, n=64, n_test=64, every_step=False)
    runs = Runs([Recurrent(inputs=10, outputs=8, cell="rnn", hidden=8).build(0)])
    watch = UntilLearned(data, LOSSES["cross_entropy"], 1, part=64, goal=("accuracy", 0.9))
    plan = Plan(loss=LOSSES["cross_entropy"], optimizers=(Adam(lr=0.02),), seeds=(0,), epochs=40, batch_size=8)
    fit(runs, watch.samples, plan, probe=watch)
    values, series = watch.end(0)
    assert values["learned"] == 1.0
    assert series["accuracy"][-2] < 0.9 <= series["accuracy"][-1] == values["test_accuracy"]
