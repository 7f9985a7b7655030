"""sizes and choices -> small Transformer encoder with a head on the last or the mean position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn import init

from evengrad.errors import InputError
from evengrad.lab.models import parts
from evengrad.lab.models.base import Net
from evengrad.lab.models.drawing import Drawer
from evengrad.lab.models.initialisers import initialiser as named_initialiser


class Positions(nn.Module):
    """Adds a learned vector for each position: table (length, width), h (..., time, width) with time up to length."""

    trailing_axes: ClassVar[bool] = True

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(length, width))

    def forward(self, h: Tensor) -> Tensor:
        return h + parts.lift(self.table[..., : h.shape[-2], :], h, 2)


class Attention(nn.Module):
    """Self-attention (Vaswani et al. 2017) made of four linear layers: h (..., time, width)."""

    trailing_axes: ClassVar[bool] = True

    def __init__(self, layers: list[nn.Linear], heads: int, causal: bool) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = layers
        self.heads = heads
        self.causal = causal

    def forward(self, h: Tensor) -> Tensor:
        q, k, v = (self._by_head(layer(h)) for layer in (self.query, self.key, self.value))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)  # (samples, heads, time, width / heads)
        return self.out(mixed.transpose(-3, -2).reshape(h.shape))  # type: ignore[no-any-return]

    def _by_head(self, z: Tensor) -> Tensor:
        return z.reshape(-1, z.shape[-2], self.heads, z.shape[-1] // self.heads).transpose(-3, -2)

    def extra_repr(self) -> str:
        return f"heads={self.heads}, causal={self.causal}"


@dataclass(frozen=True, kw_only=True)
class Transformer(Net):
    """An encoder of `depth` blocks: attention, then two linear layers, each with a skip and a norm.

    Attributes:
        inputs: Features of a step, for (batch, time, inputs); 0 with a vocabulary.
        vocabulary: Number of tokens, for (batch, time) of whole numbers; 0 with inputs.
        outputs: Classes, or numbers it answers with.
        length: Longest sequence.
        depth: Blocks.
        width: Features of a position.
        heads: Of each attention; they share the width.
        hidden: Units of a block's hidden layer.
        activation: Behind that layer.
        initialiser: See `initialisers.initialiser`; embeddings and positions are normal with a deviation of 0.02 (Radford et al. 2018).
        init_scale: Factor on every weight but the head's, the embedding's and the positions'.
        norm: layer, rms or none.
        norm_at: pre (before attention and layers, and before the head; Xiong et al. 2020) or post (behind each skip; Vaswani et al. 2017).
        causal: A position sees itself and earlier ones only.
        pool: mean or last: what the head sees.
        dropout: Share dropped at the end of each branch, in [0, 1).
    """

    kind: ClassVar[str] = "transformer"
    outputs: int
    length: int
    inputs: int = 0
    vocabulary: int = 0
    depth: int = 2
    width: int = 32
    heads: int = 4
    hidden: int = 64
    activation: str = "gelu"
    initialiser: str = "glorot_uniform"
    init_scale: float = 1.0
    norm: str = "layer"
    norm_at: str = "pre"
    causal: bool = False
    pool: str = "mean"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        self._at_least(1, "outputs", "length", "depth", "width", "heads", "hidden")
        self._at_least(0, "inputs", "vocabulary")
        if bool(self.inputs) == bool(self.vocabulary):
            raise InputError(f"give either inputs (features of a step) or a vocabulary (tokens); got {self.inputs} and {self.vocabulary}")
        if self.width % self.heads:
            raise InputError(f"the heads share the width, which must be a multiple of their number; got {self.width} and {self.heads}")
        self._one_of("norm", "none", "layer", "rms")
        self._one_of("norm_at", "pre", "post")
        self._one_of("pool", "mean", "last")
        parts.activation(self.activation)
        named_initialiser(self.initialiser)
        parts.dropout(self.dropout, "")

    def build(self, seed: int) -> nn.Sequential:
        draw = Drawer.seeded(self.initialiser, self.activation, self.init_scale, seed)
        modules = [self._embedding(draw), self._positions(draw)]
        for _ in range(self.depth):
            attention = Attention([draw.linear(self.width, self.width) for _ in range(4)], self.heads, self.causal)
            layers = [draw.linear(self.width, self.hidden), parts.activation(self.activation), draw.linear(self.hidden, self.width)]
            modules += self._sublayer([attention]) + self._sublayer(layers)
        modules += self._norm() if self.norm_at == "pre" else []
        pool = parts.Mean() if self.pool == "mean" else parts.Last()
        return nn.Sequential(*modules, pool, draw.linear(self.width, self.outputs, head=True))

    def _sublayer(self, branch: list[nn.Module]) -> list[nn.Module]:
        branch = [*branch, *parts.dropout(self.dropout, "")]
        if self.norm_at == "pre":
            return [parts.Skip(nn.Sequential(*self._norm(), *branch))]
        return [parts.Skip(nn.Sequential(*branch)), *self._norm()]

    def _norm(self) -> list[nn.Module]:
        return parts.norm(self.norm, self.width)

    def _embedding(self, draw: Drawer) -> nn.Module:
        if self.inputs:
            return draw.linear(self.inputs, self.width)
        table = nn.Embedding(self.vocabulary, self.width, device="meta").to_empty(device="cpu")
        init.normal_(table.weight, 0.0, 0.02, generator=draw.generator)
        return table

    def _positions(self, draw: Drawer) -> Positions:
        positions = Positions(self.length, self.width)
        init.normal_(positions.table, 0.0, 0.02, generator=draw.generator)
        return positions
