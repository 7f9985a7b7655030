"""insert_activation: an activation behind each layer that feeds another one with nothing in between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from evengrad.errors import InputError
from evengrad.remedies import base, schemes
from evengrad.remedies.base import Remedy, Undo, submodule, undo_all
from evengrad.remedies.initialize import refill
from evengrad.rig import Rig
from evengrad.signals.scale import matching_scheme
from evengrad.types import Finding, Layer, Proposal, Trace

CHILD = "evengrad_activation"
_CLASSES: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}
_PLAIN = {"linear", "conv", "conv_transpose"}


@dataclass(frozen=True, kw_only=True)
class InsertActivation(Remedy):
    """Puts ReLU or tanh behind linear layers that feed a linear layer, and draws their weights anew to match it.

    The activation becomes a child of the layer, or of the norm behind it, and runs in a hook.

    Reference: He et al. 2015 (ReLU); Glorot & Bengio 2010 (tanh).
    """

    name: ClassVar[str] = "insert_activation"
    title: ClassVar[str] = "an activation between layers that have none"
    causes: ClassVar[tuple[str, ...]] = ("missing_activation",)
    change: ClassVar[int] = base.ACTIVATION
    diagnostic: ClassVar[bool] = False
    random: ClassVar[bool] = True

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        rows = [x for x in _linear_rows(trace) if not finding.where or x.name in finding.where]
        usual = Counter(x.activation for x in trace.layers if x.activation in _CLASSES).most_common(1)
        for new in sorted(_CLASSES, key=lambda name: not usual or name != usual[0][0]) if rows else ():
            scheme = matching_scheme(new)
            yield Proposal(
                remedy=self.name,
                options={
                    "activation": new,
                    "modules": [x.norm_module or x.name for x in rows],
                    "plans": [p for x in rows if (p := schemes.plan(x, activation=new))],
                },
                where=tuple(x.name for x in rows),
                cause="missing_activation",
                summary=f"insert_activation {new} ({scheme})",
                code=f"+nn.{_CLASSES[new].__name__}()  # behind {', '.join(x.name for x in rows)}\n+eg.initialize_(model)  # {scheme}",
                risk="what the weights had learned is lost",
            )

    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        return undo_all(_changes(rig, proposal.options))


def apply_activation(module: nn.Module, _args: object, output: Any) -> Any:
    """Forward hook that applies a module's child to its output (a module-level function, so that models stay copyable)."""
    return module.get_submodule(CHILD)(output)


def _changes(rig: Rig, options: dict[str, Any]) -> Iterator[Undo]:
    yield refill(rig, options["plans"])  # first: it knows another model by its parameters
    for name in options["modules"]:
        yield _insert(submodule(rig.model, name), options["activation"])


def _insert(module: nn.Module, name: str) -> Undo:
    if hasattr(module, CHILD):
        raise InputError(f"{type(module).__name__} has an activation already: this change was proposed for another model")
    child = _CLASSES[name]()
    module.add_module(CHILD, child.train(module.training))
    handle = module.register_forward_hook(apply_activation)
    return undo_all([lambda: delattr(module, CHILD), handle.remove])


def _linear_rows(trace: Trace) -> list[Layer]:
    """Rows of a weight of their own that feed a linear row linearly, and are no low-rank factor, branch or head."""
    head, found = (trace.facts.head or {}).get("layer"), {}
    for a, b in trace.facts.edges or ():
        row, fed = trace.layers[a], trace.layers[b]
        plain = row.kind in _PLAIN and fed.kind in _PLAIN and not (row.residual or fed.residual)
        own = row.weight == f"{row.name}.weight" and row.name != head and row.activation == "none"
        if plain and own and row.fan_out >= min(row.fan_in, fed.fan_out):
            found[a] = row
    return list(found.values())
