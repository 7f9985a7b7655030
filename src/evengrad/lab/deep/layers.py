"""States of a stretch of equal layers, and the slope at its end -> states, slopes and gradients of every layer in it.

Autograd keeps a graph node, several tensors and a gradient for each layer. Layers that are alike need none of that: their weights are one
tensor with a leading axis for depth, their states another, and the gradients of a whole stretch are one batched matrix product.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evengrad.errors import InputError
from evengrad.remedies.schemes import fill_

Params = dict[str, Tensor]
"""Name of a parameter -> its values in every layer, (layers, ...)."""

_aten = torch.ops.aten


@dataclass(frozen=True, kw_only=True)
class Layers(ABC):
    """A kind of layer whose output is shaped like its input, so that any number can follow each other."""

    deep: ClassVar[int] = 1  # weight layers on the way through one of it

    @abstractmethod
    def draw(self, count: int, generator: torch.Generator) -> Params:
        """Draws the weights of `count` layers on the CPU, as float32."""

    @abstractmethod
    def encoder(self, inputs: int, generator: torch.Generator) -> nn.Module:
        """Returns a linear map from samples (batch, inputs) to the first state that keeps their RMS."""

    @abstractmethod
    def forward(self, p: Params, states: Tensor) -> None:
        """Fills `states` (layers + 1, batch, ...) from the first one."""

    @abstractmethod
    def backward(self, p: Params, states: Tensor, slope: Tensor) -> tuple[Tensor, Params, Tensor]:
        """Takes the loss's slope at the last of `states` down to the first.

        Returns:
            The slope at the first state; the gradients, shaped as `p`; the slope at each layer's output (layers, batch, ...).
        """

    @abstractmethod
    def module(self, p: Params) -> nn.Module:
        """Returns one layer in plain torch with the weights `p`, copied, which are without the axis for depth; in the order of `p`."""


@dataclass(frozen=True, kw_only=True)
class TanhLinear(Layers):
    """tanh(W h), without bias; its output in the sense of `backward` is W h.

    Attributes:
        width: Units of a layer.
        scheme: Initialiser, a name of `evengrad.remedies.schemes.SCHEMES`, or `default` for torch's own.
        gain: Factor on its standard deviation.
    """

    width: int = 64
    scheme: str = "orthogonal"
    gain: float = 1.0

    def draw(self, count: int, generator: torch.Generator) -> Params:
        """Draws layer by layer."""
        weight = torch.empty(count, self.width, self.width)
        bound = self.width**-0.5
        for w in weight:
            if self.scheme == "default":  # nn.Linear.reset_parameters
                fill_(w, "uniform", fans=(self.width, self.width), low=-bound, high=bound, generator=generator)
            else:
                fill_(w, self.scheme, fans=(self.width, self.width), gain=self.gain, generator=generator)
        return {"weight": weight}

    def encoder(self, inputs: int, generator: torch.Generator) -> nn.Module:
        """A semi-orthogonal matrix."""
        return linear(isometry(torch.empty(self.width, inputs), generator))

    def forward(self, p: Params, states: Tensor) -> None:
        """Multiplies straight into the next state."""
        here, *following = states.unbind()
        for w, after in zip(p["weight"].mT.unbind(), following, strict=True):
            torch.mm(here, w, out=after)
            here = after.tanh_()

    def backward(self, p: Params, states: Tensor, slope: Tensor) -> tuple[Tensor, Params, Tensor]:
        """One product a layer for the slopes, then one batched product for all gradients."""
        slopes = torch.empty_like(states[1:])
        for w, h, s in reversed(list(zip(p["weight"].unbind(), states[1:].unbind(), slopes.unbind(), strict=True))):
            _aten.tanh_backward.grad_input(slope, h, grad_input=s)
            slope = torch.mm(s, w)
        return slope, {"weight": torch.bmm(slopes.mT, states[:-1])}, slopes

    def module(self, p: Params) -> nn.Module:
        """Linear, tanh."""
        return nn.Sequential(linear(p["weight"]), nn.Tanh())


@dataclass(frozen=True, kw_only=True)
class TanhConv(Layers):
    """tanh of a 3 x 3 convolution with zero padding, without bias; its output in the sense of `backward` is the convolution's.

    Attributes:
        channels: Channels of a state, at least 4.
        scheme: Initialiser, a name of `evengrad.remedies.schemes.SCHEMES`.
        gain: Factor on its standard deviation.
        scale: Factor on the encoded input.

    Reference: Xiao et al. 2018, Dynamical isometry and a mean field theory of CNNs, https://arxiv.org/abs/1806.05393
    """

    channels: int = 16
    scheme: str = "delta_orthogonal"
    gain: float = 1.0
    scale: float = 1.0

    def draw(self, count: int, generator: torch.Generator) -> Params:
        """Draws layer by layer."""
        weight = torch.empty(count, self.channels, self.channels, 3, 3)
        for w in weight:
            fill_(w, self.scheme, fans=(9 * self.channels, 9 * self.channels), gain=self.gain, generator=generator)
        return {"weight": weight}

    def encoder(self, inputs: int, generator: torch.Generator) -> nn.Module:
        """Square images: each block of 2 x 2 pixels becomes 4 channels, which `scale` times an isometry takes to `channels`."""
        side = math.isqrt(inputs)
        if side * side != inputs or side % 2:
            raise InputError(f"the convolutional network takes square images with an even side; got {inputs} inputs. Use 8 x 8 = 64")
        widen = isometry(torch.empty(self.channels, 4, 1, 1), generator) * self.scale
        return nn.Sequential(nn.Unflatten(1, (1, side, side)), nn.PixelUnshuffle(2), convolution(widen))

    def forward(self, p: Params, states: Tensor) -> None:
        """One convolution a layer."""
        here, *following = states.unbind()
        for w, after in zip(p["weight"].unbind(), following, strict=True):
            here = torch.tanh(F.conv2d(here, w, padding=1), out=after)

    def backward(self, p: Params, states: Tensor, slope: Tensor) -> tuple[Tensor, Params, Tensor]:
        """One transposed convolution and one correlation a layer."""
        slopes = torch.empty_like(states[1:])
        gradient = torch.empty_like(p["weight"])
        before, after = states[:-1].unbind(), states[1:].unbind()
        for w, x, h, s, g in reversed(list(zip(p["weight"].unbind(), before, after, slopes.unbind(), gradient.unbind(), strict=True))):
            _aten.tanh_backward.grad_input(slope, h, grad_input=s)
            slope, g[:], _ = _aten.convolution_backward(s, x, w, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True, True, False])
        return slope, {"weight": gradient}, slopes

    def module(self, p: Params) -> nn.Module:
        """Conv2d, tanh."""
        return nn.Sequential(convolution(p["weight"]), nn.Tanh())


def linear(weight: Tensor) -> nn.Linear:
    """Returns torch's layer without bias with a copy of this weight (out, in)."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")  # "meta" draws nothing from the global RNG
    layer.weight = nn.Parameter(weight.clone())
    return layer


def convolution(weight: Tensor) -> nn.Conv2d:
    """Returns torch's layer without bias, padded to keep the size, with a copy of this weight (out, in, k, k)."""
    out, into, size, _ = weight.shape
    layer = nn.Conv2d(into, out, size, padding=size // 2, bias=False, device="meta")
    layer.weight = nn.Parameter(weight.clone())
    return layer


def isometry(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Fills a weight (out, in, ...) to be (semi-)orthogonal, so scaled that inputs with independent features keep their RMS."""
    return nn.init.orthogonal_(weight, max(1.0, weight.shape[0] / weight.shape[1]) ** 0.5, generator=generator)
