"""wider: narrow hidden layers of a plain chain get more units."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import nn

from evengrad.errors import InputError
from evengrad.remedies import base, schemes
from evengrad.remedies.base import Remedy, Undo, submodule, undo_all
from evengrad.remedies.initialize import refill
from evengrad.remedies.surgery import exchange
from evengrad.rig import Rig
from evengrad.trace.batch import call
from evengrad.trace.isolation import untouched
from evengrad.types import Finding, Layer, Proposal, Trace

_NORMS = {"BatchNorm1d": nn.BatchNorm1d, "LayerNorm": nn.LayerNorm, "RMSNorm": nn.RMSNorm}
_SIZES = ("in_features", "out_features", "num_features", "normalized_shape")


@dataclass(frozen=True, kw_only=True)
class Wider(Remedy):
    """Gives the linear layers of a plain chain, and the norms between them, more units; weights are drawn anew.

    Hidden layers narrower than four times the narrowest (64 units at least) get that width. A model whose forward counts on the old
    widths is told from others by calling it once.

    Attributes:
        factor: Times the units of the narrowest hidden layer.
        min_width: Fewest units that a hidden layer has afterwards.

    Reference: Lu, Shin, Su & Karniadakis 2020, Dying ReLU and initialization, thm. 3.3 (the chance of being born dead falls with width).
    """

    name: ClassVar[str] = "wider"
    title: ClassVar[str] = "more units in narrow hidden layers"
    causes: ClassVar[tuple[str, ...]] = ("too_narrow_relu", "capacity_too_small")
    change: ClassVar[int] = base.SKIP
    diagnostic: ClassVar[bool] = False
    random: ClassVar[bool] = True
    factor: int = 4
    min_width: int = 64

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        chain = plain_chain(trace)
        if len(chain) < 2:
            return
        width = max(self.min_width, self.factor * min(x.fan_out for x in chain[:-1]))
        outs = [max(x.fan_out, width) for x in chain[:-1]] + [chain[-1].fan_out]
        sizes = list(zip([chain[0].fan_in, *outs[:-1]], outs, strict=True))
        changed = [(x, size) for x, size in zip(chain, sizes, strict=True) if size != (x.fan_in, x.fan_out)]
        kinds = {n["name"]: n["kind"] for n in (trace.facts.modules or {}).get("norms", ())}
        norms = [x for x, size in changed if x.norm != "none" and size[1] != x.fan_out]
        if any(kinds.get(x.norm_module or "") not in _NORMS for x in norms):
            return
        shown = [f"-nn.Linear({x.fan_in}, {x.fan_out})\n+nn.Linear({fan_in}, {fan_out})" for x, (fan_in, fan_out) in changed]
        yield Proposal(
            remedy=self.name,
            options={
                "layers": {x.name: [[x.fan_in, x.fan_out], list(size)] for x, size in changed},
                "norms": {str(x.norm_module): max(x.fan_out, width) for x in norms},
                "plans": [p for x, size in changed if (p := schemes.plan(replace(x, fan_in=size[0], fan_out=size[1])))],
            },
            where=tuple(x.name for x, _ in changed),
            cause=finding.cause or "capacity_too_small",
            summary=f"wider: {width} units in hidden layers",
            code="\n".join(shown),
            risk="what the weights had learned is lost; a step takes longer",
        )

    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        return undo_all(_changes(rig, proposal.options))


def _changes(rig: Rig, options: dict[str, Any]) -> Iterator[Undo]:
    for name, (old, new) in options["layers"].items():
        layer = submodule(rig.model, name)
        if not isinstance(layer, nn.Linear) or [layer.in_features, layer.out_features] != old or "weight" not in layer._parameters:
            raise InputError(f"expected nn.Linear({old[0]}, {old[1]}) at {name!r}: this change was proposed for another model")
        yield resize(rig, layer, nn.utils.skip_init(nn.Linear, new[0], new[1], bias=layer.bias is not None))
        for norm in layer.children():  # that another remedy has put behind it
            if type(norm).__name__ in _NORMS and old[1] != new[1]:
                yield resize(rig, norm, _NORMS[type(norm).__name__](new[1]))
    for name, width in options["norms"].items():
        norm = submodule(rig.model, name)
        yield resize(rig, norm, _NORMS[type(norm).__name__](width))
    yield refill(rig, options["plans"])
    _try(rig)


def resize(rig: Rig, module: nn.Module, fresh: nn.Module) -> Undo:
    """Gives a module the sizes, parameters and buffers of a fresh one of its kind; its hooks, options and name stay."""
    old = {name: p for name, p in module._parameters.items() if p is not None and name in fresh._parameters}
    held, sizes = {**module._buffers}, {name: getattr(module, name) for name in _SIZES if hasattr(module, name)}
    like = next(iter(old.values()), next(rig.model.parameters()))
    fresh.to(like.device, like.dtype)
    new = {name: nn.Parameter(fresh.get_parameter(name).detach(), requires_grad=p.requires_grad) for name, p in old.items()}
    undo_optimizer = exchange(rig, [(p, new[name]) for name, p in old.items()])
    module._parameters.update(new)
    module._buffers.update({name: b for name, b in fresh._buffers.items() if held.get(name) is not None})
    vars(module).update({name: getattr(fresh, name) for name in sizes})

    def undo() -> None:
        vars(module).update(sizes)
        module._buffers.update(held)
        module._parameters.update(old)
        undo_optimizer()

    return undo


def _try(rig: Rig) -> None:
    """Calls the model once, on the first batch where there is one.

    Raises:
        InputError: if its forward counts on the old widths.
    """
    batch = next(iter(rig.batches(0)), None)
    if batch is None:
        return
    with untouched(rig.model, seed=0), torch.no_grad():
        try:
            call(rig.model, batch.inputs)
        except Exception as error:
            raise InputError(f"the model cannot run with wider layers ({error}): widen them in its own code") from error


def plain_chain(trace: Trace) -> list[Layer]:
    """All rows of a model that is one chain of linear layers, or nothing."""
    deep = [(i, x) for i, x in enumerate(trace.layers) if x.depth is not None]
    others = [x for x in trace.layers if x.depth is None and x.kind != "norm"]
    numbers = [i for i, _ in deep]
    links = [(a, b) for a, b in trace.facts.edges or () if a in numbers and b in numbers]
    plain = all(x.kind == "linear" and x.weight == f"{x.name}.weight" and x.name and not x.residual for _, x in deep)
    return [x for _, x in deep] if plain and not others and sorted(links) == list(pairwise(numbers)) else []
