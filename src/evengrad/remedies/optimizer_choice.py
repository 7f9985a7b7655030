"""adam, momentum: another optimizer over the same parameters, or momentum for the one that there is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from evengrad.errors import InputError
from evengrad.remedies import base
from evengrad.remedies.base import Remedy, Undo, undo_all
from evengrad.remedies.pacing import optimizer_of
from evengrad.remedies.rates import _schedulers, scale_rates
from evengrad.rig import Rig
from evengrad.types import Finding, Proposal, Trace

_PLAIN = {"SGD", "ASGD", "Adagrad", "Adadelta", "Rprop"}  # without both momentum and a size for each parameter
_SLOW = {None, "lr_too_low"}  # causes of slowness that another optimizer answers


@dataclass(frozen=True, kw_only=True)
class Adam(Remedy):
    """Puts Adam in the optimizer's place: the same groups and schedule, momentum and steps that do not depend on the gradient's scale.

    Groups keep their ratios of rates and their weight decay.

    Attributes:
        rates: Rates of the first group to propose, best first.

    Reference: Kingma & Ba 2015, https://arxiv.org/abs/1412.6980.
    """

    name: ClassVar[str] = "adam"
    title: ClassVar[str] = "Adam in place of the optimizer"
    symptoms: ClassVar[tuple[str, ...]] = ("slow_convergence", "plateau")
    change: ClassVar[int] = base.RATE
    diagnostic: ClassVar[bool] = False
    shows_at_once: ClassVar[bool] = False
    rates: tuple[float, ...] = (1e-3, 1e-2)

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        facts = trace.facts.optimizer or {}
        name, rate = str(facts.get("name")), facts.get("lr")
        if name not in _PLAIN or not rate or finding.cause not in _SLOW or (trace.facts.inputs or {}).get("nonfinite_fraction"):
            return
        for lr in self.rates:
            yield Proposal(
                remedy=self.name,
                options={"lr": lr},
                cause="lr_too_low",
                summary=f"adam {lr:g} in place of {name}",
                code=f"-torch.optim.{name}(model.parameters(), lr={rate:g})\n+torch.optim.Adam(model.parameters(), lr={lr:g})",
                needs=("optimizer",),
            )

    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        old = optimizer_of(rig, self.name)
        rate = old.param_groups[0].get("initial_lr", old.param_groups[0].get("lr"))
        if not rate:
            raise InputError(f"adam scales the groups' rates, but that of the first is {rate!r}; give it one above zero")
        if any(isinstance(m, (nn.Embedding, nn.EmbeddingBag)) and m.sparse for m in rig.model.modules()):
            raise InputError("Adam takes no sparse gradients, but an embedding has sparse=True; build it without")
        return undo_all(_replaced(rig, old, float(proposal.options["lr"]) / float(rate)))


@dataclass(frozen=True, kw_only=True)
class Momentum(Remedy):
    """Gives every group of an SGD without momentum some: it crosses plateaus and narrow valleys in a tenth of the steps.

    Attributes:
        momentum: Share of the last step that is kept, in [0, 1).

    Reference: Sutskever, Martens, Dahl & Hinton 2013, On the importance of initialization and momentum in deep learning.
    """

    name: ClassVar[str] = "momentum"
    title: ClassVar[str] = "SGD with momentum"
    symptoms: ClassVar[tuple[str, ...]] = ("slow_convergence", "plateau")
    change: ClassVar[int] = base.RATE
    diagnostic: ClassVar[bool] = False
    shows_at_once: ClassVar[bool] = False
    momentum: float = 0.9

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        facts = trace.facts.optimizer or {}
        if facts.get("name") == "SGD" and not facts.get("momentum") and facts.get("lr") and finding.cause in _SLOW:
            rate = f"torch.optim.SGD(model.parameters(), lr={facts['lr']:g}"
            yield Proposal(
                remedy=self.name,
                options={"momentum": self.momentum},
                cause="lr_too_low",
                summary=f"momentum {self.momentum:g}",
                code=f"-{rate})\n+{rate}, momentum={self.momentum:g})",
                needs=("optimizer",),
            )

    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        optimizer = optimizer_of(rig, self.name)
        if not isinstance(optimizer, torch.optim.SGD):
            raise InputError(f"momentum is for SGD; the optimizer is {type(optimizer).__name__}: this change was proposed for another one")
        held = [(group, group["momentum"]) for group in optimizer.param_groups]
        for group, _ in held:
            group["momentum"] = float(proposal.options["momentum"])

        def undo() -> None:
            for group, momentum in held:
                group["momentum"] = momentum
                for p in group["params"] if not momentum else ():
                    optimizer.state[p].pop("momentum_buffer", None)
                    if not optimizer.state[p]:
                        del optimizer.state[p]

        return undo


def _replaced(rig: Rig, old: torch.optim.Optimizer, factor: float) -> Iterator[Undo]:
    """Replaces the optimizer by Adam with rates times a factor: groups, hooks and schedules follow."""
    kept = ("weight_decay", "maximize")
    new = torch.optim.Adam([{"params": list(g["params"]), **{k: g[k] for k in kept if k in g}} for g in old.param_groups])
    schedules = [s for s in _schedulers(rig.scheduler) if hasattr(s, "optimizer")]
    if any(isinstance(s, torch.optim.lr_scheduler.LRScheduler) for s in schedules):
        torch.optim.lr_scheduler.LambdaLR(new, _one)  # lets the optimizer tell schedules that it took a step, or they warn
    for ours, theirs in zip(new.param_groups, old.param_groups, strict=True):
        ours.pop("initial_lr", None)
        ours.update({k: v for k, v in theirs.items() if k == "lr" or (k not in old.defaults and k != "params")})  # what schedules noted
    for hook in old._optimizer_step_pre_hooks.values():
        new.register_step_pre_hook(hook)
    for hook in old._optimizer_step_post_hooks.values():
        new.register_step_post_hook(hook)

    def put(optimizer: torch.optim.Optimizer) -> None:
        rig.optimizer = optimizer
        for schedule in schedules:
            schedule.optimizer = optimizer

    put(new)
    yield lambda: put(old)
    yield scale_rates(rig, factor, Adam.name)


def _one(_step: int) -> Any:
    return 1.0
