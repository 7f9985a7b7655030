"""less_decay, add_decay: weights that are pulled towards zero less, or more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from evengrad.remedies import base
from evengrad.remedies.base import Remedy, Undo
from evengrad.remedies.pacing import optimizer_of
from evengrad.rig import Rig
from evengrad.types import Finding, Proposal, Trace

_USUAL = {"SGD": 1e-4, "AdamW": 1e-2}  # He et al. 2016; Loshchilov & Hutter 2019


@dataclass(frozen=True, kw_only=True)
class LessDecay(Remedy):
    """Brings every group's weight decay down to a usual value, or to none.

    Reference: Krogh & Hertz 1991, A simple weight decay; He et al. 2016, sec. 3.4 (1e-4 for SGD).
    """

    name: ClassVar[str] = "less_decay"
    title: ClassVar[str] = "less weight decay"
    causes: ClassVar[tuple[str, ...]] = ("over_regularized",)
    change: ClassVar[int] = base.RATE
    diagnostic: ClassVar[bool] = False
    shows_at_once: ClassVar[bool] = False

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        facts = trace.facts.optimizer or {}
        decay = facts.get("weight_decay") or 0.0
        for less in (_USUAL.get(str(facts.get("name")), 1e-4), 0.0):
            if decay > less:
                yield Proposal(
                    remedy=self.name,
                    options={"weight_decay": less},
                    cause="over_regularized",
                    summary=f"less_decay {decay:g} -> {less:g}",
                    code=f"-weight_decay={decay:g}\n+weight_decay={less:g}",
                    needs=("optimizer",),
                )

    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        held = [(group, group["weight_decay"]) for group in optimizer_of(rig, self.name).param_groups if "weight_decay" in group]
        for group, decay in held:
            group["weight_decay"] = min(decay, float(proposal.options["weight_decay"]))

        def undo() -> None:
            for group, decay in held:
                group["weight_decay"] = decay

        return undo


@dataclass(frozen=True, kw_only=True)
class AddDecay(Remedy):
    """Shrinks every weight by the rate times the decay before each step, whatever the optimizer; biases and norms are left out.

    Attributes:
        plain: Decays to propose for SGD, whose rates are large.
        adaptive: Decays to propose for Adam and its kin.

    Reference: Loshchilov & Hutter 2019, Decoupled weight decay regularization, https://arxiv.org/abs/1711.05101.
    """

    name: ClassVar[str] = "add_decay"
    title: ClassVar[str] = "weight decay on matrices and kernels"
    symptoms: ClassVar[tuple[str, ...]] = ("overfitting",)
    change: ClassVar[int] = base.RATE
    diagnostic: ClassVar[bool] = False
    shows_at_once: ClassVar[bool] = False
    plain: tuple[float, ...] = (5e-3, 5e-2)
    adaptive: tuple[float, ...] = (0.1, 1.0)

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        facts = trace.facts.optimizer or {}
        name = str(facts.get("name"))
        if facts.get("lr"):
            for decay in self.plain if name == "SGD" else self.adaptive:
                yield Proposal(
                    remedy=self.name,
                    options={"weight_decay": decay},
                    cause="overfitting",
                    summary=f"add_decay {decay:g}",
                    code="+with torch.no_grad():\n+    for p in model.parameters():\n+        if p.dim() > 1:  # no biases, no norms\n"
                    f'+            p.mul_(1 - optimizer.param_groups[0]["lr"] * {decay:g})\n optimizer.step()',
                    needs=("optimizer",),
                )

    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        return optimizer_of(rig, self.name).register_step_pre_hook(Decay(float(proposal.options["weight_decay"]))).remove


class Decay:
    """Optimizer step-pre-hook that shrinks matrices and kernels; a class at module level, so that optimizers stay copyable."""

    def __init__(self, decay: float) -> None:
        self.decay = decay

    @torch.no_grad()
    def __call__(self, optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        for group in optimizer.param_groups:
            for p in group["params"]:
                if p.dim() > 1 and p.grad is not None:
                    p.mul_(1 - group["lr"] * self.decay)
