"""drop_output_activation, add_output_activation: the activation behind the last layer that the loss asks for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor, nn

from evengrad.errors import InputError
from evengrad.remedies import base
from evengrad.remedies.base import Remedy, Undo, submodule, undo_all
from evengrad.remedies.rewriting import RewriteMode, Rewriter
from evengrad.remedies.surgery import replace_module
from evengrad.rig import Rig
from evengrad.types import Finding, Layer, Proposal, Trace

_CLASSES: dict[str, Callable[[], nn.Module]] = {
    "identity": nn.Identity,
    "sigmoid": nn.Sigmoid,
    "log_softmax": lambda: nn.LogSoftmax(dim=1),
    "softplus": nn.Softplus,
}
_SHOWN = {"softmax": "nn.Softmax(dim=1)", "log_softmax": "nn.LogSoftmax(dim=1)", "relu": "nn.ReLU()", "relu6": "nn.ReLU6()"}
_SHOWN |= {"tanh": "nn.Tanh()", "sigmoid": "nn.Sigmoid()", "softplus": "nn.Softplus()", "hardtanh": "nn.Hardtanh()", "elu": "nn.ELU()"}
_LOGITS, _NUMBERS = {"cross_entropy", "bce_with_logits"}, {"mse", "l1", "smooth_l1"}
_RANGES = {"sigmoid": (0.0, 1.0), "hardsigmoid": (0.0, 1.0), "softmax": (0.0, 1.0), "tanh": (-1.0, 1.0), "hardtanh": (-1.0, 1.0)}
_RANGES |= {"relu": (0.0, np.inf), "relu6": (0.0, 6.0), "softplus": (0.0, np.inf), "elu": (-1.0, np.inf)}


@dataclass(frozen=True, kw_only=True)
class OutputActivation(Remedy):
    """Puts another activation behind the last layer: a module of its own is replaced, a call is rewritten while the model runs."""

    causes: ClassVar[tuple[str, ...]] = ("redundant_output_activation", "wrong_output_activation", "wrong_loss")
    change: ClassVar[int] = base.ACTIVATION
    diagnostic: ClassVar[bool] = False

    @abstractmethod
    def instead(self, found: str, trace: Trace) -> str | None:
        """Returns what the output's activation `found` (or `none`) should be, None where this remedy has nothing to say."""

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        head, loss = trace.facts.head or {}, trace.facts.loss or {}
        row = next((x for x in trace.layers if x.name == head.get("layer")), None)
        old = _believed(head)
        if row is None or old not in {"none", row.activation} or "min" not in head:
            return
        new = self.instead(old, trace)
        if new is None:
            return
        alone = sum(x.activation_module == row.activation_module for x in trace.layers) == 1
        yield Proposal(
            remedy=self.name,
            options={"old": old, "new": new, "weight": row.weight, "module": row.activation_module if alone else None},
            where=(row.name,),
            cause=finding.cause or "wrong_output_activation",
            summary=f"{self.name} {old} -> {new}" if new != "identity" else f"{self.name} {old}",
            code=_code(row, old, new, str(loss.get("op"))),
        )

    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        options, parameters = proposal.options, dict(rig.model.named_parameters(remove_duplicate=False))
        if options["weight"] not in parameters:
            raise InputError(f"the model has no parameter {options['weight']!r}: this change was proposed for another model")
        if options["old"] == "none":
            return rig.model.register_forward_hook(_BEHIND[options["new"]]).remove
        module = submodule(rig.model, options["module"]) if options["module"] else None
        if module is not None and type(module).__module__ == "torch.nn.modules.activation":
            return replace_module(rig.model, module, _CLASSES[options["new"]]())
        mode = _HeadRewriter(options["old"], options["new"], options["weight"])
        handles = [rig.model.register_forward_pre_hook(mode.enter), rig.model.register_forward_hook(mode.leave, always_call=True)]
        return undo_all([handle.remove for handle in handles])


@dataclass(frozen=True, kw_only=True)
class DropOutputActivation(OutputActivation):
    """Takes away the activation behind the last layer: before a loss that has its own, or where targets lie out of its reach.

    Attributes:
        max_outside: Distance of a target from what the activation reaches from which it goes, in deviations of the targets.

    Reference: Bridle 1990 (softmax and its loss belong together); Goodfellow, Bengio & Courville 2016, sec. 6.2.2.
    """

    name: ClassVar[str] = "drop_output_activation"
    title: ClassVar[str] = "no activation behind the last layer"
    max_outside: float = 0.5

    def instead(self, found: str, trace: Trace) -> str | None:
        op = (trace.facts.loss or {}).get("op")
        outside = op in _NUMBERS and _outside(found, trace) > self.max_outside
        return "identity" if found in _RANGES and (op in _LOGITS or outside) else None


