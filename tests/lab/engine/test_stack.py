"""evengrad.lab.engine.stack on every kind of network of the lab: many at once are exactly each one alone."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from evengrad.lab.engine.stack import MappedRuns, stack, unstack
from evengrad.lab.models import CNN, MLP, Net, Recurrent, ResidualCNN, ResidualMLP, Transformer
from evengrad.lab.models.parts import set_step
from evengrad.registry import members

RUNS, BATCH, STEPS = 3, 6, 50
FLAT, IMAGE, SERIES = (4,), (2, 8, 8), (5, 4)
DENSE = MLP(inputs=4, outputs=3, depth=2, width=7)
IMAGES = CNN(inputs=IMAGE, outputs=3, channels=(3, 4), dense=6)
CASES: list[tuple[Net, tuple[int, ...]]] = [  # and the shape of a sample; a new kind of Net is put in here
    (MLP(inputs=4, outputs=1, depth=0), FLAT),
    (MLP(inputs=(2, 2), outputs=3, widths=(5, 6), activation="prelu", init_scale=0.5), (2, 2)),
    (replace(DENSE, norm="batch", dropout=0.3, bias=False), FLAT),
    (replace(DENSE, norm="layer", norm_at="after", norm_inputs=True, activation="rrelu"), FLAT),
    (replace(DENSE, norm="rms", residual=True, activation="selu", initialiser="lecun_normal", dropout=0.2), FLAT),
    (replace(DENSE, activation="softmax", initialiser="orthogonal_gain"), FLAT),
    (IMAGES, IMAGE),
    (replace(IMAGES, padding="same", pool="mean", norm="layer", norm_at="after", activation="selu"), IMAGE),
    (replace(IMAGES, padding="circular", strides=1, pool="global", dense=0, norm="batch", initialiser="delta_orthogonal"), IMAGE),
    (ResidualMLP(inputs=4, outputs=3, width=6, norm="batch"), FLAT),
    (ResidualMLP(inputs=4, outputs=3, width=6, branch="rezero"), FLAT),
    (ResidualMLP(inputs=4, outputs=3, width=6, branch="fixup", norm="layer"), FLAT),
    (ResidualCNN(inputs=IMAGE, outputs=3, channels=(4, 6), blocks=1, norm="batch"), IMAGE),
    (ResidualCNN(inputs=IMAGE, outputs=3, channels=(4, 6), blocks=1, branch="rezero", norm="layer"), IMAGE),
    (ResidualCNN(inputs=IMAGE, outputs=3, channels=(4, 6), blocks=1, branch="fixup"), IMAGE),
    (Recurrent(inputs=4, outputs=3, hidden=5, cell="rnn", levels=2), SERIES),
    (Recurrent(inputs=4, outputs=3, hidden=5, cell="rnn", activation="relu", initialiser="irnn"), SERIES),
    (Recurrent(inputs=4, outputs=3, hidden=5, cell="lstm", levels=2, forget_bias=1.0), SERIES),
    (Recurrent(inputs=4, outputs=3, hidden=5, cell="gru", levels=2, initialiser="orthogonal"), SERIES),
    (Transformer(inputs=4, outputs=3, length=5, width=8, heads=2, hidden=12, dropout=0.1), SERIES),
    (Transformer(vocabulary=7, outputs=3, length=9, width=8, heads=2, norm="rms", norm_at="post", causal=True, pool="last"), (5,)),
]
IDS = [f"{net.kind}{i}" for i, (net, _) in enumerate(CASES)]
each_case = pytest.mark.parametrize(("net", "sample"), CASES, ids=IDS)


def networks(net: Net) -> list[nn.Module]:
    return [net.build(seed).double() for seed in range(RUNS)]


def batches(net: Net, sample: tuple[int, ...]) -> Iterator[Tensor]:
    """Inputs (runs, batch, *sample), another batch for each run and step."""
    generator = torch.Generator().manual_seed(0)
    while True:
        if isinstance(net, Transformer) and net.vocabulary:
            yield torch.randint(net.vocabulary, (RUNS, BATCH, *sample), generator=generator)
        else:
            yield torch.randn(RUNS, BATCH, *sample, generator=generator, dtype=torch.float64)


def loss(outputs: Tensor) -> Tensor:
    """Zero outputs have a gradient too: that is where Fixup starts."""
    return (outputs - torch.arange(1.0, outputs.shape[-1] + 1)).square().mean((-2, -1)).sum()


def descend(network: nn.Module, x: Tensor, rate: float) -> Tensor:
    """One step of plain gradient descent; returns the outputs."""
    network.zero_grad()
    outputs: Tensor = network(x)
    loss(outputs).backward()
    with torch.no_grad():
        for p in network.parameters():
            p.sub_(rate * p.grad)  # type: ignore[operator]
    return outputs.detach()


def test_every_kind_of_network_is_in_the_table() -> None:
    kinds = members("evengrad.lab.models", Net, "kind")  # type: ignore[type-abstract]
    assert set(kinds) == {net.kind for net, _ in CASES}


@each_case
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_outputs_and_gradients_are_each_networks_own(net: Net, sample: tuple[int, ...], train: bool) -> None:
    alone, x = networks(net), next(batches(net, sample))
    together = stack(alone).train(train)
    set_step(together, torch.tensor([7, 8, 9]), 4)
    outputs = together(x)
    loss(outputs).backward()
    for k, network in enumerate(alone):
        network.train(train)
        set_step(network, 7 + k, 4)
        own = network(x[k])
        loss(own).backward()
        torch.testing.assert_close(outputs[k], own, rtol=1e-10, atol=1e-12)  # float64, other order of sums
        for name, p in together.named_parameters():
            torch.testing.assert_close(p.grad[k], network.get_parameter(name).grad, rtol=1e-10, atol=1e-12)


@each_case
def test_trained_together_they_stay_equal(net: Net, sample: tuple[int, ...]) -> None:
    alone, source = networks(net), batches(net, sample)
    before = copy.deepcopy(alone)
    together = stack(alone)
    for step in range(STEPS):
        x = next(source)
        set_step(together, torch.tensor([7, 8, 9]), step)
        outputs = descend(together, x, 0.02)
        for k, network in enumerate(alone):
            set_step(network, 7 + k, step)
            own = descend(network, x[k], 0.02)
            torch.testing.assert_close(outputs[k], own, rtol=1e-7, atol=1e-9)  # rounding of 1e-16 that 50 steps amplify
    x = next(source)
    outputs = together.eval()(x)
    for k, (network, start) in enumerate(zip(alone, before, strict=True)):
        torch.testing.assert_close(outputs[k], network.eval()(x[k]), rtol=1e-7, atol=1e-9)
        returned = unstack(together, k, start).state_dict()
        torch.testing.assert_close(returned, network.state_dict(), rtol=1e-7, atol=1e-9)  # parameters and batch norm's buffers
        weights = [name for name, p in network.named_parameters() if p.dim() > 1]
        assert all((returned[name] - start.state_dict()[name]).abs().max() > 1e-6 for name in weights), "a weight was not trained"


@each_case
def test_no_part_of_the_labs_networks_needs_vmap(net: Net, sample: tuple[int, ...]) -> None:
    assert not [m for m in stack(networks(net)).modules() if isinstance(m, MappedRuns)]


@each_case
def test_names_and_shapes_are_torchs_with_an_axis_in_front(net: Net, sample: tuple[int, ...]) -> None:
    alone = networks(net)
    expected = [(name, (RUNS, *p.shape)) for name, p in alone[0].named_parameters()]
    assert [(name, tuple(p.shape)) for name, p in stack(alone).named_parameters()] == expected
