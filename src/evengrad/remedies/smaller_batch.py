"""smaller_batch: each batch in several parts, and a step for each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar

from torch import Tensor

from evengrad.remedies import base
from evengrad.remedies.base import Remedy, Undo
from evengrad.remedies.pacing import paced
from evengrad.rig import Rig
from evengrad.trace.batch import Batch, mapped
from evengrad.types import Finding, Proposal, Trace


@dataclass(frozen=True, kw_only=True)
class SmallerBatch(Remedy):
    """Cuts large batches, so that the same passes over the data are more steps; a schedule is stretched over them.

    Attributes:
        samples: Samples a batch to propose.
        large: Fewest samples of a batch that is cut.

    Reference: Masters & Luschi 2018, Revisiting small batch training for deep neural networks, https://arxiv.org/abs/1804.07612.
    """

    name: ClassVar[str] = "smaller_batch"
    title: ClassVar[str] = "smaller batches, and more steps"
    causes: ClassVar[tuple[str, ...]] = ("undertrained",)
    change: ClassVar[int] = base.LOOP
    diagnostic: ClassVar[bool] = False
    shows_at_once: ClassVar[bool] = False
    samples: int = 32
    large: int = 128

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        held = trace.run.samples
        if held >= self.large:
            factor = held // self.samples
            yield Proposal(
                remedy=self.name,
                options={"factor": factor},
                cause="undertrained",
                summary=f"smaller_batch {held} -> {held // factor}",
                code=f"-batch_size={held}\n+batch_size={held // factor}",
                risk=f"{factor} times as many steps, each noisier",
            )

    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        source, factor = rig.batches, int(proposal.options["factor"])
        rig.batches = partial(cut, source, factor)
        undo_pace = paced(rig, 1 / factor)

        def undo() -> None:
            undo_pace()
            rig.batches = source

        return undo


def cut(source: Any, factor: int, epoch: int) -> Iterator[Batch]:
    """Yields the batches of an epoch, each in `factor` parts of nearly one size, or in as many as leave two samples to each."""
    for batch in source(epoch):
        count = batch.samples
        parts = max(1, min(factor, count // 2))
        edges = [count * k // parts for k in range(parts + 1)]
        for start, end in pairwise(edges):
            yield Batch(*(mapped(partial(_part, count=count, start=start, end=end), values) for values in (batch.inputs, batch.targets)))


def _part(tensor: Tensor, *, count: int, start: int, end: int) -> Tensor:
    """Samples from `start` to `end` of a tensor that counts them along its first or second axis; any other is whole."""
    axis = next((a for a in range(min(2, tensor.dim())) if tensor.shape[a] == count), None)
    return tensor if axis is None else tensor.narrow(axis, start, end - start)
