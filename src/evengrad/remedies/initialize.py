"""initialize: weights drawn anew by the initialiser that matches the activation behind each layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from evengrad.remedies import base, schemes
from evengrad.remedies.base import Remedy, Undo
from evengrad.remedies.plans import Plan, fills, kept
from evengrad.rig import Rig
from evengrad.signals.scale import OTHER_SCHEME, matching_rms
from evengrad.types import Finding, Proposal, Trace


@dataclass(frozen=True, kw_only=True)
class Initialize(Remedy):
    """Draws the weights of linear and convolutional layers anew: matched to the activation first, then orthogonal.

    Reference: Glorot & Bengio 2010; He et al. 2015; Klambauer et al. 2017; Saxe, McClelland & Ganguli 2014.
    """

    name: ClassVar[str] = "initialize"
    title: ClassVar[str] = "a new initialisation that follows the activation"
    symptoms: ClassVar[tuple[str, ...]] = (
        "vanishing_gradient",
        "exploding_gradient",
        "zero_gradient",
        "signal_collapse",
        "dead_relu",
        "saturated_activation",
        "identical_units",
        "huge_initial_loss",
        "nan_or_inf",
        "INI001",
        "INI003",
    )
    causes: ClassVar[tuple[str, ...]] = ("bad_init_large", "bad_init_small", "constant_init", "init_activation_mismatch")
    change: ClassVar[int] = base.INITIALISER
    random: ClassVar[bool] = True

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        if (trace.facts.inputs or {}).get("nonfinite_fraction"):
            return
        for scheme in ("auto", "orthogonal"):
            plans = schemes.plans(trace.layers, scheme)
            if not plans:
                return
            words = ", ".join(dict.fromkeys(p[key] for p in plans for key in ("scheme", "states") if key in p))
            argument = "" if scheme == "auto" else f', "{scheme}"'
            yield Proposal(
                remedy=self.name,
                options={"plans": plans, "scheme": scheme},
                cause=_cause(trace),
                summary=f"initialize ({words})",
                code=f"+eg.initialize_(model{argument})  # {words}",
                risk="what the weights had learned is lost",
            )

    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        return refill(rig, proposal.options["plans"])


def refill(rig: Rig, plans: list[Plan]) -> Undo:
    """Fills weights by their plans; the undo puts the old values back."""
    undo = kept([fill.parameter for fill in fills(rig.model, plans)])
    try:
        schemes.run_plan(rig.model, plans, torch.Generator().manual_seed(rig.seed))
    except BaseException:
        undo()
        raise
    return undo


def _cause(trace: Trace) -> str:
    """Names what is wrong with the weights that are there: copies, too large, too small, or merely made for another activation."""
    distinct = trace.column("distinct_unit_fraction")[0]
    rows = [i for i, layer in enumerate(trace.layers) if layer.depth is not None and layer.fan_in and layer.fan_out]
    if any(distinct[i] < 0.5 and trace.layers[i].fan_out > 1 for i in rows):
        return "constant_init"
    norms, means = trace.column("weight_norm")[0], trace.column("weight_mean")[0]
    ratios = []
    for i in rows:
        layer = trace.layers[i]
        rms, target = float(norms[i]) / (layer.fan_in * layer.fan_out) ** 0.5, matching_rms(layer)
        if target and rms > 0 and layer.kind == "linear":
            shifted = abs(float(means[i])) > 0.5 * rms  # one direction gets sqrt(fan) times what its share would be
            ratios.append(10.0 if shifted else rms / target)
    middle = float(np.median(ratios)) if ratios else 1.0
    return "bad_init_large" if middle > OTHER_SCHEME else "bad_init_small" if middle < 1 / OTHER_SCHEME else "init_activation_mismatch"
