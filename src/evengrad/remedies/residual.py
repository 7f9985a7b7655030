"""residual, skip_init: skip connections around the layers of a deep plain stack, scaled so that depth adds up to one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from evengrad.errors import InputError
from evengrad.remedies import base
from evengrad.remedies.base import Remedy, Undo, submodule, undo_all
from evengrad.remedies.insert_norm import join_optimizer
from evengrad.rig import Rig
from evengrad.types import Finding, Layer, Proposal, Trace

ALPHA = "evengrad_alpha"


@dataclass(frozen=True, kw_only=True)
class Residual(Remedy):
    """Turns each layer z = f(z_before) of a plain stack of equal width into z_before + alpha f(z_before), alpha = 1/sqrt(L).

    z are the outputs of the weights, so the activation comes first in each branch (pre-activation) and needs no surgery, whether it is a
    module or a call. With L branches of variance alpha² = 1/L the signal grows by a factor that does not depend on depth.

    Attributes:
        min_layers: Fewest layers in a stack around which skips are put.

    Reference: He, Zhang, Ren & Sun 2016, Identity mappings; Balduzzi et al. 2017 (alpha); Hayou et al. 2021, Stable ResNet.
    """

    name: ClassVar[str] = "residual"
    title: ClassVar[str] = "scaled skip connections around each layer"
    causes: ClassVar[tuple[str, ...]] = ("too_deep_no_skip",)
    symptoms: ClassVar[tuple[str, ...]] = ("vanishing_gradient",)
    change: ClassVar[int] = base.SKIP
    diagnostic: ClassVar[bool] = False
    learned: ClassVar[bool] = False
    min_layers: int = 6

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        stacks = [stack for stack in _stacks(trace) if len(stack) > self.min_layers]
        if stacks:
            layers = sum(len(stack) - 1 for stack in stacks)
            alpha = 0.0 if self.learned else layers**-0.5
            shown = "self.alpha[i]" if self.learned else f"{alpha:.3g}"
            yield Proposal(
                remedy=self.name,
                options={"stacks": [[x.name for x in stack] for stack in stacks], "alpha": alpha},
                where=tuple(x.name for stack in stacks for x in stack[1:]),
                cause="too_deep_no_skip",
                summary=f"{self.name} around {layers} layers" + ("" if self.learned else f" (alpha {alpha:.2g})"),
                code=("+self.alpha = nn.Parameter(torch.zeros(n))  # a number a layer\n" if self.learned else "")
                + f"-z = layer(activation(z))\n+z = z + {shown} * layer(activation(z))",
            )

    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        return undo_all(self._changes(rig, proposal.options))

    def _changes(self, rig: Rig, options: dict[str, Any]) -> Iterator[Undo]:
        for stack in options["stacks"]:
            layers = [submodule(rig.model, name) for name in stack]
            if any(not isinstance(getattr(layer, "weight", None), Tensor) for layer in layers):
                raise InputError(f"{stack[0]} or one behind it has no weight: this change was proposed for another model")
            skip = Skip(options["alpha"])
            yield layers[0].register_forward_hook(skip.start).remove
            for layer in layers[1:]:
                if self.learned:
                    yield _with_alpha(rig, layer)
                yield layer.register_forward_hook(skip.add).remove


@dataclass(frozen=True, kw_only=True)
class SkipInit(Residual):
    """The same with a learned alpha a layer that starts at 0: the network begins as one layer, and grows as deep as it pays.

    Reference: De & Smith 2020 (SkipInit); Bachlechner et al. 2021 (ReZero).
    """

    name: ClassVar[str] = "skip_init"
    title: ClassVar[str] = "skip connections around each layer whose branch starts at zero"
    learned: ClassVar[bool] = True


class Skip:
    """Forward hooks of the layers of one stack: each adds its output, times alpha, to that of the layer before."""

    def __init__(self, alpha: float) -> None:
        self.alpha = alpha
        self._last: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"alpha": self.alpha, "_last": None}  # what one call left behind is no part of a copy

    def start(self, _layer: nn.Module, _args: object, output: Any) -> None:
        """Notes the output of the first layer."""
        self._last = output

    def add(self, layer: nn.Module, _args: object, output: Any) -> Any:
        """Returns the sum, and notes it for the layer behind."""
        alpha = getattr(layer, ALPHA, self.alpha)
        before = self._last
        self._last = output if before is None or before.shape != output.shape else before + alpha * output
        return self._last


def _with_alpha(rig: Rig, layer: nn.Module) -> Undo:
    if hasattr(layer, ALPHA):
        raise InputError(f"{type(layer).__name__} has an alpha already: this change was proposed for another model")
    weight = next(layer.parameters())
    alpha = nn.Parameter(torch.zeros((), device=weight.device, dtype=weight.dtype))
    layer.register_parameter(ALPHA, alpha)
    return undo_all([lambda: delattr(layer, ALPHA), join_optimizer(rig, [alpha])])


def _stacks(trace: Trace) -> list[list[Layer]]:
    """Chains of rows of equal kind and width without skip, each feeding the next one alone through an activation."""
    sources: dict[int, list[int]] = {}
    for a, b in trace.facts.edges or ():
        sources.setdefault(b, []).append(a)
    stacks: list[list[int]] = []
    ending: dict[int, list[int]] = {}
    for b, row in enumerate(trace.layers):
        before = sources.get(b, [])
        same = row.kind in {"linear", "conv"} and row.weight == f"{row.name}.weight" and not row.residual
        feeds = same and len(before) == 1 and _joins(trace.layers[before[0]], row)
        if feeds and before[0] in ending:
            ending[b] = ending.pop(before[0])
            ending[b].append(b)
        elif same:
            ending[b] = [b]
            stacks.append(ending[b])
    return [[trace.layers[i] for i in stack] for stack in stacks]


def _joins(before: Layer, row: Layer) -> bool:
    through = before.activation not in {"none", "unknown", "softmax", "log_softmax"}
    same = before.kind == row.kind and before.fan_out == row.fan_out and before.weight == f"{before.name}.weight"
    return through and same and not before.residual
