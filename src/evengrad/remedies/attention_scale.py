"""attention_scale: queries and keys so small that each query starts out seeing many keys."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from evengrad.errors import InputError
from evengrad.remedies import base
from evengrad.remedies.base import Remedy, Undo, submodule, undo_all
from evengrad.rig import Rig
from evengrad.types import Finding, Proposal, Trace


@dataclass(frozen=True, kw_only=True)
class AttentionScale(Remedy):
    """Scales the weights of queries and keys of `nn.MultiheadAttention` down, both by one factor, until logits have about unit variance.

    The largest logit that was seen comes down to `largest`, that of a few hundred draws of unit variance; the attention's values and
    everything else stay.

    Attributes:
        largest: Magnitude that the largest logit is brought to.
        min_logit: Largest logit from which it is proposed.

    Reference: Vaswani et al. 2017, sec. 3.2.1; Wortsman et al. 2023, https://arxiv.org/abs/2309.14322.
    """

    name: ClassVar[str] = "attention_scale"
    title: ClassVar[str] = "smaller queries and keys"
    causes: ClassVar[tuple[str, ...]] = ("attention_logits",)
    change: ClassVar[int] = base.INITIALISER
    diagnostic: ClassVar[bool] = False
    largest: float = 3.0
    min_logit: float = 10.0

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        logits, factors = trace.column("logit_abs_max"), {}
        for row, seen in zip(trace.layers, logits.T, strict=True):
            first = float(next(iter(seen[np.isfinite(seen)]), 0.0))
            if row.kind == "attention" and row.name.endswith("in_proj") and first > self.min_logit:
                owner = row.name.removesuffix("in_proj").removesuffix(".")
                factors[owner] = math.sqrt(self.largest / first)
        if factors:
            shown = min(factors.values())
            yield Proposal(
                remedy=self.name,
                options={"factors": factors},
                where=tuple(x.name for x in trace.layers if x.kind == "attention" and x.name.rpartition(".")[0] in factors),
                cause="attention_logits",
                summary=f"attention_scale ×{shown:.2g} on queries and keys",
                code=f"+attention.in_proj_weight.data[: 2 * attention.embed_dim] *= {shown:.2g}  # queries and keys, before training",
            )

    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        return undo_all(_scale(submodule(rig.model, name), factor) for name, factor in proposal.options["factors"].items())


def _scale(attention: nn.Module, factor: float) -> Undo:
    if not isinstance(attention, nn.MultiheadAttention):
        raise InputError(f"expected nn.MultiheadAttention, got {type(attention).__name__}: this change was proposed for another model")
    packed: list[Tensor | None] = [attention.in_proj_weight, attention.in_proj_bias]
    parts = [p.data[: 2 * attention.embed_dim] for p in packed if p is not None]
    parts += [p.data for p in (attention.q_proj_weight, attention.k_proj_weight) if p is not None]
    kept = [part.clone() for part in parts]
    for part in parts:
        part.mul_(factor)

    def undo() -> None:
        with torch.no_grad():
            for part, value in zip(parts, kept, strict=True):
                part.copy_(value)

    return undo
