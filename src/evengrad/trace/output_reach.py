"""a model and a batch -> what its output can reach at all, whatever the weights: asked by setting its last layer far up and down."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from evengrad.errors import EvengradError
from evengrad.trace.batch import Batch, call, mapped
from evengrad.trace.capture import tensors_in
from evengrad.trace.isolation import untouched
from evengrad.trace.structure import Structure

_FAR = 1e4
_OPEN = 30.0  # an output that comes this far has no end on that side: the root of 1e4 is 100


def output_reach(model: nn.Module, batch: Batch, structure: Structure) -> tuple[float, float] | None:
    """Returns the least and the largest value that the output takes while the last layer's own output is set to -1e4 and 1e4.

    Units are set in turns, so that a softmax, which does not see what all have in common, shows its ends too. An end that is not met is
    infinite. None where several layers make the output, or the last is no module that gives one tensor.
    """
    if len(structure.head) != 1:
        return None
    module = _owner(model, structure.layers[structure.head[0]].weight)
    if module is None:
        return None
    low, high, called = math.inf, -math.inf, False

    def push(sign: float) -> None:
        nonlocal low, high, called

        def pushed(module: nn.Module, args: Any, output: Any) -> Any:
            nonlocal called
            if not isinstance(output, Tensor) or not output.is_floating_point():
                return output
            called = True
            return sign * _FAR * _turns(output)  # in its place: outputs of large weights are not pushed by adding

        handle = module.register_forward_hook(pushed)
        try:
            answers = next(tensors_in(call(model, mapped(torch.clone, batch.inputs))), None)
        finally:
            handle.remove()
        if answers is not None and answers.is_floating_point() and answers.numel() and not bool(answers.isnan().any()):
            low, high = min(low, float(answers.min())), max(high, float(answers.max()))

    try:
        with untouched(model, seed=0), torch.no_grad():
            model.eval()
            push(1.0)
            push(-1.0)
    except (EvengradError, RuntimeError):
        return None
    if not called or low > high:
        return None
    return (-math.inf if low < -_OPEN else low), (math.inf if high > _OPEN else high)


def _turns(like: Tensor) -> Tensor:
    """1 for one unit of each sample, another from sample to sample, and -1 for the rest; in turns over the samples of a single unit."""
    signs = -torch.ones_like(like)
    rows = signs.reshape(-1, like.shape[-1]) if like.dim() > 1 else signs.reshape(-1, 1)
    number = torch.arange(len(rows), device=like.device)
    if rows.shape[1] > 1:
        rows[number, number % rows.shape[1]] = 1
    else:
        rows[::2] = 1
    return signs


def _owner(model: nn.Module, weight: str) -> nn.Module | None:
    owner, _, _ = weight.rpartition(".")
    try:
        return model.get_submodule(owner) if owner else None
    except AttributeError:
        return None
