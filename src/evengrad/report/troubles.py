"""Report -> its findings with their cause in words: what brings the signal back, what does not, what to try."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from evengrad.report import wording
from evengrad.report.explained.links import Link, links
from evengrad.report.numbers import plural, quantity
from evengrad.report.report import Report
from evengrad.types import Evidence, Finding, Intervention


@dataclass(frozen=True, kw_only=True)
class FindingView:
    """One finding as it is shown.

    Attributes:
        severity: `error`, `warning` or `note`.
        code: Code of its rule.
        message: The number and the place, then the consequence.
        evidence: One line a measured number: `gradient gain ×0.24 a layer < ×0.70`.
        where: The worst places, shortened.
        cause: The cause in words, or "".
        word: The cause as the vocabulary has it, or "".
        proof: What the experiment on a copy showed: what restores the signal, then what leaves it sick.
        attempt: The first change to try, or "".
        also: Other changes that restore the signal, each with the value it reaches.
        brings: Findings that follow from this one: `ACT002 the message`, strongest first.
        links: Where to read on, among the pages of `evengrad explain --all`: words and address.
    """

    severity: str
    code: str
    message: str
    evidence: tuple[str, ...]
    where: str
    cause: str
    word: str
    proof: str
    attempt: str
    also: tuple[str, ...]
    brings: tuple[str, ...]
    links: tuple[Link, ...]


def finding_views(report: Report) -> tuple[FindingView, ...]:
    """Builds a block for each finding that stands by itself, in the report's order; what follows from it is told there."""
    return tuple(_block(report, f) for f in report.findings if f.effect_of is None)


def evidence_line(evidence: Evidence) -> str:
    """Returns `gradient gain ×0.24 a layer < ×0.70 a layer, at net.0`."""
    value = quantity(evidence.signal, evidence.value, evidence.unit)
    limit = quantity(evidence.signal, evidence.threshold, evidence.unit)
    place = f", at {evidence.where}" if evidence.where else ""
    step = f", step {evidence.step:,}" if evidence.step else ""
    return f"{evidence.signal.replace('_', ' ')} {value} {_relation(evidence.relation)} {limit}{place}{step}"


def proof(tried: tuple[Intervention, ...]) -> str:
    """Returns `tanh (Glorot) in place of sigmoid brings it to ×0.98 a layer; new initialisation alone leaves ×0.26`."""
    good = next((i for i in tried if i.restored), None)
    parts = [f"{_does(good, 'brings')} it to {_value(good)}"] if good is not None else []
    failed = [i for i in tried if not i.restored]
    parts += [_failure(i, alone=good is not None and n == 0) for n, i in enumerate(failed[:4])]
    parts += [f"{len(failed) - 4} more leave it sick"] if len(failed) > 4 else []
    return "; ".join(parts)


def _failure(i: Intervention, *, alone: bool) -> str:
    left = _short(i) if math.isfinite(i.after) else "nothing finite to measure"
    return f"{_does(i, 'leaves', 'alone ' if alone else '')} {left}"


def _does(i: Intervention, verb: str, between: str = "") -> str:
    """The change and its verb, which agrees with it: `batch norm … leaves`, `standardised inputs alone leave`."""
    phrase = wording.change_phrase(i.proposal)
    several = re.split(r" \(| around | before | in place", phrase)[0].endswith("s") or " and " in phrase
    return f"{phrase} {between}{verb.removesuffix('s') if several else verb}"


def _block(report: Report, finding: Finding) -> FindingView:
    tried = tuple(i for i in report.interventions if i.code == finding.code)
    good = [i for i in tried if i.restored]
    named = [p for p in report.proposals if finding.cause and p.cause == finding.cause]
    first = named[0] if named else good[0].proposal if good else None
    also = [i for i in good if first is None or wording.change_label(i.proposal) != wording.change_label(first)]
    return FindingView(
        severity=finding.severity,
        code=finding.code,
        message=finding.message,
        evidence=tuple(evidence_line(e) for e in finding.evidence),
        where=_where(finding.where),
        cause=wording.cause_phrase(finding.cause, report.trace) if finding.cause else "",
        word=finding.cause or "",
        proof=proof(_main_first(tried, finding.cause)),
        attempt=wording.arrows(first.summary or wording.change_label(first)) if first is not None and not report.outcomes else "",
        also=tuple(f"{wording.change_label(i.proposal)} ({_short(i)})" for i in also),
        brings=tuple(f"{f.code} {f.message}" for f in report.findings if f.effect_of == finding.code),
        links=links(finding, report.trace),
    )


def _main_first(tried: tuple[Intervention, ...], cause: str | None) -> tuple[Intervention, ...]:
    """The restoring intervention that named the cause goes first; the rest keep their order of least change."""
    return tuple(sorted(tried, key=lambda i: not (i.restored and i.cause == cause)))


def _value(i: Intervention) -> str:
    return quantity(i.signal, i.after, i.unit)


def _short(i: Intervention) -> str:
    """The value without `a layer`, which the sentence has said."""
    return _value(i).removesuffix(" a layer")


def _relation(relation: str) -> str:
    return {"<=": "≤", ">=": "≥", "!=": "≠", "==": "="}.get(relation, relation)


def _where(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:4])
    return f"{shown} and {len(names) - 4:,} more" if len(names) > 4 else shown


def counted(findings: tuple[FindingView, ...]) -> str:
    """Returns `1 error, 2 warnings`, or `no findings`."""
    counts = [(s, sum(f.severity == s for f in findings)) for s in ("error", "warning", "note")]
    return ", ".join(plural(n, s) for s, n in counts if n) or "no findings"
