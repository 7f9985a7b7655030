"""augment: training inputs with noise, or mirrored, drawn anew in every epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from evengrad.remedies import base
from evengrad.remedies.base import Remedy, Undo
from evengrad.rig import Rig
from evengrad.trace.batch import Batch, mapped
from evengrad.trace.capture import tensors_in
from evengrad.types import Finding, Proposal, Trace

Transform = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True, kw_only=True)
class Augment(Remedy):
    """Changes the first floating-point input of every training batch: noise on each value, or half of the images mirrored.

    The draws are of an own generator, of seed and epoch.

    Attributes:
        noises: Noise to propose, in standard deviations of the inputs, best first.
        transform: `transform(inputs, generator) -> inputs` in place of either.

    Reference: Bishop 1995, Training with noise is equivalent to Tikhonov regularization; Krizhevsky et al. 2012, sec. 4.1.
    """

    name: ClassVar[str] = "augment"
    title: ClassVar[str] = "augmented training inputs"
    symptoms: ClassVar[tuple[str, ...]] = ("overfitting",)
    change: ClassVar[int] = base.INPUTS
    diagnostic: ClassVar[bool] = False
    shows_at_once: ClassVar[bool] = False
    noises: tuple[float, ...] = (0.3,)
    transform: Transform | None = None

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        facts = trace.facts.inputs or {}
        std, shape = facts.get("std") or 0.0, list(facts.get("shape") or [])
        if not std > 0:
            return
        for noise in self.noises:
            size = float(f"{noise * std:.3g}")
            yield self._proposal({"noise": size}, f"augment with noise of {size:g}", f"+x = x + {size:g} * torch.randn_like(x)", "")
        if len(shape) == 4 and shape[-1] == shape[-2]:
            code = "+mirrored = torch.rand(len(x)) < 0.5\n+x[mirrored] = x[mirrored].flip(-1)"
            yield self._proposal({"mirror": 0.5}, "augment with mirrored images", code, "a mirrored image must be of the same class")

    def _proposal(self, options: dict[str, Any], summary: str, code: str, risk: str) -> Proposal:
        return Proposal(remedy=self.name, options=options, cause="overfitting", summary=summary, code=code, risk=risk)

    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        source = rig.batches
        noise, mirror = (float(proposal.options.get(k, 0.0)) for k in ("noise", "mirror"))
        transform = self.transform or _Change(noise, mirror)

        def batches(epoch: int) -> Iterator[Batch]:
            generator = torch.Generator().manual_seed(rig.seed * 1_000_003 + epoch)
            for batch in source(epoch):
                yield _with_first(batch, transform, generator)

        rig.batches = batches

        def undo() -> None:
            rig.batches = source

        return undo


@dataclass(frozen=True)
class _Change:
    """Adds noise of a standard deviation, and mirrors a share of the images."""

    noise: float
    mirror: float

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        if self.noise:
            x = x + self.noise * torch.randn(x.shape, generator=generator).to(x)
        if self.mirror:
            chosen = (torch.rand(len(x), generator=generator) < self.mirror).to(x.device)
            x = torch.where(chosen.view(-1, *[1] * (x.dim() - 1)), x.flip(-1), x)
        return x


def _with_first(batch: Batch, transform: Transform, generator: torch.Generator) -> Batch:
    first = next((t for t in tensors_in(batch.inputs) if t.is_floating_point()), None)
    return Batch(mapped(lambda t: transform(t, generator) if t is first else t, batch.inputs), batch.targets)
