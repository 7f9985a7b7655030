"""Samples of each run's own, layers by name, rates by layer, labels that networks give."""

from __future__ import annotations

import torch
from torch import nn

from evengrad.lab.engine.runs import Runs
from evengrad.lab.models import MLP
from evengrad.lab.transfer import apart, discriminative, of_first_layers, pseudo_labels

NET = MLP(inputs=3, outputs=2, widths=(5, 4), initialiser="he_normal")


def test_each_run_has_samples_of_its_own() -> None:
    x, y = torch.arange(24.0).view(2, 4, 3), torch.arange(8).view(2, 4)
    samples = apart(x, y)
    assert samples.count == 4
    inputs, targets = samples.batch(2, torch.tensor([[0, 3], [1, 1]]))
    assert torch.equal(inputs, torch.stack((x[0, [0, 3]], x[1, [1, 1]])))
    assert targets.tolist() == [[0, 3], [5, 5]]


def test_layers_are_counted_from_the_inputs() -> None:
    network = NET.build(0)
    assert of_first_layers(network, 0) == ()
    assert of_first_layers(network, 2) == ("0.weight", "0.bias", "2.weight", "2.bias")


def test_lower_layers_learn_at_lower_rates() -> None:
    assert discriminative(NET.build(0), 2.0) == (
        *(("0.weight", 0.25), ("0.bias", 0.25)),
        *(("2.weight", 0.5), ("2.bias", 0.5)),
        *(("4.weight", 1.0), ("4.bias", 1.0)),
    )


def test_a_pseudo_label_is_what_the_run_itself_says_in_evaluation() -> None:
    networks = [nn.Sequential(nn.Dropout(0.5), NET.build(seed)) for seed in (1, 2)]
    x = torch.randn(2, 700, 3, generator=torch.Generator().manual_seed(0))  # more than are labelled at once
    runs = Runs(networks)
    expected = [network.eval()(own).argmax(1) for network, own in zip(networks, x, strict=True)]
    assert torch.equal(pseudo_labels(runs, x), torch.stack(expected))
    assert runs.module.training
