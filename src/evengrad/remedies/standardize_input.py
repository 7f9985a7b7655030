"""standardize_input: mean 0 and standard deviation 1 for every feature, in front of the model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from evengrad.errors import InputError
from evengrad.remedies import base
from evengrad.remedies.base import Remedy, Undo, undo_all
from evengrad.rig import Rig
from evengrad.trace.batch import STANDARDIZE
from evengrad.trace.capture import tensors_in
from evengrad.types import Finding, Proposal, Trace

_BATCHES = 64  # enough for a mean and a standard deviation


@dataclass(frozen=True, kw_only=True)
class StandardizeInput(Remedy):
    """Subtracts each feature's mean and divides by its standard deviation (channels, for images), taken from training data.

    Attributes:
        min_offset: Feature mean from which it is proposed.
        span: Standard deviations between which inputs count as standardised.

    Reference: LeCun, Bottou, Orr & Müller 1998, Efficient BackProp, sec. 4.3.
    """

    name: ClassVar[str] = "standardize_input"
    title: ClassVar[str] = "standardised inputs"
    symptoms: ClassVar[tuple[str, ...]] = (
        "vanishing_gradient",
        "exploding_gradient",
        "zero_gradient",
        "signal_collapse",
        "dead_relu",
        "saturated_activation",
        "nan_or_inf",
        "huge_initial_loss",
        "DAT001",
    )
    causes: ClassVar[tuple[str, ...]] = ("input_not_normalized",)
    change: ClassVar[int] = base.INPUTS
    min_offset: float = 0.25
    span: tuple[float, float] = (0.5, 2.0)

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        facts = trace.facts.inputs or {}
        high, mean = facts.get("feature_std_max", 1.0), facts.get("feature_mean_abs_max", 0.0)
        if high > 0 and not facts.get("nonfinite_fraction") and not (self.span[0] <= high <= self.span[1] and mean < self.min_offset):
            axis, axes = feature_axes(facts)
            yield Proposal(
                remedy=self.name,
                options={"axis": axis},
                cause="input_not_normalized",
                summary="standardize_input",
                code=f"+mean, std = x_train.mean({axes}, keepdim=True), x_train.std({axes}, keepdim=True)\n"
                "+std[std == 0] = 1  # a constant feature stays constant\n+x = (x - mean) / std",
            )

    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        if hasattr(rig.model, STANDARDIZE):
            raise InputError("the model standardises its input already")
        standardize = _fit(rig, proposal.options["axis"])
        setattr(rig.model, STANDARDIZE, standardize)
        handle = rig.model.register_forward_pre_hook(standardize.first, with_kwargs=True)
        return undo_all([lambda: delattr(rig.model, STANDARDIZE), handle.remove])


def feature_axes(facts: dict[str, Any]) -> tuple[int, tuple[int, ...]]:
    """Returns the axis of the inputs' features, and all others, over which a feature's statistics are taken."""
    axis, dims = facts.get("feature_axis", -1), len(facts.get("shape") or (0, 0))
    return axis, tuple(i for i in range(dims) if i != axis % dims)


def beside(x: Tensor, values: Tensor, axis: int) -> Tensor:
    """Returns a value a feature (F,) in a shape that goes with x, and of its type."""
    shape = [1] * x.dim()
    shape[axis] = -1
    return values.to(x).view(shape)


class Standardize:
    """(x - mean) / std for each feature; no module, since a Sequential runs every module that it holds."""

    def __init__(self, mean: Tensor, std: Tensor, axis: int) -> None:
        self.mean, self.std, self.axis = mean, std, axis

    def __call__(self, x: Tensor) -> Tensor:
        """Returns x of the same shape."""
        return (x - beside(x, self.mean, self.axis)) / beside(x, self.std, self.axis)

    def first(self, _model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Forward pre-hook that standardises the first floating-point input, positional or by keyword."""
        for i, value in enumerate(args):
            if isinstance(value, Tensor) and value.is_floating_point():
                return (*args[:i], self(value), *args[i + 1 :]), kwargs
        for key, value in kwargs.items():
            if isinstance(value, Tensor) and value.is_floating_point():
                return args, kwargs | {key: self(value)}
        return args, kwargs


def _fit(rig: Rig, axis: int) -> Standardize:
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for batch in islice(rig.batches(0), _BATCHES):
        x = next((t for t in tensors_in(batch.inputs) if t.is_floating_point()), None)
        if x is None:
            raise InputError("the model has no floating-point input to standardise")
        flat = x.detach().double().movedim(axis, -1).reshape(-1, x.shape[axis])
        count, total, squares = count + len(flat), total.to(flat) + flat.sum(0), squares.to(flat) + flat.square().sum(0)
    if not count:
        raise InputError("no batch to take the inputs' mean and standard deviation from")
    mean = total / count
    std = (squares / count - mean.square()).clamp_min(0).sqrt()
    std = torch.where(std > 1e-6 * mean.abs(), std, torch.ones_like(std))  # what is left of a constant feature is rounding
    return Standardize(mean, std, axis)
