"""sizes and choices -> multilayer perceptron."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
class MLP(Net):
    """Linear, norm, activation, dropout, ..., linear: from linear, logistic and softmax regression (depth 0) to any depth and width.

    Attributes:
        inputs: Features of a sample; its shape, such as (1, 28, 28), puts a flatten in front.
        outputs: Numbers it answers with: targets, classes, or 1 for two classes.
        depth: Hidden layers.
        width: Units of each.
        widths: Units of each where they differ; their number is the depth.
        activation: See `parts.ACTIVATIONS`; one option may follow, as in `leaky_relu(0.2)`.
        initialiser: See `initialisers.initialiser`.
        init_scale: Factor on the hidden layers' weights.
        norm: none, batch, layer or rms.
        norm_at: before or after the activation.
        norm_inputs: The norm stands before the first layer, too.
        bias: Hidden layers have a bias; before batch norm it changes nothing.
        residual: Adds the input to the output of each hidden layer that keeps the width.
        dropout: Share of hidden units dropped in training, in [0, 1); alpha dropout behind SELU.
    """

    kind: ClassVar[str] = "mlp"
    inputs: int | tuple[int, ...]
    outputs: int
    depth: int = 1
    width: int = 32
    widths: tuple[int, ...] | None = None
    activation: str = "relu"
    initialiser: str = "default"
    init_scale: float = 1.0
    norm: str = "none"
    norm_at: str = "before"
    norm_inputs: bool = False
    bias: bool = True
    residual: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        self._tuples("inputs", "widths")
        if self.widths is not None:
            self._at_least(1, "widths")
            object.__setattr__(self, "depth", len(self.widths))
        self._at_least(1, "inputs", "outputs", "width")
        self._at_least(0, "depth")
        parts.activation(self.activation)
        named_initialiser(self.initialiser)
        self._one_of("norm", "none", *parts.NORMS)
        self._one_of("norm_at", "before", "after")
        parts.dropout(self.dropout, self.activation)

    def build(self, seed: int) -> nn.Sequential:
        return self.drawn(Drawer.seeded(self.initialiser, self.activation, self.init_scale, seed))

    def drawn(self, draw: Drawer) -> nn.Sequential:
        """Returns the network, drawn layer by layer."""
        sample = self.inputs if isinstance(self.inputs, tuple) else (self.inputs,)
        features = math.prod(sample)
        modules: list[nn.Module] = [nn.Flatten(-len(sample))] if len(sample) > 1 else []
        modules += parts.norm(self.norm, features) if self.norm_inputs else []
        sizes = [features, *(self.widths or [self.width] * self.depth)]
        for fan_in, fan_out in pairwise(sizes):
            hidden = self._hidden(draw, fan_in, fan_out)
            modules += [parts.Skip(nn.Sequential(*hidden))] if self.residual and fan_in == fan_out else hidden
        return nn.Sequential(*modules, draw.linear(sizes[-1], self.outputs, head=True))

    def _hidden(self, draw: Drawer, fan_in: int, fan_out: int) -> list[nn.Module]:
        linear, phi = draw.linear(fan_in, fan_out, bias=self.bias), parts.activation(self.activation)
        norm = parts.norm(self.norm, fan_out)
        order = [linear, *norm, phi] if self.norm_at == "before" else [linear, phi, *norm]
        return order + parts.dropout(self.dropout, self.activation)


def mlp(
    sizes: Sequence[int],
    activation: str = "relu",
    initialiser: str = "default",
    *,
    norm: str = "none",
    seed: int | None = None,
) -> nn.Sequential:
    """Builds a plain multilayer perceptron: Linear, (norm,) activation, ..., Linear.

    The weights are drawn layer by layer from one generator, so that a seed names a network and two
    initialisers of one family differ only by scale under one seed. Biases are zero, except under
    `default`, which is torch's own draw for `nn.Linear`, number for number.

    Args:
        sizes: Widths from the input to the output; n + 2 of them make n hidden layers.
        activation: A name that `parts.activation` knows, placed after every layer but the last.
        initialiser: A name that `initialisers.initialiser` knows.
        norm: `none`, `batch`, `layer` or `rms`, placed before each activation.
        seed: Seeds a generator of its own and leaves the global one alone; None draws from the global one.

    Raises:
        InputError: `sizes` has fewer than two members, or one below 1.
        UnknownNameError: A name is not known; the nearest one is offered.

    Example:
        >>> mlp([2, 16, 16, 2], "tanh", "glorot_normal", seed=0)(torch.zeros(8, 2)).shape
        torch.Size([8, 2])
    """
    if len(sizes) < 2 or min(sizes) < 1:
        raise InputError(f"sizes must be two or more widths of at least 1, got {list(sizes)}; write [inputs, hidden..., outputs]")
    widths = tuple(sizes[1:-1])
    net = MLP(inputs=sizes[0], outputs=sizes[-1], widths=widths, activation=activation, initialiser=initialiser, norm=norm)
    return net.drawn(Drawer(initialiser, activation)) if seed is None else net.build(seed)
