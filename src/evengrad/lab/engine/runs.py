"""K networks of one shape -> one network with all their weights in one buffer: K trainings at the price of a few."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import prod

import torch
from torch import Tensor, nn

from evengrad.errors import InputError
from evengrad.lab.engine.chain import Chain
from evengrad.lab.engine.losses import RunsLoss
from evengrad.lab.engine.stack import stack, taken, unstack


@dataclass(frozen=True)
class Block:
    """Parameters of one shape, side by side: `names` (n), `weights` and `grads` (n, runs, *shape), views of the runs' buffers."""

    names: tuple[str, ...]
    weights: Tensor
    grads: Tensor

    @property
    def flat(self) -> tuple[Tensor, Tensor]:
        """Both with one axis of elements (n, runs, elements), still views."""
        return _elements(self.weights), _elements(self.grads)


class Runs:
    """K networks of one shape, trained as one.

    All parameters lie in one flat buffer, those of equal shape side by side (n, runs, *shape), so that each network's weights are
    contiguous for the batched matrix product, an optimizer's step is a few operations on the whole buffer, and a statistic of every layer
    of every run is a few more.

    Args:
        modules: Networks of equal structure; they are left as they are.
        device: Where to train; None leaves them where they are.

    Attributes:
        module: The batched network: input (runs, batch, *sample), output (runs, batch, *output); every parameter has a leading runs axis.
        flat: Every weight (N,).
        grad: The gradient of the sum of the runs' mean losses (N,).
        blocks: Views of both, one for each shape of parameter.
        layers: Rows that are recorded, in order: each parameter with two axes or more, under its module's name.
        recorded: The blocks that hold them, and `order` (layers,) their places in these blocks, one after the other.

    Raises:
        InputError: if the networks cannot be made one.
    """

    def __init__(self, modules: Sequence[nn.Module], device: torch.device | str | None = None) -> None:
        if not modules:
            raise InputError("no network was given: expected at least one module")
        self.template = copy.deepcopy(modules[0])
        self.count = len(modules)
        self.module = stack(modules)
        if device is not None:
            self.module.to(device)
        self._gather()

    def _gather(self) -> None:
        self.flat, self.grad, self.blocks = _gathered(dict(self.module.named_parameters()))
        recorded = [name for name, p in self.module.named_parameters() if p.dim() > 2]
        self.layers = tuple(name.removesuffix(".weight") for name in recorded)
        self.recorded = tuple(b for b in self.blocks if b.names[0] in recorded)
        met = [name for block in self.recorded for name in block.names]
        self.order = torch.tensor([met.index(name) for name in recorded], device=self.device)
        self._chain = Chain.of(self.module)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.flat.device

    def gradients(self, x: Tensor, y: Tensor, loss: RunsLoss) -> Tensor:
        """Fills `grad` and returns the outputs; a plain chain goes through a backward pass of our own, the rest through autograd.

        Args:
            x: (runs, batch, *sample).
            y: (runs, batch, ...).
            loss: The loss whose mean over a run's answers is differentiated.
        """
        if self._chain is not None and x.dim() == 3:
            return self._chain.gradients(x, y, loss)
        self.grad.zero_()
        outputs: Tensor = self.module(x)
        outputs.backward(loss.slope(outputs.detach(), y))
        return outputs.detach()

    def take(self, places: Sequence[int]) -> Runs:
        """Returns the runs at these places, with copies of their weights, as runs of their own."""
        part = copy.copy(self)
        part.count, part.module = len(places), taken(self.module, places)
        part._gather()
        return part

    def network(self, k: int) -> nn.Module:
        """Returns the k-th network as a plain torch module of its own, on the CPU."""
        return unstack(self.module, k, self.template)

    def part_of(self, copies: Tensor, block: Block) -> Tensor:
        """Returns the block's part of copies of `flat` or `grad` (..., N), shaped (..., n, runs, *shape), a view."""
        start = block.weights.storage_offset()
        part = copies[..., start : start + block.weights.numel()]
        return part.view(*part.shape[:-1], *block.weights.shape)


def _elements(tensor: Tensor) -> Tensor:
    return tensor.view(*tensor.shape[:2], -1)  # a number for each run becomes an axis of one element


def _gathered(parameters: dict[str, nn.Parameter]) -> tuple[Tensor, Tensor, tuple[Block, ...]]:
    """Moves all parameters into one buffer, and their gradients into another."""
    shapes: dict[torch.Size, list[str]] = {}
    for name, p in parameters.items():
        shapes.setdefault(p.shape, []).append(name)
    first = next(iter(parameters.values()))
    flat = torch.empty(sum(p.numel() for p in parameters.values()), dtype=first.dtype, device=first.device)
    grad = torch.zeros_like(flat)
    sizes = [len(names) * prod(shape) for shape, names in shapes.items()]
    blocks = []
    for (start, stop), (shape, names) in zip(pairwise(accumulate(sizes, initial=0)), shapes.items(), strict=True):
        block = Block(tuple(names), *(t[start:stop].view(len(names), *shape) for t in (flat, grad)))
        for name, w, g in zip(names, block.weights, block.grads, strict=True):
            w.copy_(parameters[name].detach())
            parameters[name].data = w
            parameters[name].grad = g
        blocks.append(block)
    return flat, grad, tuple(blocks)
