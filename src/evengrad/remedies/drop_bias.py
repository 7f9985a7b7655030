"""drop_bias: layers without the bias that a batch norm would subtract again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from evengrad.errors import InputError
from evengrad.remedies import base
from evengrad.remedies.base import Remedy, Undo, submodule, undo_all
from evengrad.remedies.surgery import exchange
from evengrad.rig import Rig
from evengrad.types import Finding, Proposal, Trace

_CENTRES = {"batch_norm", "instance_norm"}


@dataclass(frozen=True, kw_only=True)
class DropBias(Remedy):
    """Takes away each bias behind which a norm subtracts the mean of its unit: it does nothing and costs memory and time.

    Reference: Ioffe & Szegedy 2015, sec. 3.2.
    """

    name: ClassVar[str] = "drop_bias"
    title: ClassVar[str] = "no bias before a batch norm"
    symptoms: ClassVar[tuple[str, ...]] = ("NRM001",)
    change: ClassVar[int] = base.INITIALISER
    diagnostic: ClassVar[bool] = False

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        rows = [x for x in trace.layers if x.norm in _CENTRES and x.bias is not None and x.bias == f"{x.name}.bias"]
        if rows:
            yield Proposal(
                remedy=self.name,
                options={"biases": [x.bias for x in rows]},
                where=tuple(x.name for x in rows),
                cause="bn_stats",
                summary=f"drop_bias of {len(rows)} layers before a norm",
                code=f"+bias=False  # in {', '.join(x.name for x in rows)}",
            )

    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        return undo_all(_take(rig, name) for name in proposal.options["biases"])


def _take(rig: Rig, name: str) -> Undo:
    layer = submodule(rig.model, name.removesuffix("bias").removesuffix("."))
    bias = layer._parameters.get("bias")
    if bias is None:
        raise InputError(f"the model has no parameter {name!r}: this change was proposed for another model")
    layer._parameters["bias"] = None
    undo_optimizer = exchange(rig, [(bias, None)])

    def undo() -> None:
        layer._parameters["bias"] = bias
        undo_optimizer()

    return undo
