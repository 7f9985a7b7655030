"""memory: recurrent layers that start out remembering."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from evengrad.errors import InputError
from evengrad.remedies import base
from evengrad.remedies.base import Remedy, Undo, submodule, undo_all
from evengrad.rig import Rig
from evengrad.types import Finding, Layer, Proposal, Trace

_CLASSES = {"lstm": (nn.LSTM, nn.LSTMCell), "gru": (nn.GRU, nn.GRUCell), "rnn": (nn.RNN, nn.RNNCell)}
_GATE = {"lstm": 1, "gru": 1}  # torch's order: i, f, g, o and r, z, n


@dataclass(frozen=True, kw_only=True)
class Memory(Remedy):
    """Opens the gates that keep a memory: the forget bias of an LSTM, the update bias of a GRU; a plain RNN gets orthogonal weights.

    A bias b keeps sigmoid(b) of a memory each step: 1 carries it over a few steps, log(T - 1) over T. Before ReLU the recurrent weights
    of a plain RNN become the identity, which copies its state.

    Reference: Gers, Schmidhuber & Cummins 2000; Jozefowicz, Zaremba & Sutskever 2015 (1); Tallec & Ollivier 2018 (log T);
    Le, Jaitly & Hinton 2015 (identity); Saxe, McClelland & Ganguli 2014 (orthogonal).
    """

    name: ClassVar[str] = "memory"
    title: ClassVar[str] = "recurrent layers that start out remembering"
    causes: ClassVar[tuple[str, ...]] = ("long_memory",)
    change: ClassVar[int] = base.INITIALISER
    diagnostic: ClassVar[bool] = False
    random: ClassVar[bool] = True

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        rows = {owner(x): x for x in trace.layers if x.kind in _CLASSES}
        gated = any(x.kind in _GATE for x in rows.values())
        biases = keeping(trace) if gated else [0.0]
        for bias in biases if rows else ():
            words = f"bias {bias:.2g}" if gated else "orthogonal or identity recurrent weights"
            yield Proposal(
                remedy=self.name,
                options={"layers": {name: x.kind for name, x in rows.items()}, "bias": bias},
                where=tuple(x.name for x in rows.values()),
                cause="long_memory",
                summary=f"memory: {words}",
                code=_code(next(iter(rows.values())), bias),
                risk="" if gated else "what the recurrent weights had learned is lost",
            )

    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        generator = torch.Generator().manual_seed(rig.seed)
        layers = proposal.options["layers"].items()
        return undo_all(_remember(submodule(rig.model, n), kind, proposal.options["bias"], generator) for n, kind in layers)


def keeping(trace: Trace) -> list[float]:
    """Returns biases of a gate that keeps a memory: over as many steps as the sequences have, where that is known, and over a few."""
    shape = (trace.facts.inputs or {}).get("shape") or []
    steps = max(shape[:-1], default=0) if len(shape) == 3 else 0
    return ([math.log(steps - 1)] if steps > 4 else []) + [1.0]


@torch.no_grad()
def open_gates(module: nn.Module, kind: str, bias: float) -> None:
    """Sets the bias of the gate that keeps the memory of an LSTM or a GRU."""
    hidden = int(str(module.hidden_size))
    for name, p in module.named_parameters():
        if name.startswith("bias"):
            p[_GATE[kind] * hidden : (_GATE[kind] + 1) * hidden] = bias if "ih" in name else 0.0


def _remember(module: nn.Module, kind: str, bias: float, generator: torch.Generator) -> Undo:
    if not isinstance(module, _CLASSES[kind]):
        raise InputError(f"expected an nn.{kind.upper()}, got {type(module).__name__}: this change was proposed for another model")
    part = "bias" if kind in _GATE else "weight_hh"
    kept = [(p, p.detach().clone()) for name, p in module.named_parameters() if name.startswith(part)]
    if kind in _GATE:
        open_gates(module, kind, bias)
    else:
        with torch.no_grad():
            for p, _ in kept:
                p.copy_(_recurrent(p, str(module.nonlinearity), generator))

    def undo() -> None:
        with torch.no_grad():
            for p, value in kept:
                p.copy_(value)

    return undo


def _recurrent(weight: Tensor, nonlinearity: str, generator: torch.Generator) -> Tensor:
    fresh = torch.empty(weight.shape)
    return nn.init.eye_(fresh) if nonlinearity == "relu" else nn.init.orthogonal_(fresh, generator=generator)


def owner(row: Layer) -> str:
    """Name of the module that holds a level `rnn.l0`, or a cell, whose row is named after itself."""
    return row.weight.rpartition(".")[0]


def _code(row: Layer, bias: float) -> str:
    name, leaf = owner(row) or "rnn", row.weight.rpartition(".")[2]
    if row.kind == "rnn":
        return f"+nn.init.orthogonal_({name}.{leaf.replace('_ih', '_hh')})  # nn.init.eye_ before ReLU"
    gate = "forget" if row.kind == "lstm" else "update"
    return f"+h = {name}.hidden_size  # of each level\n+{name}.bias_ih_l0.data[h : 2 * h] = {bias:.3g}  # the {gate} gate; bias_hh: 0"
