"""Findings -> the changes that remedies propose for them, and the record of trying one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evengrad.remedies import Remedy, discovered
from evengrad.rules import Rule
from evengrad.trace.adapters.keras_terms import in_keras_terms
from evengrad.types import Finding, Intervention, Proposal, Trace


@dataclass(frozen=True)
class Change:
    """A proposal, the remedy that applies it, and the findings that it is for."""

    remedy: Remedy
    proposal: Proposal
    findings: list[Finding]


def proposed(findings: Sequence[Finding], trace: Trace) -> list[Change]:
    """Collects what remedies propose, each change once with the findings it is for, in the order of least change."""
    found: dict[str, Change] = {}
    for remedy in sorted((member() for member in discovered().values()), key=lambda r: r.change):
        for finding in findings:
            for proposal in remedy.propose(finding, trace) if remedy.treats(finding) else ():
                shown = in_keras_terms(proposal, trace)
                found.setdefault(proposal.summary, Change(remedy, shown, [])).findings.append(finding)
    return list(found.values())


def intervention(changes: Sequence[Change], rule: Rule, before: Trace, draws: Sequence[tuple[float, bool]]) -> Intervention:
    """Builds the record of changes tried for a rule's finding, from each draw's deciding signal and whether it is healthy."""
    values = [v for v, _ in draws if math.isfinite(v)]
    proposal = changes[0].proposal if len(changes) == 1 else _joined([c.proposal for c in changes])
    return Intervention(
        proposal=proposal,
        cause=proposal.cause,
        code=rule.code,
        signal=rule.signal[0],
        before=rule.value(before),
        after=float(np.median(values)) if values else math.nan,
        unit=rule.signal[1],
        restored=2 * sum(restored for _, restored in draws) > len(draws),
        findings=() if draws[-1][1] else (rule.code,),
    )


def _joined(proposals: Sequence[Proposal]) -> Proposal:
    """Two changes as one entry of the record; trials apply the parts."""
    return Proposal(
        remedy="+".join(p.remedy for p in proposals),
        options={"parts": [p.summary for p in proposals]},
        cause=proposals[-1].cause,
        summary=" and ".join(p.summary for p in proposals),
        code="\n".join(p.code for p in proposals),
    )


def verdict(rule: Rule, trace: Trace) -> tuple[float, bool]:
    """Returns the deciding signal, and whether it is healthy; a signal that cannot be read is not."""
    value = rule.value(trace)
    broken = any(np.isinf(trace.column(name)).any() for name in ("out_abs_max", "grad_out_abs_max"))
    return value, math.isfinite(value) and not broken and not any(rule.check(trace))
