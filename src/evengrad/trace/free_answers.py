"""a loss, answers and targets -> where the loss takes answers that are free to move: to the targets, nowhere, or away without end.

A network can at best do what its loss asks for. Here the answers themselves take the steps, without a network and its weights, so that
nothing but the loss decides where they go.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from evengrad.trace.batch import Loss

_STEPS = 12
_FIRST, _SHRINK = 2.0, 0.65  # of the answers' scale: nearly six scales to walk, and the last step is a hundredth
_FAR = 12  # doublings of a scale: four thousand
_WALKED = 0.8  # of the longest way: who comes so far has not arrived
_LINEAR = 1.6  # a loss that falls in proportion to the way falls twice as much over a doubled one; a logarithm the same again


@dataclass(frozen=True)
class Freed:
    """Where free answers end: the answers, the loss at first and at last, and whether it falls for ever."""

    answers: Tensor
    before: float
    after: float
    endless: bool


def freed(loss_fn: Loss, answers: Tensor, wanted: Tensor, *, scale: float) -> Freed | None:
    """Lets answers walk down the loss, each sample by steps of its own that shrink, and then those that have not arrived straight on.

    Args:
        loss_fn: `loss_fn(output, targets) -> scalar`.
        answers: Where they start (n, ...).
        wanted: The targets.
        scale: What counts as one step between answers: a logit, or the deviation of the targets.

    Returns:
        Where they end; None where the loss has no gradient in any of them, or is not finite.
    """
    found = answers.detach().clone()
    first, size = math.nan, _FIRST * scale
    for k in range(_STEPS):
        value, slope = _slope(loss_fn, found, wanted)
        if slope is None or not math.isfinite(value) or not bool(slope.any() or k):
            return None
        first = value if k == 0 else first
        found = found - size * slope
        size *= _SHRINK
    last, _ = _slope(loss_fn, found, wanted)
    if not math.isfinite(last):
        return None
    way = (found - answers.detach()).reshape(len(found), -1)
    still = way.abs().amax(1) < _WALKED * _FIRST * scale / (1 - _SHRINK)  # these have arrived; the others would go on
    onward = (way / way.abs().amax(1, keepdim=True).clamp_min(1e-30)).masked_fill(still[:, None], 0.0).reshape(found.shape)
    return Freed(found, first, last, _endless(loss_fn, found, wanted, scale * onward, max(abs(first), abs(last))))


def _endless(loss_fn: Loss, answers: Tensor, wanted: Tensor, onward: Tensor, usual: float) -> bool:
    """True if the loss goes on falling in proportion to the way, far below all that it was."""
    if not bool(onward.any()):
        return False
    with torch.no_grad():
        losses = [float(loss_fn(answers + 2.0**k * onward, wanted)) for k in (_FAR - 2, _FAR - 1, _FAR)]
    falls = losses[0] - losses[1], losses[1] - losses[2]
    return all(map(math.isfinite, losses)) and losses[-1] < -10 * usual and falls[0] > 0 and falls[1] > _LINEAR * falls[0]


def _slope(loss_fn: Loss, answers: Tensor, wanted: Tensor) -> tuple[float, Tensor | None]:
    """The loss, and its gradient, of which each sample's largest entry is made 1; zero stays zero."""
    leaf = answers.clone().requires_grad_()
    with torch.enable_grad():
        loss = loss_fn(leaf, wanted)
        if not loss.requires_grad:
            return math.nan, None
        (slope,) = torch.autograd.grad(loss, leaf)
    rows = slope.reshape(len(slope), -1)
    largest = rows.abs().amax(1, keepdim=True)
    shares = torch.where(largest > 0, rows / largest.clamp_min(torch.finfo(rows.dtype).tiny), torch.zeros_like(rows))
    return float(loss.detach()), (shares.reshape(slope.shape) if bool(shares.isfinite().all()) else None)
