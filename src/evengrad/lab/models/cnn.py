"""sizes and choices -> convolutional network on images."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import nn

from evengrad.errors import InputError
from evengrad.lab.models import parts
from evengrad.lab.models.base import Net
from evengrad.lab.models.drawing import Drawer
from evengrad.lab.models.initialisers import initialiser as named_initialiser


@dataclass(frozen=True, kw_only=True)
class CNN(Net):
    """Convolutions, a pool, dropout, a dense layer, dropout, a head; by default the network of Keras's first example on digits.

    Attributes:
        inputs: Shape of a sample (channels, height, width).
        outputs: Classes, or numbers it answers with.
        channels: Of each convolution.
        kernel: Its side.
        padding: valid (images shrink), same (zeros around them) or circular.
        strides: First so many convolutions halve the image.
        pool: max or mean of 2 x 2 behind the convolutions, global for the mean of the whole image, or none.
        dense: Units of the dense layer; 0 for none.
        activation: See `parts.ACTIVATIONS`.
        initialiser: See `initialisers.initialiser`.
        init_scale: Factor on every weight but the head's.
        norm: none, batch or layer (over channels and places), behind each convolution.
        norm_at: before or after the activation.
        bias: Convolutions have a bias; before batch norm it changes nothing.
        dropouts: Shares dropped behind the pool and behind the dense layer, each in [0, 1); alpha dropout with SELU.
    """

    kind: ClassVar[str] = "cnn"
    inputs: tuple[int, int, int]
    outputs: int
    channels: tuple[int, ...] = (32, 64)
    kernel: int = 3
    padding: str = "valid"
    strides: int = 0
    pool: str = "max"
    dense: int = 128
    activation: str = "relu"
    initialiser: str = "default"
    init_scale: float = 1.0
    norm: str = "none"
    norm_at: str = "before"
    bias: bool = True
    dropouts: tuple[float, float] = (0.25, 0.5)

    def __post_init__(self) -> None:
        self._tuples("inputs", "channels", "dropouts")
        self._at_least(1, "inputs", "outputs", "channels", "kernel")
        self._at_least(0, "dense", "strides")
        if len(self.inputs) != 3 or not self.channels or len(self.dropouts) != 2:
            raise InputError(
                "a CNN needs inputs (channels, height, width), one convolution or more and two dropouts; "
                f"got {self.inputs}, {self.channels}, {self.dropouts}"
            )
        parts.activation(self.activation)
        named_initialiser(self.initialiser)
        self._one_of("norm", "none", *parts.IMAGE_NORMS)
        self._one_of("norm_at", "before", "after")
        self._one_of("padding", "valid", "same", "circular")
        self._one_of("pool", "max", "mean", "global", "none")
        for p in self.dropouts:
            parts.dropout(p, self.activation)
        if min(self._sides()) < 1:
            raise InputError(
                f"{len(self.channels)} convolutions of {self.kernel} x {self.kernel} leave nothing of an image of "
                f'{self.inputs[1]} x {self.inputs[2]}; take fewer, or padding="same"'
            )

    def build(self, seed: int) -> nn.Sequential:
        draw = Drawer.seeded(self.initialiser, self.activation, self.init_scale, seed)
        modules: list[nn.Module] = []
        for i, (before, after) in enumerate(pairwise((self.inputs[0], *self.channels))):
            modules += self._convolution(draw, before, after, 2 if i < self.strides else 1)
        pools = {"max": nn.MaxPool2d(2), "mean": nn.AvgPool2d(2), "global": nn.AdaptiveAvgPool2d(1)}
        modules += [pools[self.pool]] if self.pool in pools else []
        modules += [*parts.dropout(self.dropouts[0], self.activation), nn.Flatten(-3)]
        height, width = self._sides()
        features = self.channels[-1] * height * width
        if self.dense:
            modules += [draw.linear(features, self.dense), parts.activation(self.activation)]
            modules += parts.dropout(self.dropouts[1], self.activation)
        return nn.Sequential(*modules, draw.linear(self.dense or features, self.outputs, head=True))

    def _convolution(self, draw: Drawer, before: int, after: int, stride: int) -> list[nn.Module]:
        mode = "circular" if self.padding == "circular" else "zeros"
        conv = draw.conv(before, after, self.kernel, stride=stride, padding=self._around, padding_mode=mode, bias=self.bias)
        norm, phi = parts.norm(self.norm, after, image=True), parts.activation(self.activation)
        return [conv, *norm, phi] if self.norm_at == "before" else [conv, phi, *norm]

    def _sides(self) -> tuple[int, int]:
        """Height and width of what the head, or the dense layer, sees."""
        height, width = (self._side(side) for side in self.inputs[1:])
        return height, width

    @property
    def _around(self) -> int:
        return 0 if self.padding == "valid" else self.kernel // 2

    def _side(self, side: int) -> int:
        for i in range(len(self.channels)):
            side = (side + 2 * self._around - self.kernel) // (2 if i < self.strides else 1) + 1
            if side < 1:
                return 0
        return {"max": side // 2, "mean": side // 2, "global": 1}.get(self.pool, side)
