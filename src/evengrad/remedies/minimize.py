"""minimize: an optimizer that goes down the gradient."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from evengrad.remedies import base
from evengrad.remedies.base import Remedy, Undo
from evengrad.remedies.pacing import optimizer_of
from evengrad.rig import Rig
from evengrad.types import Finding, Proposal, Trace


@dataclass(frozen=True, kw_only=True)
class Minimize(Remedy):
    """Takes `maximize=True` from an optimizer whose loss is to fall.

    Reference: Paszke et al. 2019, PyTorch (the option `maximize` of torch.optim).
    """

    name: ClassVar[str] = "minimize"
    title: ClassVar[str] = "steps down the gradient, not up"
    causes: ClassVar[tuple[str, ...]] = ("sign_error",)
    change: ClassVar[int] = base.LOOP
    diagnostic: ClassVar[bool] = False
    shows_at_once: ClassVar[bool] = False

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        facts = trace.facts.optimizer or {}
        if facts.get("maximize"):
            made = f"torch.optim.{facts.get('name')}(model.parameters(), lr={facts.get('lr', 0):g}"
            yield Proposal(
                remedy=self.name,
                cause="sign_error",
                summary="minimize (maximize=False)",
                code=f"-{made}, maximize=True)\n+{made})",
                needs=("optimizer",),
            )

    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        groups = optimizer_of(rig, self.name).param_groups
        held = [group.get("maximize", False) for group in groups]
        for group in groups:
            group["maximize"] = False

        def undo() -> None:
            for group, before in zip(groups, held, strict=True):
                group["maximize"] = before

        return undo
