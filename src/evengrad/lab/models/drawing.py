"""initialiser, activation, generator -> layers with drawn weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import init

from evengrad.lab.models.initialisers import Fill, initialiser

_Layer = TypeVar("_Layer", nn.Linear, nn.Conv2d)


@dataclass(frozen=True)
class Drawer:
    """Draws layer after layer from one generator.

    Biases are zero, except under `default`, which is torch's own draw for linear layers and convolutions, number for number.

    Attributes:
        initialiser: Name of the initialiser.
        activation: Name of the activation behind the layers.
        scale: Factor on every weight but the head's.
        generator: None draws from torch's global one.
    """

    initialiser: str
    activation: str
    scale: float = 1.0
    generator: torch.Generator | None = None

    @staticmethod
    def seeded(initialiser: str, activation: str, scale: float, seed: int) -> Drawer:
        """Returns a drawer with a generator of its own."""
        return Drawer(initialiser, activation, scale, torch.Generator().manual_seed(seed))

    def linear(self, fan_in: int, fan_out: int, *, bias: bool = True, head: bool = False) -> nn.Linear:
        """Returns a linear layer; a head is not scaled."""
        return self._drawn(nn.Linear(fan_in, fan_out, bias, device="meta"), head)

    def conv(self, channels_in: int, channels: int, kernel: int, **options: Any) -> nn.Conv2d:
        """Returns a convolution over images; options are those of `nn.Conv2d`."""
        return self._drawn(nn.Conv2d(channels_in, channels, kernel, device="meta", **options), False)

    def weight(self, weight: Tensor, *, head: bool = False) -> None:
        """Draws one weight in place."""
        fill: Fill = initialiser(self.initialiser)
        fill(weight, self.activation, self.generator)
        if self.scale != 1 and not head:
            with torch.no_grad():
                weight.mul_(self.scale)

    def _drawn(self, shell: _Layer, head: bool) -> _Layer:
        layer = shell.to_empty(device="cpu")  # "meta" draws nothing from the global generator
        self.weight(layer.weight, head=head)
        if layer.bias is not None and self.initialiser == "default":
            bound = layer.weight[0].numel() ** -0.5
            init.uniform_(layer.bias, -bound, bound, generator=self.generator)
        elif layer.bias is not None:
            init.zeros_(layer.bias)
        return layer
