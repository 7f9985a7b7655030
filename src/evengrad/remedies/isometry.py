"""isometry: what lets a plain network of any depth train: tanh, orthogonal weights, hidden biases at rest, a rate that falls with depth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from evengrad.errors import InputError
from evengrad.remedies import base
from evengrad.remedies.base import Remedy, Undo, undo_all
from evengrad.remedies.fills import fill_
from evengrad.remedies.lsuv import first_inputs
from evengrad.remedies.plans import Plan, fills, kept, plan_of, run_plan
from evengrad.remedies.rates import scale_rates
from evengrad.remedies.rescaling import rescale_, rms
from evengrad.remedies.schemes import traced
from evengrad.remedies.swap_activation import SwapActivation, swap
from evengrad.rig import Rig
from evengrad.types import Finding, Layer, Proposal, Trace

_UNFIT = {"none", "unknown", "prelu", "glu", "softmax"}  # no activation of each unit by itself that tanh could stand in for
_CODE = "+eg.isometry_(model, inputs)  # orthogonal weights; hidden biases zero and frozen; a readout of unit RMS on a batch"


@dataclass(frozen=True, kw_only=True)
class Isometry(Remedy):
    """Makes a deep plain network keep the length of signals and gradients at any depth: no skips, no norms.

    All of it is one change, since each part alone is not enough. Tanh behind orthogonal weights of gain 1 (delta-orthogonal kernels) is
    nearly an isometry. Hidden biases are zero and frozen: deep signals are small, so that biases would learn a hundred times faster
    than weights. The first layer keeps a learned bias, without which the network would be an odd function. The readout is scaled until
    its outputs have an RMS of 1 on a batch. The rate is divided by the depth; momentum is 0.9.

    Attributes:
        min_hidden: Fewest hidden rows that it is meant for.
        min_equal_fraction: Smallest share of them that must have equal widths, in [0, 1].
        sgd_rate: Rate times hidden rows, for SGD.
        adaptive_rate: Rate times hidden rows, for other optimizers.
        momentum: Of SGD.

    Reference: Saxe, McClelland & Ganguli 2014; Pennington, Schoenholz & Ganguli 2017; Xiao et al. 2018, https://arxiv.org/abs/1806.05393
    """

    name: ClassVar[str] = "isometry"
    title: ClassVar[str] = "tanh, orthogonal weights, resting biases and a rate by depth"
    causes: ClassVar[tuple[str, ...]] = (
        *("bad_init_large", "bad_init_small", "init_activation_mismatch"),
        *("too_deep_no_skip", "bad_hidden_activation", "too_narrow_relu"),
    )
    change: ClassVar[int] = base.ACTIVATION
    diagnostic: ClassVar[bool] = False
    random: ClassVar[bool] = True
    min_hidden: int = 15
    min_equal_fraction: float = 0.8
    sgd_rate: float = 0.1
    adaptive_rate: float = 0.02
    momentum: float = 0.9

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        recipe = _recipe(trace.layers, (trace.facts.head or {}).get("layer"))
        if recipe is None or len(recipe.hidden) < self.min_hidden or not recipe.is_plain(self.min_equal_fraction):
            return
        optimizer = trace.facts.optimizer or {}
        sgd = optimizer.get("name") == "SGD"
        rate = (self.sgd_rate if sgd else self.adaptive_rate) / len(recipe.hidden)
        swaps = [swap(old, "tanh", rows, trace) for old, rows in recipe.activations() if old != "tanh"]
        lines = [line for s in swaps for line in s.code.splitlines()[:2]] + [_CODE]
        if optimizer.get("lr"):
            lines.append(f"-lr={optimizer['lr']:g}\n+lr={rate:.2g}" + (f", momentum={self.momentum:g}" if sgd else ""))
        yield Proposal(
            remedy=self.name,
            options={
                "swaps": [{**s.options, "plans": []} for s in swaps],
                "recipe": recipe.options(),
                "rate": rate if optimizer.get("lr") else None,
                "momentum": self.momentum if sgd else None,
            },
            where=tuple(x.name for x in recipe.hidden),
            cause=finding.cause if finding.cause in self.causes else "too_deep_no_skip",
            summary=f"isometry (tanh, orthogonal, hidden biases frozen, lr {rate:.2g})",
            code="\n".join(lines),
            risk="what the weights had learned is lost",
        )

    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        return undo_all(_changes(rig, proposal))


def isometry_(model: nn.Module, inputs: Any, *, seed: int | None = None) -> nn.Module:
    """Gives a plain network (tanh behind every hidden layer) weights that keep lengths at any depth, in place.

    Hidden weights become orthogonal with gain 1, convolutions delta-orthogonal; hidden biases but the first layer's become zero and
    frozen; the readout is scaled until its outputs on `inputs` have an RMS of 1. Train it with momentum 0.9 and a rate of 0.1 / depth.

    Args:
        model: A chain of linear layers or convolutions.
        inputs: A batch, as `check` takes it.
        seed: Seed of the drawing; None draws from torch's default generator.

    Raises:
        InputError: if it has skips or norms, or no single readout.
        ForwardError: if the model raises.

    Returns:
        The model.

    Reference: Pennington, Schoenholz & Ganguli 2017; Xiao et al. 2018, https://arxiv.org/abs/1806.05393
    """
    structure = traced(model, inputs)
    heads = [structure.layers[i].name for i in structure.head]
    recipe = _recipe(structure.layers, heads[0] if len(heads) == 1 else None)
    if recipe is None or not recipe.is_plain(0.0):
        raise InputError(
            f"isometry_ takes a chain of linear layers or convolutions, without skips and norms; {type(model).__name__} is none"
        )
    undo_all(_draws(model, inputs, recipe.options(), int(torch.randint(2**31, ())) if seed is None else seed))
    return model


@dataclass(frozen=True, kw_only=True)
class _Recipe:
    """The rows of a chain: its hidden ones, the first first, and its readout."""

    hidden: list[Layer]
    head: Layer
    others: list[Layer]

    def is_plain(self, min_equal_fraction: float) -> bool:
        """True without skips, norms and activations that tanh could not stand in for, where most hidden rows have one width."""
        equal = max(Counter(x.group for x in self.hidden).values()) if self.hidden else 0
        return (
            equal >= min_equal_fraction * len(self.hidden)
            and {x.kind for x in (*self.hidden, self.head)} <= {"linear", "conv"}
            and not any(x.residual or x.norm != "none" for x in (*self.hidden, self.head))
            and not any(x.kind == "norm" for x in self.others)
            and not any(x.activation in _UNFIT for x in self.hidden)
        )

    def activations(self) -> Iterator[tuple[str, list[Layer]]]:
        """Yields each activation with its rows."""
        for name in dict.fromkeys(x.activation for x in self.hidden):
            yield name, [x for x in self.hidden if x.activation == name]

    def options(self) -> dict[str, Any]:
        """Returns what to draw, as plain data."""
        first, *later = self.hidden
        plans = [_isometric(x) for x in self.hidden] + [plan_of(self.head, "lecun_normal")]
        return {
            "plans": [p for p in plans if p],
            "first": [first.weight, first.bias],
            "frozen": [x.bias for x in later if x.bias],
            "readout": self.head.weight,
        }


def _recipe(layers: Sequence[Layer], head: str | None) -> _Recipe | None:
    rows = sorted((x for x in layers if x.depth is not None), key=lambda x: x.depth or 0)
    readout = next((x for x in rows if x.name == head), None)
    if readout is None or len(rows) < 2:
        return None
    return _Recipe(hidden=[x for x in rows if x is not readout], head=readout, others=[x for x in layers if x.depth is None])


def _isometric(layer: Layer) -> Plan | None:
    plan = plan_of(layer, "delta_orthogonal", activation="tanh")
    return plan and plan | {"gain": max(1.0, layer.fan_out / layer.fan_in) ** 0.5}  # more units than inputs: their RMS is kept


def _changes(rig: Rig, proposal: Proposal) -> Iterator[Undo]:
    options = proposal.options
    for swapped in options["swaps"]:
        yield SwapActivation().apply(rig, replace(proposal, options=swapped))
    yield from _draws(rig.model, first_inputs(rig, proposal.remedy), options["recipe"], rig.seed)
    if rig.optimizer is not None and options["rate"]:
        held = max(float(g.get("initial_lr", g["lr"])) for g in rig.optimizer.param_groups)
        yield scale_rates(rig, options["rate"] / held, proposal.remedy)
        if options["momentum"] is not None:
            yield _momentum(rig.optimizer, options["momentum"])


def _draws(model: nn.Module, inputs: Any, options: dict[str, Any], seed: int) -> Iterator[Undo]:
    filled = [fill.parameter for fill in fills(model, options["plans"])]  # names are looked up before anything is changed
    yield kept(filled)
    generator = torch.Generator().manual_seed(seed)
    run_plan(model, options["plans"], generator)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    first, bias = (parameters.get(name or "") for name in options["first"])
    if first is not None and bias is not None:
        _draw_with_bias(first, bias, generator)
    yield undo_all(_freeze(parameters[name]) for name in options["frozen"])
    rescale_(model, inputs, [parameters[options["readout"]]], rms)


@torch.no_grad()
def _draw_with_bias(weight: Tensor, bias: Tensor, generator: torch.Generator) -> None:
    """Treats the bias as the weights of one more input, which is constant."""
    units, inputs = bias.numel(), weight.numel() // bias.numel()
    joint = torch.empty(units, inputs + 1)
    fill_(joint, "orthogonal", fans=(inputs + 1, units), gain=max(1.0, units / (inputs + 1)) ** 0.5, generator=generator)
    part = joint[:, :-1]
    weight.copy_(part.reshape(weight.shape) if weight.shape[0] == units else part.mT.reshape(weight.shape))
    bias.copy_(joint[:, -1])


def _freeze(parameter: nn.Parameter) -> Undo:
    asked, grad = parameter.requires_grad, parameter.grad
    parameter.requires_grad_(False)
    parameter.grad = None  # or else momentum would go on with it

    def undo() -> None:
        parameter.requires_grad_(asked)
        parameter.grad = grad

    return undo


def _momentum(optimizer: torch.optim.Optimizer, momentum: float) -> Undo:
    before, known = [group["momentum"] for group in optimizer.param_groups], set(optimizer.state)
    for group in optimizer.param_groups:
        group["momentum"] = momentum

    def undo() -> None:
        for group, value in zip(optimizer.param_groups, before, strict=True):
            group["momentum"] = value
        for parameter in set(optimizer.state) - known:
            del optimizer.state[parameter]

    return undo
