"""trained shallow network -> deeper network that starts from its layers: greedy layer-wise pre-training (Bengio et al. 2007).

A network of 1 hidden layer is trained, then one of 2 whose first layer is the trained one, and so on; then all of it is trained.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from evengrad.errors import InputError
from evengrad.lab.models.mlp import MLP


def shallow(net: MLP, depth: int) -> MLP:
    """Returns the network's first `depth` hidden layers with a head of the same outputs.

    Raises:
        InputError: if it does not have so many.
    """
    if not 0 <= depth <= net.depth:
        raise InputError(f"the network has {net.depth} hidden layers; got depth={depth}")
    return replace(net, depth=depth, widths=None if net.widths is None else net.widths[:depth])


def stages(net: MLP) -> list[MLP]:
    """Returns the networks of 1, 2, ..., n hidden layers, the last one being `net`."""
    return [shallow(net, depth) for depth in range(1, net.depth + 1)]


def grow(net: MLP, trained: nn.Module, seed: int) -> nn.Sequential:
    """Returns `net` as `build` draws it, but with the hidden layers of a trained, shallower network in front.

    The head of the trained network is left behind.

    Args:
        net: The deeper network.
        trained: What `shallow(net, depth).build(...)` became in training; it is left as it is.
        seed: Seeds the weights of the layers that are new.

    Raises:
        InputError: if `trained` is not a shallower network of this kind.
    """
    grown = net.build(seed)
    with torch.no_grad():
        for name, value in hidden_state(trained).items():
            try:
                own = grown.get_parameter(name) if name in dict(grown.named_parameters()) else grown.get_buffer(name)
                own.copy_(value)
            except (AttributeError, RuntimeError) as error:
                raise InputError(f"the trained network is no shallower form of {net}: its {name} does not fit ({error})") from error
    return grown


def hidden_state(network: nn.Module) -> dict[str, torch.Tensor]:
    """Returns parameters and buffers of everything but the head, by name: what `grow` copies, and what to freeze in a stage."""
    head = f"{len(list(network.children())) - 1}."
    return {name: value for name, value in network.state_dict().items() if not name.startswith(head)}
