"""float32: weights, and what is computed from them, in single precision."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from evengrad.remedies import base
from evengrad.remedies.base import Remedy, Undo, undo_all
from evengrad.remedies.pacing import optimizer_of
from evengrad.rig import Rig
from evengrad.trace.batch import mapped
from evengrad.types import Finding, Proposal, Trace

_HALF = {torch.float16: "float16", torch.bfloat16: "bfloat16"}


@dataclass(frozen=True, kw_only=True)
class Float32(Remedy):
    """Turns weights, buffers and the optimizer's state from half into single precision, which holds steps of a thousandth.

    What reaches a module that owns weights is turned into their type, so that casts within the model do no harm.

    Reference: Micikevicius et al. 2018, Mixed precision training, https://arxiv.org/abs/1710.03740.
    """

    name: ClassVar[str] = "float32"
    title: ClassVar[str] = "weights in single precision"
    causes: ClassVar[tuple[str, ...]] = ("low_precision",)
    change: ClassVar[int] = base.LOOP
    diagnostic: ClassVar[bool] = False
    shows_at_once: ClassVar[bool] = False

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        half = [name for name in (trace.facts.modules or {}).get("dtypes", ()) if name in _HALF.values()]
        if half:
            yield Proposal(
                remedy=self.name,
                cause="low_precision",
                summary=f"float32 in place of {half[0]}",
                code=f"-model = model.to(torch.{half[0]})\n+model = model.float()  # autocast around forward keeps the speed",
                risk="twice the memory for weights",
            )

    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        optimizer = optimizer_of(rig, self.name)
        held = [(p, p.dtype) for p in (*rig.model.parameters(), *rig.model.buffers()) if p.dtype in _HALF]
        states = [
            (optimizer.state[p], k, v.dtype) for p, _ in held if p in optimizer.state for k, v in optimizer.state[p].items() if _half(v)
        ]

        def change(back: bool) -> None:
            for tensor, dtype in held:
                gradient, tensor.grad = tensor.grad, None
                tensor.data = tensor.data.to(dtype if back else torch.float32)
                tensor.grad = None if gradient is None else gradient.to(tensor.dtype)
            for state, key, dtype in states:
                if key in state:
                    state[key] = state[key].to(dtype if back else torch.float32)

        owners = [m for m in rig.model.modules() if any(p.is_floating_point() for p in m.parameters(recurse=False))]
        handles = [m.register_forward_pre_hook(to_weights, with_kwargs=True, prepend=True) for m in owners]
        change(back=False)
        return undo_all([*(h.remove for h in handles), lambda: change(back=True)])


def to_weights(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Forward pre-hook that turns floating-point inputs into the type of the module's own weights; copyable, at module level."""
    dtype = next(p.dtype for p in module.parameters(recurse=False) if p.is_floating_point())

    def turned(value: Tensor) -> Tensor:
        return value.to(dtype) if value.is_floating_point() else value

    return mapped(turned, args), mapped(turned, kwargs)


def _half(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype in _HALF
