"""Trace -> every way to build the network that is worth a trial: activation x initialiser x norm x rate, as changes that remedies apply."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

from evengrad.recommendation.result import AS_IT_IS, FACTORS, TEXTBOOK
from evengrad.remedies import schemes
from evengrad.remedies.initialize import Initialize
from evengrad.remedies.insert_norm import BatchNorm, GroupNorm, LayerNorm
from evengrad.remedies.lower_rate import LowerRate
from evengrad.remedies.raise_rate import RaiseRate
from evengrad.remedies.rates import rate_proposal
from evengrad.remedies.swap_activation import swap
from evengrad.types import Finding, Layer, Proposal, Trace

_Level: TypeAlias = tuple[str, tuple[Proposal, ...]]
_ELEMENTWISE = {  # what can stand in the place of each other
    *TEXTBOOK,
    *(
        "gelu",
        "gelu_tanh",
        "silu",
        "mish",
        "celu",
        "prelu",
        "rrelu",
        "relu6",
        "softplus",
        "softsign",
        "hardtanh",
        "hardsigmoid",
        "hardswish",
    ),
}
_NO_FAULT = Finding(code="", symptom=None, severity="note", message="")  # a norm is proposed by the network alone
_RATES = {"×0.1": (LowerRate.name, 0.1), "×10": (RaiseRate.name, 10.0)}


@dataclass(frozen=True, kw_only=True)
class Option:
    """One way to build the network.

    Attributes:
        factors: Factor -> its level, `as it is` where nothing is changed.
        proposals: What makes the network so.
    """

    factors: dict[str, str]
    proposals: tuple[Proposal, ...] = ()

    @property
    def label(self) -> str:
        """What is changed, in a few words; no two options share one."""
        told = {"initialiser": "{} initialiser", "rate": "rate {}"}
        changed = (told.get(factor, "{}").format(level) for factor, level in self.factors.items() if level != AS_IT_IS)
        return " + ".join(changed) or AS_IT_IS


def options(trace: Trace) -> tuple[Option, ...]:
    """Returns all combinations of levels that this network takes, the network as it is first.

    The activation changes behind all hidden layers at once. A norm is an option only where the network has none and every hidden layer
    can get it; a rate only where the optimizer has one.
    """
    found = []
    for activation, swaps, layers in _activations(trace):
        for initialiser, fill in _initialisers(layers):
            for norm, insert in _norms(trace):
                for rate, scale in _rates(trace):
                    levels = (activation, initialiser, norm, rate)
                    found.append(Option(factors=dict(zip(FACTORS, levels, strict=True)), proposals=(*swaps, *fill, *insert, *scale)))
    return tuple(found)


def present(trace: Trace) -> tuple[str, ...]:
    """Returns the activations that the hidden layers have now."""
    return tuple(dict.fromkeys(x.activation for x in _hidden(trace)))


def _hidden(trace: Trace) -> list[Layer]:
    head = (trace.facts.head or {}).get("layer")
    rows = [x for x in trace.layers if x.depth is not None and x.name != head and x.activation_module is not None]
    return [x for x in rows if x.activation in _ELEMENTWISE and x.kind not in {"rnn", "lstm", "gru"}]


def _activations(trace: Trace) -> Iterator[tuple[str, tuple[Proposal, ...], list[Layer]]]:
    """Yields the levels, each with the rows as they will be: the initialiser that matches depends on them."""
    yield AS_IT_IS, (), list(trace.layers)
    hidden, olds = _hidden(trace), present(trace)
    for new in TEXTBOOK if hidden else ():
        if olds == (new,):
            continue
        swaps = tuple(_bare(swap(old, new, [x for x in hidden if x.activation == old], trace)) for old in olds if old != new)
        changed = {x.name for x in hidden if x.activation != new}
        slope = {"negative_slope": 0.2} if new == "leaky_relu" else {}  # that of swap_activation
        yield new, swaps, [replace(x, activation=new, activation_options=slope) if x.name in changed else x for x in trace.layers]


def _bare(proposal: Proposal) -> Proposal:
    """Takes the new weights out of a swap: initialisers are a factor of their own."""
    code = "\n".join(line for line in proposal.code.splitlines() if "initialize_" not in line)
    return replace(
        proposal, options=proposal.options | {"plans": []}, summary=proposal.summary.rpartition(" (")[0], code=code, cause="", risk=""
    )


def _initialisers(layers: Iterable[Layer]) -> Iterator[_Level]:
    yield AS_IT_IS, ()
    for level, scheme in (("matching", "auto"), ("orthogonal", "orthogonal")):
        if plans := schemes.plans(layers, scheme):
            words = ", ".join(dict.fromkeys(p["scheme"] for p in plans))
            argument = "" if scheme == "auto" else f', "{scheme}"'
            proposal = Proposal(
                remedy=Initialize.name,
                options={"plans": plans, "scheme": scheme},
                summary=f"initialize ({words})",
                code=f"+eg.initialize_(model{argument})  # {words}",
            )
            yield level, (proposal,)


def _norms(trace: Trace) -> Iterator[_Level]:
    yield AS_IT_IS, ()
    hidden = {x.name for x in _hidden(trace)}
    if not hidden or any(x.kind == "norm" or x.norm != "none" for x in trace.layers):
        return
    for remedy in (BatchNorm(), LayerNorm(), GroupNorm()):
        for proposal in remedy.propose(_NO_FAULT, trace):
            if hidden <= set(proposal.where):
                yield remedy.name, (replace(proposal, cause=""),)


def _rates(trace: Trace) -> Iterator[_Level]:
    yield AS_IT_IS, ()
    rate = (trace.facts.optimizer or {}).get("lr")
    if isinstance(rate, (int, float)) and rate:
        for level, (remedy, factor) in _RATES.items():
            yield level, (rate_proposal(remedy, "", rate, factor),)
