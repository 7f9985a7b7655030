"""scale_targets: targets of mean 0 and standard deviation 1 for the network and its loss; answers in the targets' own unit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from evengrad.errors import InputError
from evengrad.remedies import base
from evengrad.remedies.base import Remedy, Undo
from evengrad.rig import Rig
from evengrad.trace.batch import Loss
from evengrad.trace.capture import tensors_in
from evengrad.types import Finding, Proposal, Trace

_BATCHES = 64  # enough for a mean and a standard deviation
_NUMBERS = {"mse", "l1", "smooth_l1", "other"}


@dataclass(frozen=True, kw_only=True)
class ScaleTargets(Remedy):
    """Lets the network answer in standard deviations from the targets' mean, and compares there; what comes out is turned back.

    So a metric, and whoever calls the model, still sees the targets' own unit.

    Reference: LeCun, Bottou, Orr & Müller 1998, Efficient BackProp, sec. 4.5.
    """

    name: ClassVar[str] = "scale_targets"
    title: ClassVar[str] = "standardised targets"
    causes: ClassVar[tuple[str, ...]] = ("target_not_scaled",)
    change: ClassVar[int] = base.INPUTS
    diagnostic: ClassVar[bool] = False
    shows_at_once: ClassVar[bool] = False

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        facts = trace.facts.targets or {}
        if "float" in str(facts.get("dtype")) and (facts.get("std") or 0) > 0 and (trace.facts.loss or {}).get("op", "other") in _NUMBERS:
            yield Proposal(
                remedy=self.name,
                cause="target_not_scaled",
                summary="scale_targets",
                code="+mean, std = y_train.mean(0), y_train.std(0)\n+y = (y - mean) / std\n"
                " prediction = model(x)\n+prediction = prediction * std + mean  # in the targets' own unit, after training",
            )

    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        own = rig.loss_fn
        if own is None or isinstance(own, ScaledLoss):
            raise InputError("scale_targets needs a loss_fn of one's own, which does not scale targets yet")
        mean, std = _fit(rig)
        rig.loss_fn = ScaledLoss(own, mean, std)
        handle = rig.model.register_forward_hook(Unscale(mean, std))

        def undo() -> None:
            handle.remove()
            rig.loss_fn = own

        return undo


class ScaledLoss:
    """A loss of answers and targets in standard deviations from the mean; a class at module level, so that it can be pickled."""

    def __init__(self, loss_fn: Loss, mean: Tensor, std: Tensor) -> None:
        self.loss_fn, self.mean, self.std = loss_fn, mean, std

    def __call__(self, output: Tensor, targets: Tensor) -> Tensor:
        """Returns the loss, a scalar."""
        scaled = [(t - self.mean.to(t)) / self.std.to(t) for t in (output, targets)]
        return self.loss_fn(*scaled)


class Unscale:
    """Forward hook that turns the model's answers into the targets' own unit; a class at module level, so that models stay copyable."""

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        self.mean, self.std = mean, std

    def __call__(self, _model: nn.Module, _args: Any, output: Any) -> Tensor:
        if not isinstance(output, Tensor):
            raise InputError(f"scale_targets takes a model that returns one tensor; got a {type(output).__name__}")
        return output * self.std.to(output) + self.mean.to(output)


def _fit(rig: Rig) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each of the numbers that a sample's target is made of."""
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for batch in islice(rig.batches(0), _BATCHES):
        y = next((t for t in tensors_in(batch.targets) if t.is_floating_point()), None)
        if y is None:
            raise InputError("the targets are no floating-point numbers: there is nothing to scale")
        y = y.detach().double()
        flat = y.reshape(-1, y.shape[-1]) if y.dim() > 1 else y.reshape(-1)
        flat = flat[flat.isfinite().reshape(len(flat), -1).all(1)]
        count, total, squares = count + len(flat), total.to(flat) + flat.sum(0), squares.to(flat) + flat.square().sum(0)
    if not count:
        raise InputError("no batch to take the targets' mean and standard deviation from")
    mean = total / count
    std = (squares / count - mean.square()).clamp_min(0).sqrt()
    return mean, torch.where(std > 1e-6 * mean.abs(), std, torch.ones_like(std))  # what is left of a constant is rounding
