"""fixup: residual branches that begin at zero, and so small that a step changes the network as much at any depth; no norm needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from evengrad.remedies import base
from evengrad.remedies.base import Remedy, Undo, undo_all
from evengrad.remedies.lsuv import first_inputs
from evengrad.remedies.plans import Plan, fills, kept, plan_of, run_plan
from evengrad.rig import Rig
from evengrad.trace.batch import call, scalar_loss
from evengrad.trace.isolation import untouched
from evengrad.types import Finding, Layer, Proposal, Trace


@dataclass(frozen=True, kw_only=True)
class Fixup(Remedy):
    """Draws the branches of a residual network without norms so that any number of them trains.

    Each of L branches ends in a layer of zeros, and the m - 1 layers before it are drawn as usual and multiplied by L^(-1 / (2m - 2)). A
    branch of one layer is multiplied by L^(-1/2) in place of zero, and so is a last layer that an activation follows before the branch
    is added, where zeros would never learn. The paper's learned scalars are left out: in thousands of layers their gradients, which add
    up over units, diverge where weights alone train. The second proposal only lets branches end in zeros, as SkipInit begins.

    Attributes:
        min_branches: Fewest branches that it is meant for.

    Reference: Zhang, Dauphin & Ma 2019, https://arxiv.org/abs/1901.09321; De & Smith 2020, https://arxiv.org/abs/2002.10444
    """

    name: ClassVar[str] = "fixup"
    title: ClassVar[str] = "residual branches that begin at zero, scaled by their number"
    causes: ClassVar[tuple[str, ...]] = (
        *("bad_init_large", "init_activation_mismatch", "missing_normalization_layer"),
        *("no_warmup", "too_deep_no_skip"),
    )
    change: ClassVar[int] = base.INITIALISER
    diagnostic: ClassVar[bool] = False
    random: ClassVar[bool] = True
    min_branches: int = 2

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        if any(x.kind == "norm" or x.norm != "none" for x in trace.layers):
            return
        found = branches(trace.layers, trace.facts.edges or ())
        if len(found) < self.min_branches or not all(plan_of(x) for b in found for x in (*b.inner, b.end)):
            return
        for scaled, words, code in (
            (True, f"fixup ({len(found)} branches scaled, their ends zero)", _scaled_code(found)),
            (False, "fixup (branches end in zeros)", "+nn.init.zeros_(branch[-1].weight)  # the last layer of every branch"),
        ):
            yield Proposal(
                remedy=self.name,
                options=_options(found, scaled=scaled),
                where=tuple(x.name for b in found for x in (*b.inner, b.end)),
                cause=finding.cause if finding.cause in self.causes else "missing_normalization_layer",
                summary=words,
                code=code,
                risk="what the weights had learned is lost",
            )

    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        return undo_all(_changes(rig, proposal))


@dataclass(frozen=True, kw_only=True)
class Branch:
    """The rows of a branch that lie inside it, the row it ends in, and the number of layers on the longest way through."""

    inner: list[Layer]
    end: Layer
    length: int


def branches(layers: Sequence[Layer], edges: Sequence[tuple[int, int]]) -> list[Branch]:
    """Returns the branches of a residual network; projections on the trunk are none.

    A row lies inside a branch if all it feeds is one row that is fed by nothing else than such rows. Of ends that feed the same rows, those
    of shorter branches are projections of the trunk.
    """
    rows = {i for i, x in enumerate(layers) if x.residual and x.depth is not None}
    above: dict[int, set[int]] = {i: set() for i in range(len(layers))}
    below: dict[int, set[int]] = {i: set() for i in range(len(layers))}
    for source, row in edges:
        below[source].add(row)
        above[row].add(source)
    inner = {i for i in rows if len(below[i]) == 1 and below[i] <= rows and all(below[u] == below[i] for u in above[min(below[i])])}
    length = dict.fromkeys(rows, 1)
    for i in sorted(rows):  # data meets a row after those above it
        length[i] += max((length[u] for u in above[i] if u in inner), default=0)
    ends = rows - inner
    longest = {i for i in ends if length[i] == max(length[e] for e in ends if below[e] == below[i])}
    return [Branch(inner=[layers[u] for u in sorted(_reached(i, above, inner))], end=layers[i], length=length[i]) for i in sorted(longest)]


def _reached(end: int, above: Mapping[int, set[int]], inner: set[int]) -> set[int]:
    found: set[int] = set()
    stack = [end]
    while stack:
        fresh = (above[stack.pop()] & inner) - found
        found |= fresh
        stack += fresh
    return found


def _options(found: list[Branch], *, scaled: bool) -> dict[str, Any]:
    count, plans, spare = len(found), [], []
    for branch in found:
        ended = _times(branch.end, count**-0.5)
        plans.append(_times(branch.end, 0.0) if branch.inner else ended)
        spare += [ended] if branch.inner else []
        if scaled:
            plans += [_times(x, count ** (-1 / (2 * branch.length - 2))) for x in branch.inner]
    return {"plans": plans, "spare": spare}


def _times(layer: Layer, factor: float) -> Plan:
    plan = plan_of(layer)
    assert plan is not None
    return plan | ({"gain": plan["gain"] * factor} if factor else {"scheme": "constant"})


def _scaled_code(found: list[Branch]) -> str:
    length = max(branch.length for branch in found)
    lines = ["+eg.initialize_(model)", "+with torch.no_grad():", "+    for branch in branches:  # the layers of each residual block"]
    if length == 1:
        return "\n".join([*lines, f"+        branch[-1].weight *= {len(found)} ** -0.5"])
    scaled = ["+        for layer in branch[:-1]:", f"+            layer.weight *= {len(found)} ** (-1 / {2 * length - 2})"]
    return "\n".join([*lines, *scaled, "+        branch[-1].weight.zero_()"])


def _changes(rig: Rig, proposal: Proposal) -> Iterator[Undo]:
    options, inputs = proposal.options, first_inputs(rig, proposal.remedy)
    yield kept([fill.parameter for fill in fills(rig.model, options["plans"])])
    generator = torch.Generator().manual_seed(rig.seed)
    run_plan(rig.model, options["plans"], generator)
    run_plan(rig.model, _never_learn(rig.model, inputs, options["spare"]), generator)


def _never_learn(model: nn.Module, inputs: Any, plans: list[Plan]) -> list[Plan]:
    """Returns the plans of weights whose gradient is exactly zero."""
    weights: list[Tensor] = [model.get_parameter(plan["weight"]) for plan in plans]
    weights = [w for w in weights if w.requires_grad]
    if not weights:
        return []
    with untouched(model, seed=0), torch.enable_grad():
        model.train()
        gradients = torch.autograd.grad(scalar_loss(call(model, inputs), None, None), weights, allow_unused=True)
    alive = {id(w) for w, g in zip(weights, gradients, strict=True) if g is None or bool(g.any())}
    return [
        plan for plan in plans if model.get_parameter(plan["weight"]).requires_grad and id(model.get_parameter(plan["weight"])) not in alive
    ]
