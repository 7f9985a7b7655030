"""swap_activation: another activation in the place of a bad one, with the initialiser that matches it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from evengrad.errors import InputError
from evengrad.remedies import base, schemes
from evengrad.remedies.base import Remedy, Undo, submodule, undo_all
from evengrad.remedies.initialize import refill
from evengrad.remedies.rewriting import ACTIVATIONS, Rewriter
from evengrad.rig import Rig
from evengrad.signals.scale import matching_scheme
from evengrad.types import Finding, Layer, Proposal, Trace

_SHOWN = {
    "tanh": "nn.Tanh()",
    "relu": "nn.ReLU()",
    "leaky_relu": "nn.LeakyReLU(0.2)",
    "elu": "nn.ELU()",
    "sigmoid": "nn.Sigmoid()",
    "selu": "nn.SELU()",
}
_INSTEAD = {
    "sigmoid": ("tanh", "relu"),
    "hardsigmoid": ("tanh", "relu"),
    "softmax": ("tanh", "relu"),
    "softplus": ("relu", "elu"),
    "tanh": ("relu", "selu"),
    "softsign": ("tanh", "relu"),
    "hardtanh": ("tanh", "relu"),
    "relu": ("leaky_relu", "elu"),
    "relu6": ("leaky_relu", "elu"),
    "gelu": ("relu", "selu"),
    "silu": ("relu", "selu"),
}


@dataclass(frozen=True, kw_only=True)
class SwapActivation(Remedy):
    """Replaces the activation behind hidden layers and draws their weights anew, since an initialiser suits one activation.

    Activation modules are replaced; functional calls are rewritten while the module that makes them runs. The activation of the
    model's output is left alone.

    Reference: Glorot & Bengio 2010 (logistic); Xu et al. 2015 (leaky ReLU); Clevert et al. 2016 (ELU).
    """

    name: ClassVar[str] = "swap_activation"
    title: ClassVar[str] = "another activation, with the initialiser that matches it"
    symptoms: ClassVar[tuple[str, ...]] = ("vanishing_gradient", "zero_gradient", "signal_collapse", "dead_relu", "saturated_activation")
    causes: ClassVar[tuple[str, ...]] = ("bad_hidden_activation",)
    change: ClassVar[int] = base.ACTIVATION
    random: ClassVar[bool] = True

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        head = (trace.facts.head or {}).get("layer")
        hidden = [x for x in trace.layers if x.depth is not None and x.name != head and x.activation_module is not None]
        sick = [x.activation for x in hidden if not finding.where or x.name in finding.where]
        old = max(set(sick), key=sick.count, default=None)
        rows = [x for x in hidden if x.activation == old and x.kind not in {"rnn", "lstm", "gru"}]
        for new in _INSTEAD.get(old or "", ()) if rows else ():
            yield swap(str(old), new, rows, trace)

    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        return undo_all(_changes(rig, proposal))


def _changes(rig: Rig, proposal: Proposal) -> Iterator[Undo]:
    options = proposal.options
    if options["spare"]:
        yield _rewrite(rig.model, options["old"], options["new"], options["spare"])
    else:
        for name in options["modules"]:
            yield _swap(rig.model, name, options["old"], options["new"])
    yield refill(rig, options["plans"])


def swap(old: str, new: str, rows: list[Layer], trace: Trace) -> Proposal:
    """Returns the proposal to replace the activation `old` behind these rows."""
    slope = {"negative_slope": 0.2} if new == "leaky_relu" else {}
    names, modules = {x.name for x in rows}, sorted({str(x.activation_module) for x in rows})
    plans = [p for x in trace.layers if (p := schemes.plan(x, activation=new, options=slope) if x.name in names else schemes.plan(x))]
    scheme = matching_scheme(new)
    head = [x for x in trace.layers if x.name == (trace.facts.head or {}).get("layer")]
    spare = next((x.weight for x in head if x.activation == old and x.activation_module in modules), None)  # runs in the same module
    shown_old, shown_new = _SHOWN.get(old, f"{old}(x)"), _SHOWN.get(new, new)
    return Proposal(
        remedy=SwapActivation.name,
        options={"old": old, "new": new, "modules": modules, "spare": spare, "plans": plans},
        where=tuple(x.name for x in rows),
        cause="bad_hidden_activation",
        summary=f"swap_activation {old} -> {new} ({scheme})",
        code=f"-{shown_old}\n+{shown_new}\n+eg.initialize_(model)  # {scheme}",
        risk="what the weights had learned is lost",
    )


def _swap(model: nn.Module, name: str, old: str, new: str) -> Undo:
    module = submodule(model, name)
    if any(module.children()) or not _is_activation(module, old):
        return _rewrite(module, old, new)
    fresh = ACTIVATIONS[new]()
    fresh.training = module.training
    undos: list[Undo] = []
    for parent in model.modules():  # one instance can hang in several places
        for key, child in list(parent._modules.items()):
            if child is module:
                parent._modules[key] = fresh
                undos.append(lambda parent=parent, key=key: parent._modules.__setitem__(key, module))  # type: ignore[misc]
    return undo_all(undos)


def _is_activation(module: nn.Module, old: str) -> bool:
    return type(module).__module__.startswith("torch.nn.modules.activation") and type(module).__name__.lower() == old.replace("_", "")


def _rewrite(module: nn.Module, old: str, new: str, spare: str | None = None) -> Undo:
    """Rewrites functional calls while `module` runs; what follows the weight called `spare` is left alone."""
    if spare is not None and spare not in dict(module.named_parameters(remove_duplicate=False)):
        raise InputError(f"the model has no parameter {spare!r}: this change was proposed for another model")
    mode = Rewriter(old, new, spare)
    handles = [module.register_forward_pre_hook(mode.enter), module.register_forward_hook(mode.leave, always_call=True)]
    return undo_all([handle.remove for handle in handles])
