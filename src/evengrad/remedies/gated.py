"""gated: a gated recurrent layer in the place of a plain one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from evengrad.errors import InputError
from evengrad.remedies import base
from evengrad.remedies.base import Remedy, Undo, submodule, undo_all
from evengrad.remedies.memory import keeping, open_gates, owner
from evengrad.remedies.surgery import exchange, replace_module
from evengrad.rig import Rig
from evengrad.trace.isolation import generators_restored
from evengrad.types import Finding, Proposal, Trace


@dataclass(frozen=True, kw_only=True)
class Gated(Remedy):
    """Puts `nn.GRU` in the place of `nn.RNN`, which is called in the same way: its state is carried on unless a gate writes to it.

    The update gate starts out open for as many steps as the sequences have. Weights are drawn as torch does.

    Reference: Cho et al. 2014 (the gated unit); Bengio, Simard & Frasconi 1994 (why the plain one forgets).
    """

    name: ClassVar[str] = "gated"
    title: ClassVar[str] = "gated recurrent layers in the place of plain ones"
    causes: ClassVar[tuple[str, ...]] = ("long_memory",)
    change: ClassVar[int] = base.SKIP
    diagnostic: ClassVar[bool] = False
    random: ClassVar[bool] = True

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        rows = [x for x in trace.layers if x.kind == "rnn"]
        names = list(dict.fromkeys(owner(x) for x in rows))
        if not names or "" in names:
            return
        yield Proposal(
            remedy=self.name,
            options={"layers": names, "bias": keeping(trace)[0]},
            where=tuple(x.name for x in rows),
            cause="long_memory",
            summary="gated: nn.GRU in place of nn.RNN",
            code=f"-{names[0]} = nn.RNN(…)\n+{names[0]} = nn.GRU(…)  # the same arguments, without nonlinearity",
            risk="what the recurrent weights had learned is lost; a step takes longer",
        )

    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        return undo_all(change for name in proposal.options["layers"] for change in _swap(rig, name, proposal.options["bias"]))


def _swap(rig: Rig, name: str, bias: float) -> Iterator[Undo]:
    old = submodule(rig.model, name)
    with generators_restored(rig.model, seed=rig.seed):
        fresh = _gated(old)
    like = next(old.parameters())
    open_gates(fresh.to(like.device, like.dtype).train(old.training), "gru", bias)
    pairs = [(p, fresh.get_parameter(part)) for part, p in old.named_parameters()]
    for was, parameter in pairs:
        parameter.requires_grad_(was.requires_grad)
    yield exchange(rig, pairs)
    yield replace_module(rig.model, old, fresh)


def _gated(old: nn.Module) -> nn.Module:
    if type(old) is nn.RNN:
        shape = (old.input_size, old.hidden_size, old.num_layers, old.bias, old.batch_first, old.dropout, old.bidirectional)
        return nn.GRU(*shape)
    if type(old) is nn.RNNCell:
        return nn.GRUCell(old.input_size, old.hidden_size, old.bias)
    raise InputError(f"expected an nn.RNN or nn.RNNCell, got {type(old).__name__}: this change was proposed for another model")
