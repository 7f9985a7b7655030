"""ARC004: trainable weights that no gradient ever reaches."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from evengrad import synthetic
from evengrad.rules.base import Examples, Rule, names, place
from evengrad.signals.curves import progress
from evengrad.types import Evidence, Facts, Finding, Trace

_RECURRENT, _PLAIN = {"rnn", "lstm", "gru"}, {"linear", "conv"}
_STACKED = re.compile(r"_l\d+")  # weights of a module that runs over time by itself


@dataclass(frozen=True, kw_only=True)
class UnusedParameters(Rule):
    """A weight takes part in the forward pass, asks for a gradient, and never gets one: something cuts it off from the loss.

    A detach, a no_grad block, an argmax or a conversion to numpy does that. Frozen parameters ask for none, and ones that the optimizer
    does not have are left out on purpose: neither is meant. Where nothing but norms is cut off, what they do is thrown away.

    Attributes:
        max_unused_layers: Largest healthy number of such layers.
        min_learnt: Share of the loss that is gone in a run that does not need them.

    Reference: Paszke et al. 2019, PyTorch: an imperative style, sec. 4.3 (what autograd records).
    """

    code: ClassVar[str] = "ARC004"
    symptom: ClassVar[str | None] = "no_parameter_update"
    title: ClassVar[str] = "weights are cut off from the loss"
    causes: ClassVar[tuple[str, ...]] = ("frozen_params", "missing_normalization_layer", "long_memory", "missing_activation")
    needs: ClassVar[tuple[str, ...]] = ("grad_norm", "facts.optimizer")
    signal: ClassVar[tuple[str, str]] = ("unused_layers", "layers")
    helps: ClassVar[str] = "take out detach(), torch.no_grad() and .data on the way to the loss; delete what is not used"
    max_unused_layers: int = 0
    min_learnt: float = 0.9

    def check(self, trace: Trace) -> Iterator[Finding]:
        outside = int((trace.facts.optimizer or {}).get("unowned") or 0)
        if outside:
            message = (
                f"{outside:,} parameters take part in the forward pass that neither the model nor the optimizer has, as of a plain list"
            )
            evidence = Evidence(signal="unowned_parameters", value=outside, relation=">", threshold=0, unit="parameters", where="optimizer")
            found = self.finding(trace, "warning", message, evidence=(evidence,), where=("optimizer",), at=(0, len(trace.steps) - 1))
            yield replace(found, cause="frozen_params")
        rows = _unused(trace)
        if len(rows) <= self.max_unused_layers:
            return
        parameters = sum(trace.layers[i].parameters for i in rows)
        more = f"; {len(rows)} layers are like this" if len(rows) > 1 else ""
        message = f"no gradient reaches {place(trace, rows[0])}, though it asks for one: {parameters:,} parameters never learn{more}"
        evidence = Evidence(signal="unused_layers", value=len(rows), relation=">", threshold=self.max_unused_layers, unit="layers")
        ran = progress(trace)
        severity = "note" if ran is not None and ran.learnt >= self.min_learnt else "warning"
        found = self.finding(trace, severity, message, evidence=(evidence,), where=names(trace, rows), at=(0, len(trace.steps) - 1))
        yield replace(found, cause=_cause(trace, rows))

    def value(self, trace: Trace) -> float:
        return float(len(_unused(trace)))

    @classmethod
    def examples(cls) -> Examples:
        def net(grads: list[float], **facts: Any) -> Trace:
            return synthetic.chain(3, steps=2, grad_norm=grads, facts=Facts(optimizer={"frozen": [], **facts}))

        return Examples(
            sick=(net([np.nan, 1.0, 1.0]), net([np.nan, np.nan, 1e-9]), net([1.0, 1.0, 1.0], unowned=64)),
            healthy=(net([1.0, 1.0, 1.0]), net([0.0, 1.0, 1.0]), net([np.nan, 1.0, 1.0], frozen=["0.weight"])),
        )


def _cause(trace: Trace, rows: list[int]) -> str:
    """What being cut off takes away: norms, what would bend between two linear layers, the past of a cell, or what the rows learn."""
    layers, edges = trace.layers, trace.facts.edges or ()
    if all(layers[i].kind == "norm" for i in rows):
        return "missing_normalization_layer"
    if all(layers[i].kind in _RECURRENT and not _STACKED.search(layers[i].weight) for i in rows):
        return "long_memory"  # a cell that the user's own loop calls: its state is cut from the step before
    feeding = {a for a, _ in edges}
    plain = [a for a, b in edges if layers[a].kind in _PLAIN and layers[b].kind in _PLAIN and layers[a].activation == "none"]
    thrown_away = all(layers[i].activation != "none" and i not in feeding for i in rows)
    return "missing_activation" if thrown_away and plain and not set(plain) & set(rows) else "frozen_params"


def _unused(trace: Trace) -> list[int]:
    """Rows without a gradient at any step at which another row had one."""
    unseen = np.atleast_1d(np.isnan(trace.column("grad_norm")).all(0))
    facts = trace.facts.optimizer or {}
    meant = {*facts.get("frozen", ()), *facts.get("missing", ())}
    return [] if unseen.all() else [i for i, x in enumerate(trace.layers) if unseen[i] and x.weight not in meant]
