"""Growing layer by layer: which weights rest, which go on, and what falls."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from evengrad.lab.data import blobs
from evengrad.lab.data.split import split
from evengrad.lab.engine.optimizers import SGD
from evengrad.lab.models import MLP
from evengrad.lab.models.greedy import shallow
from evengrad.lab.pretraining import Pretraining

NET = MLP(inputs=2, outputs=3, depth=2, width=6, activation="tanh", initialiser="glorot_normal")
SEEDS = (4, 9)


def pretraining(net: MLP = NET, lr: float = 0.05, **options: Any) -> Pretraining:
    return Pretraining(
        net=net, data=blobs(n=120), seeds=SEEDS, optimizers=tuple(SGD(lr=lr) for _ in SEEDS), epochs=2, **({"tuning": 0} | options)
    )


def weights(network: nn.Module, layer: int) -> list[torch.Tensor]:
    return [p.detach() for p in list(network.children())[layer].parameters()]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


def test_layers_below_rest_while_a_new_one_is_trained() -> None:
    alone = pretraining(shallow(NET, 1)).at_once()
    for network, first, seed in zip(pretraining().supervised(), alone, SEEDS, strict=True):
        assert same(weights(network, 0), weights(first, 0))
        assert not same(weights(network, 2), weights(NET.build(seed), 2))


def test_the_head_of_a_stage_goes_on_in_the_next() -> None:
    for network, seed in zip(pretraining(lr=0.0).supervised(), SEEDS, strict=True):
        assert same(weights(network, -1), weights(shallow(NET, 1).build(seed), -1))
        assert same(weights(network, 2), weights(NET.build(seed), 2))


def test_fine_tuning_trains_all_layers() -> None:
    grown, tuned = pretraining().supervised(), pretraining(tuning=1).supervised()
    assert not any(same(weights(a, layer), weights(b, layer)) for a, b in zip(grown, tuned, strict=True) for layer in (0, 2, -1))


def test_at_once_takes_the_steps_of_all_stages_and_of_the_fine_tuning() -> None:
    one, other = pretraining(tuning=3).at_once(), replace(pretraining(tuning=5), epochs=1).at_once()  # 2 x 2 + 3 = 2 x 1 + 5
    assert same(weights(one[0], 0), weights(other[0], 0))
    assert not same(weights(one[0], 0), weights(pretraining(tuning=4).at_once()[0], 0))


def test_an_autoencoder_goes_down_half_the_squared_distance_to_its_inputs() -> None:
    data = blobs(n=60)
    wide = torch.cat((data.x_train, data.x_train.flip(1)), 1).numpy()  # four features
    data = split("wide", data.classes, (wide, data.y_train.numpy()), (wide, data.y_train.numpy()))
    net = MLP(inputs=4, outputs=3, depth=1, width=6, activation="tanh", initialiser="glorot_normal")
    run = Pretraining(net=net, data=data, seeds=(4,), optimizers=(SGD(lr=0.01),), epochs=1, tuning=0, batch_size=30)
    coder = replace(net, outputs=4).build(4)
    x = data.x_train
    (0.5 * (coder(x) - x).square().sum(1)).mean().backward()
    expected = [p.detach() - 0.01 * p.grad for p in coder[0].parameters() if p.grad is not None]
    for ours, theirs in zip(weights(run.autoencoder()[0], 0), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)  # float32, one step


def test_a_new_head_stands_on_an_autoencoders_layers() -> None:
    for network, seed in zip(pretraining().autoencoder(), SEEDS, strict=True):
        assert same(weights(network, -1), weights(NET.build(seed), -1))
        assert not same(weights(network, 0), weights(NET.build(seed), 0))


def test_a_head_that_is_trained_to_look_changes_nothing() -> None:
    looked, alone = pretraining(), pretraining(replace(NET, depth=1))
    first = alone.autoencoder()
    assert all(same(weights(a, 0), weights(b, 0)) for a, b in zip(looked.autoencoder(), first, strict=True))
    assert looked.stages[0] == pytest.approx(alone.stages[0])
