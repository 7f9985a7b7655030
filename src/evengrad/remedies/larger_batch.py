"""larger_batch: several batches joined into one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from evengrad.errors import InputError
from evengrad.remedies import base
from evengrad.remedies.base import Remedy, Undo
from evengrad.remedies.pacing import paced
from evengrad.rig import Rig
from evengrad.trace.batch import Batch
from evengrad.types import Finding, Proposal, Trace


@dataclass(frozen=True, kw_only=True)
class LargerBatch(Remedy):
    """Joins batches until each holds samples enough for a gradient, and for statistics, that are more than noise.

    Fewer steps come of an epoch, so there are more epochs, up to a limit; a schedule is fitted to the steps that remain.

    Attributes:
        samples: Samples a batch to propose, best first.
        max_epochs: Largest factor by which epochs are multiplied.

    Reference: Wu & He 2018, Group normalization, fig. 1; McCandlish et al. 2018, https://arxiv.org/abs/1812.06162.
    """

    name: ClassVar[str] = "larger_batch"
    title: ClassVar[str] = "larger batches"
    causes: ClassVar[tuple[str, ...]] = ("batch_too_small",)
    change: ClassVar[int] = base.LOOP
    diagnostic: ClassVar[bool] = False
    shows_at_once: ClassVar[bool] = False
    samples: tuple[int, ...] = (32, 16)
    max_epochs: int = 4

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        held = trace.run.samples
        for factor in dict.fromkeys(math.ceil(samples / held) for samples in self.samples if held < samples):
            more = min(factor, self.max_epochs)
            yield Proposal(
                remedy=self.name,
                options={"factor": factor, "epochs": more},
                cause="batch_too_small",
                summary=f"larger_batch {held} -> {held * factor}",
                code=f"-batch_size={held}\n+batch_size={held * factor}  # and {more} times as many epochs",
                risk=f"{factor / more:g} times fewer steps" if factor > more else "",
            )

    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        source, epochs = rig.batches, rig.epochs
        factor, more = int(proposal.options["factor"]), int(proposal.options["epochs"])
        rig.batches = partial(joined, source, factor)
        rig.epochs = epochs * more
        undo_pace = paced(rig, factor / more)

        def undo() -> None:
            undo_pace()
            rig.batches, rig.epochs = source, epochs

        return undo


def joined(source: Any, factor: int, epoch: int) -> Iterator[Batch]:
    """Yields the batches of an epoch, each `factor` of the source's as one; what is left at the end makes the last one larger."""
    held: list[Batch] = []
    for batch in source(epoch):
        if len(held) == 2 * factor:
            yield _joined(held[:factor])
            held = held[factor:]
        held.append(batch)
    if len(held) == 2 * factor:
        yield _joined(held[:factor])
        held = held[factor:]
    if held:
        yield _joined(held)


def _joined(batches: Sequence[Batch]) -> Batch:
    sizes = [batch.samples for batch in batches]
    return Batch(*(_put_together([getattr(b, part) for b in batches], sizes) for part in ("inputs", "targets")))


def _put_together(values: Sequence[Any], sizes: Sequence[int]) -> Any:
    """Joins tensors in nested tuples, lists and mappings along the axis that counts samples; anything without one is the first's."""
    first = values[0]
    if isinstance(first, Tensor):
        axes = [a for a in range(min(2, first.dim())) if all(v.shape[a] == n for v, n in zip(values, sizes, strict=True))]
        if not axes:
            return first
        try:
            return torch.cat(list(values), axes[0])
        except RuntimeError as error:
            raise InputError(f"batches of shapes {tuple(first.shape)} and {tuple(values[-1].shape)} cannot be joined: {error}") from error
    if isinstance(first, dict):
        return {k: _put_together([v[k] for v in values], sizes) for k in first}
    if isinstance(first, (tuple, list)):
        parts = [_put_together(part, sizes) for part in zip(*values, strict=True)]
        return type(first)(*parts) if hasattr(first, "_fields") else type(first)(parts)
    return first
