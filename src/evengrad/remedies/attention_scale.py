"""attention_scale: queries and keys so small that each query starts out seeing many keys."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from evengrad.errors import InputError
from evengrad.remedies import base
from evengrad.remedies.base import Remedy, Undo, undo_all
from evengrad.rig import Rig
from evengrad.types import Finding, Layer, Proposal, Trace


@dataclass(frozen=True, kw_only=True)
class AttentionScale(Remedy):
    """Scales the weights that make queries and keys until the largest logit is that of a few hundred draws of unit variance.

    Queries and keys end up with weights of one norm. They are found in the packed projection of `nn.MultiheadAttention`, in one of a
    user's own that puts out three times what it takes in, or in two layers that are named for them (`query` and `key`, `q_proj` and
    `k_proj`); where no layer of keys is known, the queries alone are scaled.

    Attributes:
        largest: Magnitude that the largest logit is brought to.
        min_logit: Largest logit from which it is proposed.

    Reference: Vaswani et al. 2017, sec. 3.2.1; Wortsman et al. 2023, https://arxiv.org/abs/2309.14322.
    """

    name: ClassVar[str] = "attention_scale"
    title: ClassVar[str] = "smaller queries and keys"
    causes: ClassVar[tuple[str, ...]] = ("attention_logits",)
    change: ClassVar[int] = base.INITIALISER
    diagnostic: ClassVar[bool] = False
    largest: float = 3.0
    min_logit: float = 10.0

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        found: list[tuple[Layer, dict[str, Any]]] = []
        for row, seen in zip(trace.layers, trace.column("logit_abs_max").T, strict=True):
            first = float(next(iter(seen[np.isfinite(seen)]), 0.0))
            if first > self.min_logit and (parts := _parts(row, trace)):
                found.append((row, {"factor": self.largest / first, "parts": parts}))
        if found:
            factor = min(attention["factor"] for _, attention in found)
            yield Proposal(
                remedy=self.name,
                options={"attentions": [attention for _, attention in found]},
                where=tuple(row.name for row, _ in found),
                cause="attention_logits",
                summary=f"attention_scale: logits ×{factor:.2g}",
                code="+with torch.no_grad():  # before training; queries and keys so that their product shrinks by this factor\n"
                + "\n".join(_shown(a) for _, a in found),
            )

    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        return undo_all(_scale(rig, a["parts"], a["factor"]) for a in proposal.options["attentions"])


def _parts(row: Layer, trace: Trace) -> list[dict[str, Any]]:
    """The weights of queries and, where they are known, of keys: parameter, bias and which rows of both."""
    packed = row.fan_out == 3 * row.fan_in and (row.weight.endswith("in_proj_weight") or row.kind == "linear")
    if packed:
        ends = [(0, row.fan_in), (row.fan_in, 2 * row.fan_in)]
        return [{"weight": row.weight, "bias": row.bias, "rows": list(span)} for span in ends]
    if row.kind != "linear" or row.fan_out > row.fan_in:
        return []
    owner, dot, leaf = row.name.rpartition(".")
    name = owner + dot + re.sub("q(uery)?", lambda found: "key" if found[1] else "k", leaf)
    key = next((x for x in trace.layers if x.name == name and x is not row and x.kind == "linear"), None)
    return [{"weight": x.weight, "bias": x.bias, "rows": [0, x.fan_out]} for x in (row, key) if x is not None]


def _scale(rig: Rig, parts: list[dict[str, Any]], factor: float) -> Undo:
    parameters = dict(rig.model.named_parameters(remove_duplicate=False))
    if any(part["weight"] not in parameters or len(parameters[part["weight"]]) < part["rows"][1] for part in parts):
        raise InputError(f"the model has no such weight as {parts[0]['weight']!r}: this change was proposed for another model")
    sides = [_tensors(parameters, part) for part in parts]
    norms = [float(side[0].norm()) for side in sides]
    even = [factor**0.5 * (norms[1 - i] / norms[i]) ** 0.5 for i in range(2)] if len(sides) == 2 and all(norms) else [factor] * len(sides)
    kept = [(tensor, tensor.clone()) for side in sides for tensor in side]
    for side, times in zip(sides, even, strict=True):
        for tensor in side:
            tensor.mul_(times)

    def undo() -> None:
        with torch.no_grad():
            for tensor, value in kept:
                tensor.copy_(value)

    return undo


def _tensors(parameters: dict[str, torch.nn.Parameter], part: dict[str, Any]) -> list[Tensor]:
    """The part's own rows of the weight and of its bias, as views without a graph."""
    start, stop = part["rows"]
    return [parameters[name].detach()[start:stop] for name in (part["weight"], part["bias"]) if name in parameters]


def _shown(attention: dict[str, Any]) -> str:
    parts, factor = attention["parts"], attention["factor"] ** (1 / len(attention["parts"]))
    return "\n".join(f"+    model.get_parameter('{p['weight']}')[{p['rows'][0]} : {p['rows'][1]}] *= {factor:.3g}" for p in parts)
