"""trained networks, few samples -> samples of each run's own, rates of each layer's own, labels that a network gives itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from evengrad.lab.engine.plan import Samples
from evengrad.lab.engine.runs import Runs

PART = 512


def apart(x: Tensor, y: Tensor) -> Samples:
    """Returns samples of which each run has its own: x (runs, n, *sample), y (runs, n, ...)."""
    runs, count = x.shape[:2]
    index = torch.arange(runs * count, device=x.device).view(runs, count)
    return Samples(x=x.flatten(0, 1), y=y.flatten(0, 1), index=index)


def of_first_layers(network: nn.Module, count: int) -> tuple[str, ...]:
    """Returns the parameters of the first `count` layers that have any, by name: what to freeze (`Plan.frozen`)."""
    return tuple(name for layer in _layers(network)[:count] for name in layer)


def discriminative(network: nn.Module, ratio: float = 2.6) -> tuple[tuple[str, float], ...]:
    """Returns a rate for each parameter (`Plan.rates`): 1 for the last layer, and from layer to layer down a `ratio` less.

    Reference: Howard & Ruder 2018, Universal language model fine-tuning, https://arxiv.org/abs/1801.06146, sec. 3.2.

    Example:
        >>> discriminative(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1, bias=False)), ratio=4.0)
        (('0.weight', 0.25), ('0.bias', 0.25), ('2.weight', 1.0))
    """
    layers = _layers(network)
    return tuple((name, ratio ** (i + 1 - len(layers))) for i, layer in enumerate(layers) for name in layer)


@torch.no_grad()
def pseudo_labels(runs: Runs, x: Tensor) -> Tensor:
    """Returns the class that each run gives its own unlabelled samples: x (runs, n, *sample), labels (runs, n) int64.

    Reference: Lee 2013, Pseudo-label, ICML workshop on challenges in representation learning.
    """
    runs.module.eval()
    labels = [runs.module(part).argmax(-1) for part in x.split(PART, dim=1)]
    runs.module.train()
    return torch.cat(labels, 1)


def _layers(network: nn.Module) -> list[list[str]]:
    """Names of parameters, layer by layer."""
    layers: dict[str, list[str]] = {}
    for name, _ in network.named_parameters():
        layers.setdefault(name.rpartition(".")[0], []).append(name)
    return list(layers.values())