@dataclass(frozen=True, kw_only=True)
class AddOutputActivation(OutputActivation):
    """Puts the activation behind the last layer that the loss takes for granted, in the place of a wrong one if there is one.

    A log-softmax before a negative log-likelihood, a sigmoid before a binary cross-entropy of one unit, a softplus where a bounded
    activation is to meet targets that are never negative.

    Attributes:
        max_outside: Distance of a target from what the activation reaches from which it is exchanged, in deviations of the targets.

    Reference: Goodfellow, Bengio & Courville 2016, sec. 6.2.2; Dugas et al. 2001 (softplus).
    """

    name: ClassVar[str] = "add_output_activation"
    title: ClassVar[str] = "the activation that the loss takes for granted"
    max_outside: float = 0.5

    def instead(self, found: str, trace: Trace) -> str | None:
        head, loss, targets = trace.facts.head or {}, trace.facts.loss or {}, trace.facts.targets or {}
        op, width = loss.get("op"), int(head.get("width", 0))
        logs = {"log_softmax", "log", "logsigmoid", "logsumexp"} & set(loss.get("operations", ()))
        if op == "nll" and found != "log_softmax" and not logs and head["max"] > 1e-4 and width > 1 and len(head["shape"]) > 1:
            return "log_softmax"
        if op == "bce" and found in {"softmax", "log_softmax"} and width == 1:
            return "sigmoid"
        bounded = found in _RANGES and _RANGES[found][1] < np.inf
        positive = bounded and op in _NUMBERS and float(targets.get("min", -1.0)) >= 0
        return "softplus" if positive and _outside(found, trace) > self.max_outside else None


def log_softmax_behind(_model: nn.Module, _args: object, output: Any) -> Any:
    """Forward hook: log-probabilities of a tensor of logits (a module-level function, so that models stay copyable)."""
    return output.log_softmax(1) if isinstance(output, Tensor) else output


_BEHIND = {"log_softmax": log_softmax_behind}


class _HeadRewriter(Rewriter):
    """Forward hooks of the whole model that put another activation behind one weight only."""

    def enter(self, module: nn.Module, _args: object) -> None:
        mode = _HeadMode(self.old, self.new, module.get_parameter(str(self.spare)))
        mode.__enter__()  # type: ignore[no-untyped-call]
        self._active.append(mode)


class _HeadMode(RewriteMode):
    def __init__(self, old: str, new: str, head: nn.Parameter) -> None:
        super().__init__(old, "relu", None)
        self._new, self._head, self._behind = _CLASSES[new](), head, False

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        weights = [a for a in (*args, *(kwargs or {}).values()) if isinstance(a, nn.Parameter) and a.dim() > 1]
        if weights:
            self._behind = any(w is self._head for w in weights)
        return super().__torch_function__(func, types, args, kwargs) if self._behind else func(*args, **(kwargs or {}))


def _believed(head: dict[str, Any]) -> str:
    """The output's activation, where its values agree with it: something else can follow it."""
    name, low, high = str(head.get("activation")), head.get("min", -np.inf), head.get("max", np.inf)
    reach = _RANGES.get(name, (-np.inf, np.inf))
    row_sum = head.get("row_sum", 1.0)
    fits = reach[0] - 1e-6 <= low and high <= reach[1] + 1e-6 and (name != "softmax" or abs(row_sum - 1.0) < 1e-3)
    return name if fits else "unknown"


def _outside(name: str, trace: Trace) -> float:
    """How far targets lie from what an activation reaches, in deviations of the targets."""
    targets = trace.facts.targets or {}
    std = float(targets.get("std") or 0.0)
    if name not in _RANGES or not std > 0:
        return 0.0
    low, high = _RANGES[name]
    return max(low - float(targets.get("min", low)), float(targets.get("max", high)) - high) / std


def _code(row: Layer, old: str, new: str, op: str) -> str:
    lines = [f" # behind {row.name}, the last layer: {op} takes {'logits' if op in _LOGITS else 'the rest for granted'}"]
    lines += [f"-{_SHOWN.get(old, f'{old}(x)')}"] if old != "none" else []
    return "\n".join(lines + ([f"+{_SHOWN[new]}"] if new != "identity" else []))
