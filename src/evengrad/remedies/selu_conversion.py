"""selu_conversion: every condition under which SELU normalises itself, set at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from evengrad.errors import InputError
from evengrad.remedies import base, schemes
from evengrad.remedies.base import Remedy, Undo, submodule, undo_all
from evengrad.remedies.initialize import refill
from evengrad.remedies.standardize_input import StandardizeInput
from evengrad.remedies.surgery import exchange, replace_module
from evengrad.rig import Rig
from evengrad.types import Finding, Proposal, Trace


@dataclass(frozen=True, kw_only=True)
class SeluConversion(Remedy):
    """LeCun-normal weights, AlphaDropout in place of dropout, standardised inputs, and no norm before a SELU.

    What cannot be set from outside is left: convolutions, recurrences and skips.

    Reference: Klambauer, Unterthiner, Mayr & Hochreiter 2017, Self-normalizing neural networks.
    """

    name: ClassVar[str] = "selu_conversion"
    title: ClassVar[str] = "all conditions of self-normalising networks"
    causes: ClassVar[tuple[str, ...]] = ("selu_conditions",)
    change: ClassVar[int] = base.NORM
    diagnostic: ClassVar[bool] = False
    random: ClassVar[bool] = True

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        rows = [x for x in trace.layers if x.depth is not None and x.activation == "selu"]
        plans = [p for x in rows if (p := schemes.plan(x))]
        if not plans:
            return
        dropouts = [d["name"] for d in (trace.facts.modules or {}).get("dropouts", ()) if d["kind"] == "Dropout"]
        norms = sorted({x.norm_module for x in rows if x.norm_module is not None})
        standardise = next(StandardizeInput().propose(finding, trace), None)
        code = ["+eg.initialize_(model)  # lecun_normal before SELU"]
        code += ["-nn.Dropout(p)", "+nn.AlphaDropout(p)"] if dropouts else []
        code += [f"-{name}  # a norm before SELU" for name in norms]
        yield Proposal(
            remedy=self.name,
            options={
                "plans": plans,
                "dropouts": dropouts,
                "norms": norms,
                "standardise": standardise.options if standardise else None,
            },
            where=tuple(x.name for x in rows),
            cause="selu_conditions",
            summary="selu_conversion: " + ", ".join(_words(dropouts, norms, standardise)),
            code="\n".join(code + ([standardise.code] if standardise else [])),
            risk="what the weights had learned is lost",
        )

    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        return undo_all(_changes(rig, proposal.options))


def _words(dropouts: list[str], norms: list[str], standardise: Proposal | None) -> list[str]:
    parts = ("AlphaDropout", bool(dropouts)), ("no norm", bool(norms)), ("standardised inputs", standardise is not None)
    return ["lecun_normal", *(words for words, needed in parts if needed)]


def _changes(rig: Rig, options: dict[str, Any]) -> Iterator[Undo]:
    yield refill(rig, options["plans"])  # first: it knows another model by its parameters
    for name in options["dropouts"]:
        old = submodule(rig.model, name)
        if not isinstance(old, nn.Dropout):
            raise InputError(f"expected nn.Dropout at {name!r}, got {type(old).__name__}: this change was proposed for another model")
        yield replace_module(rig.model, old, nn.AlphaDropout(old.p).train(old.training))
    for name in options["norms"]:
        norm = submodule(rig.model, name)
        yield replace_module(rig.model, norm, nn.Identity().train(norm.training))
        yield exchange(rig, [(p, None) for p in norm.parameters()])
    if options["standardise"]:
        yield StandardizeInput().apply(rig, Proposal(remedy=StandardizeInput.name, options=options["standardise"]))
