"""fill_gaps, drop_samples: values that are not finite are filled, samples that cannot be used are left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from evengrad.errors import InputError
from evengrad.remedies import base
from evengrad.remedies.base import Remedy, Undo
from evengrad.remedies.standardize_input import beside, feature_axes
from evengrad.rig import Rig
from evengrad.trace.batch import Batch, mapped
from evengrad.trace.capture import tensors_in
from evengrad.types import Finding, Proposal, Trace

_BATCHES = 64  # enough for a mean
_IGNORED = -100  # torch's default ignore_index


@dataclass(frozen=True, kw_only=True)
class FillGaps(Remedy):
    """Puts the feature's mean over training data (the channel's, for images) where the first input is not finite, in evaluation too.

    Reference: Little & Rubin 2019, Statistical analysis with missing data, sec. 4.2.
    """

    name: ClassVar[str] = "fill_gaps"
    title: ClassVar[str] = "missing inputs filled with the mean"
    causes: ClassVar[tuple[str, ...]] = ("data_nan",)
    change: ClassVar[int] = base.INPUTS
    diagnostic: ClassVar[bool] = False

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        facts = trace.facts.inputs or {}
        if not facts or not (facts.get("nonfinite_fraction") or "inputs" in finding.where):
            return
        axis, axes = feature_axes(facts)
        yield Proposal(
            remedy=self.name,
            options={"axis": axis},
            cause="data_nan",
            summary="fill_gaps in the inputs with the mean",
            code=f"+known = torch.where(x_train.isfinite(), x_train, torch.nan)\n+mean = known.nanmean({axes}, keepdim=True)\n"
            "+x = torch.where(x.isfinite(), x, mean)",
        )

    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        source = rig.batches
        axis = int(proposal.options["axis"])
        fill = Fill(_means(rig, axis), axis)
        rig.batches = partial(_changed, source, fill.of)
        handle = rig.model.register_forward_pre_hook(fill.first, with_kwargs=True, prepend=True)

        def undo() -> None:
            handle.remove()
            rig.batches = source

        return undo


@dataclass(frozen=True, kw_only=True)
class DropSamples(Remedy):
    """Leaves samples out of training whose inputs or targets are not finite, or whose label is none of the classes.

    Reference: Little & Rubin 2019, sec. 3.2 (complete cases).
    """

    name: ClassVar[str] = "drop_samples"
    title: ClassVar[str] = "samples that cannot be used are left out"
    causes: ClassVar[tuple[str, ...]] = ("data_nan", "labels_corrupt")
    change: ClassVar[int] = base.INPUTS
    diagnostic: ClassVar[bool] = False

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        facts = trace.facts.inputs or {}
        if finding.cause == "data_nan" and (facts.get("nonfinite_fraction") or {"inputs", "targets"} & set(finding.where)):
            yield Proposal(
                remedy=self.name,
                cause="data_nan",
                summary="drop_samples that are not finite",
                code="+good = x.isfinite().flatten(1).all(1) & y.isfinite().reshape(len(y), -1).all(1)\n+x, y = x[good], y[good]",
                risk="samples that miss one value are lost",
            )
        classes = _classes(trace)
        if finding.cause == "labels_corrupt" and classes is not None:
            yield Proposal(
                remedy=self.name,
                options={"classes": classes},
                cause="labels_corrupt",
                summary=f"drop_samples whose label is none of 0 to {classes - 1}",
                code=f"+good = ((y >= 0) & (y < {classes})) | (y == {_IGNORED})\n+x, y = x[good], y[good]",
            )

    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        batches, validation, classes = rig.batches, rig.validation, proposal.options.get("classes")
        keep = partial(kept, classes=classes)
        rig.batches = partial(_changed, batches, keep)
        rig.validation = None if validation is None else partial(_changed, validation, keep)

        def undo() -> None:
            rig.batches, rig.validation = batches, validation

        return undo


class Fill:
    """Puts each feature's mean where a value is not finite; a class at module level, so that models stay copyable."""

    def __init__(self, mean: Tensor, axis: int) -> None:
        self.mean, self.axis = mean, axis

    def __call__(self, x: Tensor) -> Tensor:
        """Returns x of the same shape."""
        return torch.where(x.isfinite(), x, beside(x, self.mean, self.axis))

    def of(self, batch: Batch) -> Batch:
        """Returns the batch with its first floating-point input filled."""
        return Batch(self._in(batch.inputs), batch.targets)

    def first(self, _model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Forward pre-hook that fills the first floating-point input, positional or by keyword."""
        filled, named = self._in((args, kwargs))
        return filled, named

    def _in(self, value: Any) -> Any:
        first = next((t for t in tensors_in(value) if t.is_floating_point()), None)
        return mapped(lambda t: self(t) if t is first else t, value)


def kept(batch: Batch, classes: int | None = None) -> Batch | None:
    """Returns the samples of a batch that are finite and, if told how many classes there are, have a label; None if there are none."""
    count = batch.samples
    parts = [t for t in tensors_in((batch.inputs, batch.targets)) if t.dim() and len(t) == count]
    good = torch.stack([t.isfinite().reshape(count, -1).all(1) for t in parts]).all(0)
    labels = next((t for t in tensors_in(batch.targets)), None)
    if classes is not None and labels is not None and len(labels) == count:
        known = ((labels >= 0) & (labels < classes)) | (labels == _IGNORED)
        good &= known.reshape(count, -1).all(1)
    if bool(good.all()):
        return batch
    if not bool(good.any()):
        return None
    return Batch(*(mapped(lambda t: t[good] if t.dim() and len(t) == count else t, part) for part in (batch.inputs, batch.targets)))


def _changed(source: Callable[[int], Iterator[Batch]], change: Callable[[Batch], Batch | None], epoch: int) -> Iterator[Batch]:
    for batch in source(epoch):
        changed = change(batch)
        if changed is not None:
            yield changed


def _means(rig: Rig, axis: int) -> Tensor:
    """Mean of each feature of the first input over what is finite of some batches; 0 where nothing is."""
    count, total = torch.zeros(()), torch.zeros(())
    for batch in islice(rig.batches(0), _BATCHES):
        x = next((t for t in tensors_in(batch.inputs) if t.is_floating_point()), None)
        if x is None:
            raise InputError("the model has no floating-point input to fill")
        flat = x.detach().double().movedim(axis, -1).reshape(-1, x.shape[axis])
        known = flat.isfinite()
        count, total = count.to(flat) + known.sum(0), total.to(flat) + torch.where(known, flat, 0.0).sum(0)
    if not count.dim():
        raise InputError("no batch to take the inputs' mean from")
    return total / count.clamp_min(1)


def _classes(trace: Trace) -> int | None:
    """Number of classes, where a label is none of them."""
    head, loss = trace.facts.head or {}, trace.facts.loss or {}
    width, labels = int(head.get("width", 0)), (trace.facts.targets or {}).get("labels")
    if loss.get("op") not in {"cross_entropy", "nll"} or not labels or width < 2 or len(head.get("shape", ())) != 2:
        return None
    return width if any(int(k) != _IGNORED and not 0 <= int(k) < width for k in labels) else None
