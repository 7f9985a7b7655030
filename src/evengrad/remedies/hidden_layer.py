"""hidden_layer: a network without a hidden layer gets one or two."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

from torch import nn

from evengrad.errors import InputError
from evengrad.remedies import base
from evengrad.remedies.base import Remedy, Undo, submodule, undo_all
from evengrad.remedies.insert_norm import join_optimizer
from evengrad.remedies.wider import plain_chain, resize
from evengrad.rig import Rig
from evengrad.trace.isolation import generators_restored
from evengrad.types import Finding, Proposal, Trace

CHILD = "evengrad_hidden"


@dataclass(frozen=True, kw_only=True)
class HiddenLayer(Remedy):
    """Puts linear layers with ReLU before the only layer: a network without any parts classes by a plane and fits numbers by a line.

    The hidden layers become a child of the layer and run in a hook. All weights are drawn as torch does.

    Attributes:
        units: Units of a hidden layer.
        most: Hidden layers, at most.

    Reference: Minsky & Papert 1969 (what one layer cannot tell apart); Leshno, Lin, Pinkus & Schocken 1993 (what one more can).
    """

    name: ClassVar[str] = "hidden_layer"
    title: ClassVar[str] = "a hidden layer where there is none"
    causes: ClassVar[tuple[str, ...]] = ("capacity_too_small",)
    change: ClassVar[int] = base.SKIP
    diagnostic: ClassVar[bool] = False
    random: ClassVar[bool] = True
    units: int = 64
    most: int = 2

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        chain = plain_chain(trace)
        if len(chain) != 1:
            return
        (only,) = chain
        for count in range(1, self.most + 1):
            sizes = [only.fan_in, *[self.units] * count, only.fan_out]
            shown = ", nn.ReLU(), ".join(f"nn.Linear({a}, {b})" for a, b in pairwise(sizes))
            yield Proposal(
                remedy=self.name,
                options={"layer": only.name, "sizes": sizes},
                where=(only.name,),
                cause="capacity_too_small",
                summary=f"hidden_layer of {' and '.join([str(self.units)] * count)} units",
                code=f"-nn.Linear({only.fan_in}, {only.fan_out})\n+nn.Sequential({shown})",
                risk="what the weights had learned is lost; a step takes longer",
            )

    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        name, (*sizes, last) = proposal.options["layer"], proposal.options["sizes"]
        layer = submodule(rig.model, name)
        if not isinstance(layer, nn.Linear) or (layer.in_features, layer.out_features) != (sizes[0], last) or hasattr(layer, CHILD):
            raise InputError(f"expected a plain nn.Linear({sizes[0]}, {last}) at {name!r}: this change was proposed for another model")
        with generators_restored(rig.model, seed=rig.seed):
            hidden = nn.Sequential(*(module for a, b in pairwise(sizes) for module in (nn.Linear(a, b), nn.ReLU())))
            fresh = nn.Linear(sizes[-1], last, bias=layer.bias is not None)
        undo_size = resize(rig, layer, fresh)
        layer.add_module(CHILD, hidden.to(layer.weight.device, layer.weight.dtype).train(layer.training))
        handle = layer.register_forward_pre_hook(through_hidden)
        return undo_all([undo_size, lambda: delattr(layer, CHILD), handle.remove, join_optimizer(rig, list(hidden.parameters()))])


def through_hidden(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Forward pre-hook that sends the input through a module's child (a module-level function, so that models stay copyable)."""
    return module.get_submodule(CHILD)(args[0]), *args[1:]
