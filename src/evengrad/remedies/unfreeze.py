"""unfreeze: every parameter asks for a gradient and is the optimizer's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from evengrad.remedies import base
from evengrad.remedies.base import Remedy, Undo
from evengrad.remedies.insert_norm import join_optimizer
from evengrad.remedies.pacing import optimizer_of
from evengrad.rig import Rig
from evengrad.types import Finding, Proposal, Trace


@dataclass(frozen=True, kw_only=True)
class Unfreeze(Remedy):
    """Turns requires_grad back on everywhere, and lets parameters that the optimizer lacks join its first group.

    Reference: Paszke et al. 2019, PyTorch (an optimizer steps the tensors that it was given, of whatever model they are).
    """

    name: ClassVar[str] = "unfreeze"
    title: ClassVar[str] = "every parameter is trained"
    causes: ClassVar[tuple[str, ...]] = ("frozen_params",)
    change: ClassVar[int] = base.LOOP
    diagnostic: ClassVar[bool] = False
    shows_at_once: ClassVar[bool] = False

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        facts = trace.facts.optimizer or {}
        frozen, missing = facts.get("frozen") or [], facts.get("missing") or []
        if frozen or missing:
            name, rate = facts.get("name", "SGD"), facts.get("lr")
            lines = ["+model.requires_grad_(True)"] if frozen else []
            lines += [f"+optimizer = torch.optim.{name}(model.parameters(), lr={rate})  # once the model is complete"]
            parts = [f"{len(frozen)} frozen"] * bool(frozen) + [f"{len(missing)} that the optimizer does not have"] * bool(missing)
            yield Proposal(
                remedy=self.name,
                cause="frozen_params",
                summary=f"unfreeze parameters ({', '.join(parts)})",
                code="\n".join(lines),
                needs=("optimizer",),
            )

    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        optimizer = optimizer_of(rig, self.name)
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        frozen = [p for p in rig.model.parameters() if not p.requires_grad and p.is_floating_point()]
        for p in frozen:
            p.requires_grad_(True)
        leave = join_optimizer(rig, [p for p in rig.model.parameters() if p.requires_grad and id(p) not in held])

        def undo() -> None:
            leave()
            for p in frozen:
                p.requires_grad_(False)
                p.grad = None

        return undo
