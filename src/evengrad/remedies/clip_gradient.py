"""clip_norm, clip_value: gradients cut before each optimizer step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from evengrad.errors import InputError
from evengrad.remedies import base
from evengrad.remedies.base import Remedy, Undo
from evengrad.rig import Rig
from evengrad.types import Finding, Proposal, Trace


@dataclass(frozen=True, kw_only=True)
class _Clip(Remedy):
    """Cuts gradients in an optimizer step-pre-hook, so that the loop stays as it is."""

    symptoms: ClassVar[tuple[str, ...]] = ("exploding_gradient", "nan_or_inf", "loss_spike", "loss_divergence")
    change: ClassVar[int] = base.CLIP
    shows_at_once: ClassVar[bool] = False
    option: ClassVar[str]
    call: ClassVar[str]
    threshold: float = 1.0

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        if (trace.facts.inputs or {}).get("nonfinite_fraction"):
            return
        yield Proposal(
            remedy=self.name,
            options={self.option: self.threshold},
            cause="no_grad_clip",
            summary=f"{self.name} {self.threshold:g}",
            code=f" loss.backward()\n+torch.nn.utils.{self.call}(model.parameters(), {self.threshold:g})\n optimizer.step()",
            needs=("optimizer",),
        )

    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        if rig.optimizer is None:
            raise InputError(f"{self.name} needs an optimizer; give check or Experiment one")
        return rig.optimizer.register_step_pre_hook(_Hook(self.call, float(proposal.options[self.option]))).remove


@dataclass(frozen=True, kw_only=True)
class ClipNorm(_Clip):
    """Scales all gradients down together when their L2 norm exceeds the threshold: the direction is kept.

    Reference: Pascanu, Mikolov & Bengio 2013.
    """

    name: ClassVar[str] = "clip_norm"
    title: ClassVar[str] = "gradients clipped by their norm"
    option: ClassVar[str] = "max_norm"
    call: ClassVar[str] = "clip_grad_norm_"


@dataclass(frozen=True, kw_only=True)
class ClipValue(_Clip):
    """Cuts every element of every gradient to the threshold: the direction changes.

    Reference: Mikolov 2012.
    """

    name: ClassVar[str] = "clip_value"
    title: ClassVar[str] = "gradients clipped by value"
    option: ClassVar[str] = "clip_value"
    call: ClassVar[str] = "clip_grad_value_"
    threshold: float = 0.5


class _Hook:
    """Optimizer step-pre-hook; a class at module level, so that optimizers stay copyable."""

    def __init__(self, call: str, threshold: float) -> None:
        self.call, self.threshold = call, threshold

    def __call__(self, optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        held: list[Tensor] = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        getattr(nn.utils, self.call)(held, self.threshold)
