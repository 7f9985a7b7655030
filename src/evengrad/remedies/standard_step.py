"""standard_step: one plain step of training in place of the user's own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from evengrad.errors import InputError
from evengrad.remedies import base
from evengrad.remedies.base import Remedy, Undo
from evengrad.rig import Rig
from evengrad.types import Finding, Floats, Proposal, Trace

_CODE = """ def step(model, batch, loss_fn, optimizer):
     inputs, targets = batch
+    model.train()
+    optimizer.zero_grad()
     loss = loss_fn(model(inputs), targets)
     loss.backward()
     optimizer.step()
     return loss"""


@dataclass(frozen=True, kw_only=True)
class StandardStep(Remedy):
    """Takes the usual step (train mode, zeroed gradients, the loss downhill) where an experiment has a train_step of its own.

    It tells a fault of the loop from one of the network: where it restores training, the user's step is at fault.

    Attributes:
        same: Cosine to the standard gradient from which the user's step is the standard one but for its length.

    Reference: Paszke et al. 2019, PyTorch.
    """

    name: ClassVar[str] = "standard_step"
    title: ClassVar[str] = "a plain step of training in place of one's own"
    symptoms: ClassVar[tuple[str, ...]] = (
        *("loss_stuck", "loss_divergence", "slow_convergence", "plateau", "oscillating_loss", "loss_spike", "no_parameter_update"),
        *("nan_or_inf", "train_eval_gap", "generalization_failure"),
    )
    causes: ClassVar[tuple[str, ...]] = (
        *("missing_zero_grad", "over_clipped", "over_regularized", "sign_error", "frozen_params", "bn_stats", "scheduler_bug"),
    )
    change: ClassVar[int] = base.LOOP
    shows_at_once: ClassVar[bool] = False
    same: float = 0.9

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        if (trace.facts.loop or {}).get("standard", True):
            return
        yield Proposal(
            remedy=self.name,
            cause=self._cause(trace),
            summary="standard_step in place of train_step",
            code=_CODE,
            needs=("optimizer",),
            risk="what one's own step adds (clipping, mixed precision, accumulation) is left out",
        )

    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        if rig.optimizer is None:
            raise InputError("standard_step needs an optimizer; give check or Experiment one")
        own, modes = rig.train_step, [(module, module.training) for module in rig.model.modules()]
        rig.train_step = None
        rig.model.train()

        def undo() -> None:
            rig.train_step = own
            for module, training in modes:
                module.training = training

        return undo

    def _cause(self, trace: Trace) -> str:
        """What the gradients that the step uses tell of it."""
        agreement = _middle(trace.column("grad_agreement"))
        raw, used = trace.column("grad_raw_norm"), trace.column("grad_norm")
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            length = _middle(used / raw)
        if agreement < 0:
            return "sign_error"
        if length > 1.1:  # more than the loss gives: what the step before left, or a penalty
            return "missing_zero_grad" if (trace.facts.loop or {}).get("accumulated", 0.0) > 0.5 else "over_regularized"
        if np.isnan(length) or length == 0:
            return "frozen_params"
        return "over_clipped" if length < 0.1 and agreement > self.same else "bn_stats" if _norms_are_off(trace) else "missing_zero_grad"


def _middle(column: Floats) -> float:
    values = column[np.isfinite(column)]
    return float(np.median(values)) if len(values) else float("nan")


def _norms_are_off(trace: Trace) -> bool:
    return any(not norm.get("training", True) for norm in (trace.facts.modules or {}).get("norms", ()))
