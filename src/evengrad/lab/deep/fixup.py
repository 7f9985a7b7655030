"""Residual blocks of two layers without norm, kept even by Fixup -> states, slopes and gradients of a stretch of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from evengrad.lab.deep.layers import Layers, Params, isometry, linear
from evengrad.remedies.schemes import fill_


@dataclass(frozen=True, kw_only=True)
class FixupBlocks(Layers):
    """h + W2 relu(W1 h), without biases; a block's output in the sense of `backward` is this sum.

    W2 begins at zero and W1 as He's divided by the root of the number of blocks, so that a step of gradient descent changes the network's
    function as much at any depth: the learning rate need not fall with depth. The paper's third rule, learned scalars beside the
    weights, is left out: the gradients of scalars add up over units, and at 2,000 layers they diverge where weights alone train.

    Attributes:
        width: Units of a layer.

    Reference: Zhang, Dauphin & Ma 2019, Fixup initialization, https://arxiv.org/abs/1901.09321
    """

    deep: ClassVar[int] = 2

    width: int = 64

    def draw(self, count: int, generator: torch.Generator) -> Params:
        """Draws block by block."""
        first = torch.empty(count, self.width, self.width)
        for w in first:
            fill_(w, "he_normal", fans=(self.width, self.width), gain=count**-0.5, generator=generator)  # L^(-1/(2m-2)), m = 2
        return {"first": first, "second": torch.zeros_like(first)}

    def encoder(self, inputs: int, generator: torch.Generator) -> nn.Module:
        """A semi-orthogonal matrix."""
        return linear(isometry(torch.empty(self.width, inputs), generator))

    def forward(self, p: Params, states: Tensor) -> None:
        """Two products a block."""
        here, *following = states.unbind()
        for w1, w2, after in zip(p["first"].mT.unbind(), p["second"].mT.unbind(), following, strict=True):
            here = torch.addmm(here, torch.mm(here, w1).relu_(), w2, out=after)

    def backward(self, p: Params, states: Tensor, slope: Tensor) -> tuple[Tensor, Params, Tensor]:
        """Two products a block for the slopes, then batched ones for what lies inside the blocks and for all gradients."""
        inside = torch.bmm(states[:-1], p["first"].mT).relu_()
        slopes, inner = torch.empty_like(inside), torch.empty_like(inside)
        for w1, w2, r, s, z in reversed(list(zip(p["first"], p["second"], inside, slopes, inner, strict=True))):
            s.copy_(slope)
            z.copy_(torch.ops.aten.threshold_backward(torch.mm(s, w2), r, 0))
            slope = torch.addmm(s, z, w1)
        return slope, {"first": torch.bmm(inner.mT, states[:-1]), "second": torch.bmm(slopes.mT, inside)}, slopes

    def module(self, p: Params) -> nn.Module:
        """The same block, as one would write it."""
        return _Block(p["first"], p["second"])


class _Block(nn.Module):
    """One block in plain torch."""

    def __init__(self, first: Tensor, second: Tensor) -> None:
        super().__init__()
        self.first, self.second = (linear(w) for w in (first, second))

    def forward(self, h: Tensor) -> Tensor:
        """Takes and returns (batch, width)."""
        branch: Tensor = self.second(self.first(h).relu())
        return h + branch
