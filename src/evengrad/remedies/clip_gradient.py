"""clip_norm, clip_value: gradients cut before each optimizer step, at a threshold that the run's own gradients suggest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from evengrad.errors import InputError
from evengrad.remedies import base
from evengrad.remedies.base import Remedy, Undo
from evengrad.remedies.clipping import held_by
from evengrad.rig import Rig
from evengrad.types import Finding, Proposal, Series, Trace

_HEALTHY = 5  # sampled steps before the trouble from which a threshold is taken
_PERCENTILE = 90  # of them
_USUAL = 5.0  # norms above this many medians are no healthy ones


@dataclass(frozen=True, kw_only=True)
class _Clip(Remedy):
    """Cuts gradients in an optimizer step-pre-hook, so that the loop stays as it is.

    Attributes:
        threshold: Threshold to propose where too few steps were healthy to suggest one.
    """

    symptoms: ClassVar[tuple[str, ...]] = ("exploding_gradient", "nan_or_inf", "loss_spike", "loss_divergence")
    causes: ClassVar[tuple[str, ...]] = ("no_grad_clip",)
    change: ClassVar[int] = base.CLIP
    shows_at_once: ClassVar[bool] = False
    option: ClassVar[str]
    call: ClassVar[str]
    measure: ClassVar[str]
    threshold: float = 1.0

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        if (trace.facts.inputs or {}).get("nonfinite_fraction"):
            return
        threshold = suggested(trace, finding, self.measure, otherwise=self.threshold)
        yield Proposal(
            remedy=self.name,
            options={self.option: threshold},
            cause="no_grad_clip",
            summary=f"{self.name} {threshold:g}",
            code=f" loss.backward()\n+torch.nn.utils.{self.call}(model.parameters(), {threshold:g})\n optimizer.step()",
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
    measure: ClassVar[str] = "norm"


@dataclass(frozen=True, kw_only=True)
class ClipValue(_Clip):
    """Cuts every element of every gradient to the threshold: the direction changes.

    Reference: Mikolov 2012.
    """

    name: ClassVar[str] = "clip_value"
    title: ClassVar[str] = "gradients clipped by value"
    option: ClassVar[str] = "clip_value"
    call: ClassVar[str] = "clip_grad_value_"
    measure: ClassVar[str] = "value"
    threshold: float = 0.5


class _Hook:
    """Optimizer step-pre-hook; a class at module level, so that optimizers stay copyable."""

    def __init__(self, call: str, threshold: float) -> None:
        self.call, self.threshold = call, threshold

    def __call__(self, optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        getattr(nn.utils, self.call)(held_by(optimizer), self.threshold)


def suggested(trace: Trace, finding: Finding, measure: str = "norm", *, otherwise: float = 1.0) -> float:
    """Returns a threshold above which lie a tenth of the steps that were healthy, to two digits; `otherwise` where too few were.

    Args:
        trace: What was seen.
        finding: The trouble; steps from its first on are not healthy.
        measure: `norm` of all gradients, `layer` for the largest norm of one, or `value` for the largest magnitude.
        otherwise: Returned where fewer than five steps were healthy, as in a check, or where a fault was there from the start.

    Reference: Seetharaman et al. 2020, AutoClip (percentiles of the norm's own history).
    """
    known = healthy_norms(trace, finding, measure)
    return float(f"{np.percentile(known, _PERCENTILE):.2g}") if len(known) >= _HEALTHY else otherwise


def healthy_norms(trace: Trace, finding: Finding | None, measure: str = "norm") -> Series:
    """Returns the sizes of the gradients before they were clipped at the sampled steps before the trouble: finite, above 0, not unusual."""
    column = trace.column("grad_raw_abs_max" if measure == "value" else "grad_raw_norm").astype(np.float64)
    column = column if finding is None else column[trace.steps < finding.steps[0]]
    if not column.size:
        return np.zeros(0)
    known = np.nan_to_num(column, nan=0.0, posinf=np.inf)
    sizes: Series = np.sqrt(np.square(known).sum(1)) if measure == "norm" else known.max(1)
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    return sizes[sizes <= _USUAL * np.median(sizes)] if len(sizes) else sizes
