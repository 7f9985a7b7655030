"""sizes and choices -> residual networks: of linear layers, or of convolutions on small images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from evengrad.errors import InputError
from evengrad.lab.models import parts
from evengrad.lab.models.base import Net
from evengrad.lab.models.drawing import Drawer
from evengrad.lab.models.initialisers import initialiser as named_initialiser


class Scale(nn.Module):
    """Multiplies by one learned number: ReZero's starts at 0 (Bachlechner et al. 2021), Fixup's at 1."""

    trailing_axes: ClassVar[bool] = True

    def __init__(self, start: float) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(start))

    def forward(self, h: Tensor) -> Tensor:
        return parts.scale(self.alpha, h)


class Shift(nn.Module):
    """Adds one learned number, 0 at first: Fixup has one before each layer and each activation."""

    trailing_axes: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.zeros(()))

    def forward(self, h: Tensor) -> Tensor:
        return h + parts.lift(self.beta, h)


@dataclass(frozen=True, kw_only=True)
class _Residual(Net):
    """h + branch(h), where a branch is twice (norm, activation, layer): the straight path holds nothing (He et al. 2016).

    Attributes:
        outputs: Classes, or numbers it answers with.
        branch: plain: as drawn.
            rezero: times a learned number that starts at 0, so that the network starts as the identity (Bachlechner et al. 2021).
            fixup (Zhang et al. 2019, sec. 3): the last layer of each branch and the head start at 0; the first layer of each of the L
            branches is drawn, then multiplied by L^(-1/2); a learned number (1 at first) multiplies each branch, and in place of biases
            one (0 at first) is added before each layer and each activation.
        activation: See `parts.ACTIVATIONS`.
        initialiser: See `initialisers.initialiser`.
        init_scale: Factor on every weight but the head's.
        norm: none or a norm before each activation.
        bias: Layers have a bias (fixup's branches never do); before batch norm it changes nothing.
    """

    norms: ClassVar[dict[str, Callable[[int], nn.Module]]]
    outputs: int
    branch: str = "plain"
    activation: str = "relu"
    initialiser: str = "he_normal"
    init_scale: float = 1.0
    norm: str = "none"
    bias: bool = True

    def __post_init__(self) -> None:
        self._at_least(1, "outputs")
        self._one_of("branch", "plain", "rezero", "fixup")
        self._one_of("norm", "none", *self.norms)
        parts.activation(self.activation)
        named_initialiser(self.initialiser)

    def _ready(self, features: int) -> list[nn.Module]:
        """What stands before a layer."""
        return [*parts.norm(self.norm, features, image=self.norms is parts.IMAGE_NORMS), parts.activation(self.activation)]

    def _branch(self, first: nn.Linear | nn.Conv2d, second: nn.Linear | nn.Conv2d, branches: int) -> nn.Sequential:
        before = [self._ready(layer.weight.shape[1]) for layer in (first, second)]
        if self.branch != "fixup":
            return nn.Sequential(*before[0], first, *before[1], second, *([Scale(0.0)] if self.branch == "rezero" else []))
        with torch.no_grad():
            first.weight.mul_(branches**-0.5)  # L^(-1 / (2m - 2)), with m = 2 layers in a branch
            second.weight.zero_()
        shifted = [[*ready[:-1], Shift(), ready[-1], Shift()] for ready in before]
        return nn.Sequential(*shifted[0], first, *shifted[1], second, Scale(1.0))

    def _head(self, draw: Drawer, features: int) -> nn.Linear:
        head = draw.linear(features, self.outputs, head=True)
        if self.branch == "fixup":
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
        return head

    @property
    def _biased(self) -> bool:
        return self.bias and self.branch != "fixup"


@dataclass(frozen=True, kw_only=True)
class ResidualMLP(_Residual):
    """A linear layer, blocks of two linear layers with a skip, (norm,) activation, a head: 2 * blocks + 2 layers.

    Attributes:
        inputs: Features of a sample.
        blocks: Number of blocks.
        width: Units of each layer.
    """

    kind: ClassVar[str] = "residual_mlp"
    norms: ClassVar[dict[str, Callable[[int], nn.Module]]] = parts.NORMS
    inputs: int
    blocks: int = 4
    width: int = 32

    def __post_init__(self) -> None:
        self._at_least(1, "inputs", "blocks", "width")
        super().__post_init__()

    def build(self, seed: int) -> nn.Sequential:
        draw = Drawer.seeded(self.initialiser, self.activation, self.init_scale, seed)
        modules: list[nn.Module] = [draw.linear(self.inputs, self.width, bias=self.bias)]
        for _ in range(self.blocks):
            first, second = (draw.linear(self.width, self.width, bias=self._biased) for _ in range(2))
            modules.append(parts.Skip(self._branch(first, second, self.blocks)))
        return nn.Sequential(*modules, *self._ready(self.width), self._head(draw, self.width))


@dataclass(frozen=True, kw_only=True)
class ResidualCNN(_Residual):
    """A 3x3 convolution, stages of blocks of two 3x3 convolutions with a skip, (norm,) activation, the mean over places, a head.

    Each stage after the first halves the image and starts with a skip through a 1x1 convolution. The default is the small-image network of
    20 layers of He et al. 2015b, sec. 4.2, with activations before layers.

    Attributes:
        inputs: Shape of a sample (channels, height, width).
        channels: Of each stage.
        blocks: In each stage.
    """

    kind: ClassVar[str] = "residual_cnn"
    norms: ClassVar[dict[str, Callable[[int], nn.Module]]] = parts.IMAGE_NORMS
    inputs: tuple[int, int, int]
    channels: tuple[int, ...] = (16, 32, 64)
    blocks: int = 3

    def __post_init__(self) -> None:
        self._tuples("inputs", "channels")
        self._at_least(1, "inputs", "channels", "blocks")
        if len(self.inputs) != 3 or not self.channels:
            raise InputError(
                f"a ResidualCNN needs inputs (channels, height, width) and one stage or more; got {self.inputs}, {self.channels}"
            )
        super().__post_init__()

    def build(self, seed: int) -> nn.Sequential:
        draw = Drawer.seeded(self.initialiser, self.activation, self.init_scale, seed)
        modules: list[nn.Module] = [draw.conv(self.inputs[0], self.channels[0], 3, padding=1, bias=self.bias)]
        before = self.channels[0]
        for stage, after in enumerate(self.channels):
            for block in range(self.blocks):
                modules.append(self._block(draw, before, after, 2 if stage and not block else 1))
                before = after
        return nn.Sequential(*modules, *self._ready(before), nn.AdaptiveAvgPool2d(1), nn.Flatten(-3), self._head(draw, before))

    def _block(self, draw: Drawer, before: int, after: int, stride: int) -> parts.Skip:
        first = draw.conv(before, after, 3, stride=stride, padding=1, bias=self._biased)
        second = draw.conv(after, after, 3, padding=1, bias=self._biased)
        shortcut = None if stride == 1 and before == after else draw.conv(before, after, 1, stride=stride, bias=False)
        return parts.Skip(self._branch(first, second, len(self.channels) * self.blocks), shortcut)
