"""A subject and its report -> one row of plain values: what was recognised, when, and where."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from benchmarks.faults.base import Case
from benchmarks.faults.biting import stored
from benchmarks.faults.healthy import Healthy
from benchmarks.faults.others import verdicts
from benchmarks.faults.runs import Kept
from evengrad.judge import chosen_rules, report_of
from evengrad.types import Finding, Trace

SHARES = (0.05, 0.1, 0.2, 0.5, 1.0)  # of the steps, after which a trace is judged


def strong(findings: Iterable[Finding]) -> list[Finding]:
    """Returns warnings and errors."""
    return [f for f in findings if f.severity != "note"]


def row(subject: Case | Healthy, kept: Kept) -> dict[str, Any]:
    """Returns what the report makes of the subject."""
    found = strong(kept.report.findings)
    plain = kept.meta["plain_seconds"]
    made: dict[str, Any] = {
        "name": subject.name,
        "half": subject.half,
        "kind": kept.meta["kind"],
        "healthy": isinstance(subject, Healthy),
        "detected": bool(found),
        "codes": [f.code for f in found],
        "symptoms": [f.symptom for f in found],
        "causes": list(kept.report.causes),
        "score": kept.meta["score"],
        "seconds": kept.meta["seconds"],
        "ratio": None if plain is None else round(kept.meta["seconds"] / plain, 2),
        "others": verdicts(kept.trace, kept.meta),
    }
    if isinstance(subject, Case):
        made |= _against_truth(subject, kept, found)
    else:
        made["healthy_score"] = kept.meta["score"] >= subject.floor
    return made


def _against_truth(case: Case, kept: Kept, found: list[Finding]) -> dict[str, Any]:
    truth = stored().get(case.name, {})
    also = {*case.operator.also, *truth.get("also", ())}
    causes = list(kept.report.causes)
    return {
        "cause": case.cause,
        "also": sorted(also),
        "symptom": recognised(case, found, causes) is not None,
        "first": causes[:1] == [case.cause],
        "first_two": case.cause in causes[:2],
        "first_or_equal": bool(causes) and (causes[0] == case.cause or causes[0] in also),
        "place": _place(case, kept.trace, found, causes),
        "bites_early": bool(truth.get("early")),
        "step": when(case, kept.trace, kept.meta["steps"]),
    }


def recognised(case: Case, found: Iterable[Finding], causes: list[str]) -> Finding | None:
    """Returns the first finding that tells an acceptable symptom, or a structural one (without symptom) that names the cause."""
    for finding in found:
        if finding.symptom in case.operator.symptoms or (finding.symptom is None and finding.cause == case.cause):
            return finding
    return None


def when(case: Case, trace: Trace, steps: int) -> float | None:
    """Returns the smallest of `SHARES` of the steps after which symptom or cause is recognised; None if it never is."""
    rules = chosen_rules()
    for share in SHARES:
        seen = trace if share == 1 else trace.until(max(1, math.ceil(share * steps)))
        if not len(seen.steps):
            continue
        report = report_of(seen, rules)
        causes = list(report.causes)
        if recognised(case, strong(report.findings), causes) or case.cause in causes[:1]:
            return share
    return None


def _place(case: Case, trace: Trace, found: list[Finding], causes: list[str]) -> bool:
    """True if the finding that recognises the case (else the first) points to where the fault is."""
    by_cause = [f for f in found if f.cause == case.cause]
    finding = next(iter(by_cause), recognised(case, found, causes)) or next(iter(found), None)
    if finding is None:
        return False
    named = {*finding.where[:3], *(e.where for e in finding.evidence[:1])} - {""}
    return any(_is_at(place, name, trace) for place in case.operator.places for name in named)


def _is_at(place: str, name: str, trace: Trace) -> bool:
    rows = {layer.name: layer for layer in trace.layers}
    if place == "layers":
        return name in rows or any(name.startswith(f"{r}.") or r.startswith(f"{name}.") for r in rows) or name.partition(".")[0].isdigit()
    if place == "head":
        last = (trace.facts.head or {}).get("layer") or (trace.layers[-1].name if trace.layers else "")
        return name in {last, "head", "output"} or (name.isdigit() and last.isdigit() and int(name) >= int(last))
    if place == "norms":
        return name in {layer.norm_module for layer in rows.values()} or (name in rows and rows[name].kind == "norm")
    return name == place
