"""A rig and a batch -> the trace of one measured pass."""

from __future__ import annotations

import math
from contextlib import nullcontext

import numpy as np

from evengrad.rig import Rig
from evengrad.trace import facts as evidence
from evengrad.trace.batch import Batch
from evengrad.trace.loss_facts import loss_facts
from evengrad.trace.loss_probe import EVERYTHING
from evengrad.trace.output_reach import output_reach
from evengrad.trace.recorder import COLUMNS, Measurement, measure
from evengrad.types import Facts, Run, Trace


def trace_of(rig: Rig, batch: Batch, *, columns: frozenset[str] = COLUMNS, facts: bool = True, name: str = "") -> Trace:
    """Measures one pass and returns it as a trace of one step; fewer columns, or no facts, cost less."""
    modules = evidence.Modules(rig.model)
    with modules.seen() if facts else nullcontext():
        found = measure(rig.model, batch, rig.loss_fn, columns=columns, seed=rig.seed)
    return Trace(
        run=run_of(rig, batch, name),
        layers=found.structure.layers,
        facts=facts_of(rig, batch, found, modules) if facts else Facts(mode="train"),
        steps=np.zeros(1, np.int64),
        columns=found.columns,
    )


def run_of(rig: Rig, batch: Batch, name: str) -> Run:
    """Says what was looked at."""
    return Run(
        name=name or type(rig.model).__name__,
        model=type(rig.model).__name__,
        parameters=sum(p.numel() for p in rig.model.parameters() if p.requires_grad),
        samples=batch.samples,
        seed=rig.seed,
        device=str(rig.device),
    )


def facts_of(rig: Rig, batch: Batch, found: Measurement, modules: evidence.Modules) -> Facts:
    """Collects the direct evidence of one measured pass."""
    behind = found.structure.post_norms
    reach = output_reach(rig.model, batch, found.structure)
    head = evidence.head_facts(found.structure, found.output)
    return Facts(
        inputs=evidence.input_facts(batch, rig.model, found.structure),
        targets=evidence.target_facts(batch),
        head=head if head is None or reach is None else head | {"reach": [x if math.isfinite(x) else None for x in reach]},
        loss=loss_facts(rig.loss_fn, found.loss, found.output, batch.targets, reach=reach or EVERYTHING),
        optimizer=evidence.optimizer_facts(rig.optimizer, rig.model),
        modules=modules.facts() | ({"post_norms": list(behind)} if behind else {}),
        mode="train",
        edges=found.structure.edges,
    )
