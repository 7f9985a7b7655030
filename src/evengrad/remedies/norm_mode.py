"""norm_mode: batch norms that train while the model does, with running statistics that evaluation can use."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from evengrad.errors import InputError
from evengrad.remedies import base
from evengrad.remedies.base import Remedy, Undo, submodule, undo_all
from evengrad.rig import Rig
from evengrad.types import Finding, Proposal, Trace


@dataclass(frozen=True, kw_only=True)
class NormMode(Remedy):
    """Puts batch norms into train mode whenever the model is, gives them torch's momentum 0.1 and fresh running statistics.

    A norm that the model itself holds in evaluation mode follows the model again; one that the user's step holds there does not
    (`standard_step` is for that). Norms whose own parameters are frozen are fine-tuned on purpose and left alone.

    Attributes:
        momenta: Smallest and largest momentum that averages over a useful number of batches.

    Reference: Ioffe & Szegedy 2015, alg. 2; Wu & Johnson 2021, Rethinking "Batch" in BatchNorm.
    """

    name: ClassVar[str] = "norm_mode"
    title: ClassVar[str] = "batch norms that follow the model's mode, with momentum 0.1"
    causes: ClassVar[tuple[str, ...]] = ("bn_stats",)
    change: ClassVar[int] = base.LOOP
    diagnostic: ClassVar[bool] = False
    shows_at_once: ClassVar[bool] = False
    momenta: tuple[float, float] = (0.005, 0.9)

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        frozen = {name.rpartition(".")[0] for name in (trace.facts.optimizer or {}).get("frozen", ())}
        held = [n for n in (trace.facts.modules or {}).get("norms", ()) if "momentum" in n and n["name"] not in frozen]
        sick = [n["name"] for n in held if self._is_off(n)]
        if sick:
            yield Proposal(
                remedy=self.name,
                options={"norms": sick},
                where=tuple(x.name for x in trace.layers if x.norm_module in sick),
                cause="bn_stats",
                summary=f"norm_mode of {len(sick)} batch norm{'s' * (len(sick) > 1)}",
                code="+model.train()  # before each epoch; no .eval() of a norm alone\n"
                "+nn.BatchNorm1d(n, momentum=0.1, track_running_stats=True)",
            )

    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        return undo_all(self._follow(rig.model, submodule(rig.model, name)) for name in proposal.options["norms"])

    def _is_off(self, norm: dict[str, Any]) -> bool:
        momentum = norm["momentum"]
        usual = momentum is not None and self.momenta[0] <= momentum <= self.momenta[1]
        return not (usual and norm.get("training", True) and norm.get("tracks", True))

    def _follow(self, model: nn.Module, norm: nn.Module) -> Undo:
        if not isinstance(norm, _BatchNorm):
            raise InputError(f"expected a batch norm, got {type(norm).__name__}: this change was proposed for another model")
        before = (norm.momentum, norm.track_running_stats, norm.training)
        buffers = {name: (b, None if b is None else b.clone()) for name, b in norm._buffers.items()}
        if not (norm.momentum is not None and self.momenta[0] <= norm.momentum <= self.momenta[1]):
            norm.momentum = 0.1
        norm.track_running_stats = True
        if norm.running_mean is None:
            norm.running_mean, norm.running_var = (torch.zeros(norm.num_features, **_like(model)) for _ in range(2))
            norm.num_batches_tracked = torch.zeros((), dtype=torch.long, device=_like(model)["device"])
        norm.reset_running_stats()
        norm.training = model.training
        handle = norm.register_forward_pre_hook(Follow(model).before)

        def undo() -> None:
            handle.remove()
            norm.momentum, norm.track_running_stats, norm.training = before
            for name, (buffer, value) in buffers.items():
                norm._buffers[name] = buffer
                if buffer is not None and value is not None:
                    buffer.copy_(value)

        return undo


class Follow:
    """Forward pre-hook that puts a norm into the mode of the whole model."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def before(self, norm: nn.Module, _args: object) -> None:
        """Sets the mode."""
        norm.training = self.model.training


def _like(model: nn.Module) -> dict[str, Any]:
    first: Tensor = next(p for p in model.parameters() if p.is_floating_point())
    return {"device": first.device, "dtype": first.dtype}
