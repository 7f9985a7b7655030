"""less_dropout, add_dropout: fewer units left out in training, or more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from evengrad.errors import InputError
from evengrad.remedies import base
from evengrad.remedies.base import Remedy, Undo, submodule, undo_all
from evengrad.rig import Rig
from evengrad.types import Finding, Proposal, Trace


@dataclass(frozen=True, kw_only=True)
class LessDropout(Remedy):
    """Lowers the rate of every dropout that takes away more than a given share of the units.

    Attributes:
        rates: Rates to propose, gentlest change first, in [0, 1].

    Reference: Srivastava et al. 2014, Dropout, sec. 7.3.
    """

    name: ClassVar[str] = "less_dropout"
    title: ClassVar[str] = "less dropout"
    causes: ClassVar[tuple[str, ...]] = ("over_regularized",)
    change: ClassVar[int] = base.ACTIVATION
    diagnostic: ClassVar[bool] = False
    shows_at_once: ClassVar[bool] = False
    rates: tuple[float, ...] = (0.1, 0.0)

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        found = [d for d in (trace.facts.modules or {}).get("dropouts", ()) if d.get("training", True)]
        most = max((float(d["p"]) for d in found), default=0.0)
        for rate in self.rates:
            if most > max(0.1, rate):
                yield Proposal(
                    remedy=self.name,
                    options={"p": rate, "dropouts": [d["name"] for d in found if d["p"] > rate]},
                    cause="over_regularized",
                    summary=f"less_dropout {most:g} -> {rate:g}",
                    code=f"-nn.Dropout({most:g})\n+nn.Dropout({rate:g})",
                )

    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        return undo_all(_lowered(submodule(rig.model, name), float(proposal.options["p"])) for name in proposal.options["dropouts"])


@dataclass(frozen=True, kw_only=True)
class AddDropout(Remedy):
    """Leaves out a share of the units that each linear layer but the first reads, in training only.

    Networks of SELU get alpha dropout, which keeps mean and variance.

    Attributes:
        rates: Rates to propose, best first, in [0, 1].

    Reference: Srivastava et al. 2014; Klambauer et al. 2017 (alpha dropout).
    """

    name: ClassVar[str] = "add_dropout"
    title: ClassVar[str] = "dropout in front of the linear layers"
    symptoms: ClassVar[tuple[str, ...]] = ("overfitting",)
    change: ClassVar[int] = base.ACTIVATION
    diagnostic: ClassVar[bool] = False
    shows_at_once: ClassVar[bool] = False
    rates: tuple[float, ...] = (0.2, 0.5)

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        rows = [x for x in trace.layers if x.kind == "linear" and (x.depth or 0) > 1 and x.weight == f"{x.name}.weight"]
        if not rows or (trace.facts.modules or {}).get("dropouts"):
            return
        selu = any(x.activation == "selu" for x in trace.layers)
        for p in self.rates:
            yield Proposal(
                remedy=self.name,
                options={"p": p, "alpha": selu},
                where=tuple(x.name for x in rows),
                cause="overfitting",
                summary=f"add_dropout {p:g}",
                code=f"+nn.{'AlphaDropout' if selu else 'Dropout'}({p:g})  # in front of {', '.join(x.name for x in rows[:3])}"
                + (f" and {len(rows) - 3} more" if len(rows) > 3 else ""),
            )

    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        hook = Drop(float(proposal.options["p"]), alpha=bool(proposal.options["alpha"]))
        return undo_all(_hooked(rig.model, name, hook) for name in proposal.where)


class Drop:
    """Forward pre-hook that drops units of a layer's input; a class at module level, so that models stay copyable."""

    def __init__(self, p: float, *, alpha: bool) -> None:
        self.p, self.alpha = p, alpha

    def __call__(self, layer: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        if not args or not isinstance(args[0], Tensor):
            return args
        drop = F.alpha_dropout if self.alpha else F.dropout
        return (drop(args[0], self.p, layer.training), *args[1:])


def _hooked(model: nn.Module, name: str, hook: Drop) -> Undo:
    layer = submodule(model, name)
    if not isinstance(layer, nn.Module) or getattr(layer, "weight", None) is None:
        raise InputError(f"{name!r} has no weight: this change was proposed for another model")
    return layer.register_forward_pre_hook(hook).remove


def _lowered(dropout: nn.Module, p: float) -> Undo:
    held = getattr(dropout, "p", None)
    if not isinstance(held, float | int):
        raise InputError(f"{type(dropout).__name__} has no dropout rate: this change was proposed for another model")
    dropout.p = p  # type: ignore[assignment]  # nn.Module lets anything be set
    return lambda: setattr(dropout, "p", held)
