"""weight_standardization: convolution kernels with mean 0 and variance 1/fan_in for each output channel, whatever is learned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from evengrad.errors import InputError
from evengrad.remedies import base
from evengrad.remedies.base import Remedy, Undo, submodule, undo_all
from evengrad.rig import Rig
from evengrad.types import Finding, Proposal, Trace

_HELD = "evengrad_weight"
_EPS = 1e-5  # Qiao et al. 2019, eq. 8


@dataclass(frozen=True, kw_only=True)
class WeightStandardization(Remedy):
    """Convolves with (W - mean) / (std sqrt(fan_in)), mean and std of each output channel's kernel, in place of W.

    It smooths the loss as batch norm does and needs no batch, so it goes with group norm and small batches. The parameter keeps its name
    and place: `torch.nn.utils.parametrize` would rename it, and its modules cannot be pickled. The factor 1/sqrt(fan_in) makes it
    LeCun's scale without a norm behind it.

    Reference: Qiao, Wang, Liu, Shen & Yuille 2019, https://arxiv.org/abs/1903.10520; Brock, De & Smith 2021 (the factor).
    """

    name: ClassVar[str] = "weight_standardization"
    title: ClassVar[str] = "standardised kernels of convolutions"
    causes: ClassVar[tuple[str, ...]] = ("batch_too_small", "missing_normalization_layer")
    change: ClassVar[int] = base.NORM
    diagnostic: ClassVar[bool] = False

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        rows = [x for x in trace.layers if x.kind == "conv" and x.weight == f"{x.name}.weight" and x.fan_in > 1]
        if rows:
            yield Proposal(
                remedy=self.name,
                options={"layers": [x.name for x in rows]},
                where=tuple(x.name for x in rows),
                cause=finding.cause or "missing_normalization_layer",
                summary=f"weight_standardization of {len(rows)} convolutions",
                code="+w = layer.weight - layer.weight.mean((1, 2, 3), keepdim=True)\n"
                "+w = w / (w.square().sum((1, 2, 3), keepdim=True) + 1e-5).sqrt()\n+x = F.conv2d(x, w, layer.bias, …)",
            )

    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        return undo_all(_standardise(submodule(rig.model, name)) for name in proposal.options["layers"])


def standardised(weight: Tensor) -> Tensor:
    """Returns a kernel (out, in, k...) with mean 0 and sum of squares 1 for each output channel."""
    axes = tuple(range(1, weight.dim()))
    centred = weight - weight.mean(axes, keepdim=True)
    return centred / (centred.square().sum(axes, keepdim=True) + _EPS).sqrt()


def lend(layer: nn.Module, _args: object) -> None:
    """Forward pre-hook: the layer computes with its standardised weight (a module-level function, so that models stay copyable)."""
    weight = layer._parameters["weight"]
    assert weight is not None
    layer.__dict__[_HELD] = weight
    layer._parameters["weight"] = standardised(weight)  # type: ignore[assignment]


def take_back(layer: nn.Module, _args: object, _output: object) -> None:
    """Forward hook: the layer has its own weight again, also after an error."""
    layer._parameters["weight"] = layer.__dict__.pop(_HELD, layer._parameters["weight"])


def _standardise(layer: nn.Module) -> Undo:
    weight = layer._parameters.get("weight")
    if weight is None or weight.dim() < 3:
        raise InputError(f"{type(layer).__name__} has no kernel of a convolution: this change was proposed for another model")
    handles = [layer.register_forward_pre_hook(lend), layer.register_forward_hook(take_back, always_call=True)]
    return undo_all([handle.remove for handle in handles])
