"""A diagnosed report -> sets of changes in the order in which they are worth a training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from evengrad.changes import proposed
from evengrad.remedies import discovered
from evengrad.remedies.base import CLIP, NORM
from evengrad.report import Report
from evengrad.rules import discovered as rules
from evengrad.types import SEVERITIES, Proposal

_MOST = 12


def candidates(report: Report, base: Sequence[Proposal] = (), *, largest: int = 3) -> list[tuple[Proposal, ...]]:
    """Returns at most twelve sets of at most `largest` changes, best first, each with `base`.

    What removes the first root cause comes first, then, where there are several root causes, the best change for each of them together;
    then second choices and what removes later causes, and what no cause names but an intervention showed to work. A change that an
    intervention showed to fail comes behind all others. Last is what removes causes that such findings can have and the diagnosis did
    not name: trials tell where it was mistaken.
    """
    held = {p.remedy for p in base}
    known = list({p.summary: p for p in (*_ordered(report), *_possible(report, named=False))}.values())
    ordered = [p for p in known if p.remedy not in held and not _again(p, base)]
    singles: list[tuple[Proposal, ...]] = [(p,) for p in ordered]
    together = tuple(_first_of_each(ordered, report.causes))
    if 1 < len(together) <= largest - len(base):
        singles.insert(1, together)
    return [(*base, *found) for found in singles[:_MOST]]


def _ordered(report: Report) -> list[Proposal]:
    order = {name: remedy.change for name, remedy in discovered().items()}
    strongest = {f.code for f in report.findings if f.severity == SEVERITIES[0]}

    def rank(item: tuple[int, Proposal]) -> tuple[int, ...]:
        place, proposal = item
        tried = [t for t in report.interventions if t.proposal == proposal]
        deciding = [t for t in tried if t.code in strongest] or tried
        works, fails = any(t.restored for t in deciding), bool(deciding) and not any(t.restored for t in deciding)
        cause = report.causes.index(proposal.cause) if proposal.cause in report.causes else len(report.causes)
        return int(fails), cause, int(not works), order.get(proposal.remedy, 0) if works else 0, place

    return [p for _, p in sorted(enumerate(report.proposals), key=rank)]


def alternatives(report: Report) -> list[tuple[Proposal, ...]]:
    """Returns a change for each further cause that findings with a cause can have: what is left where that cause was a mistake."""
    found: list[tuple[Proposal, ...]] = [(p,) for p in _possible(report, named=True)]
    return found[:_MOST]


def _possible(report: Report, *, named: bool) -> Iterator[Proposal]:
    """Yields the least change for each cause that findings which stand by themselves can have: those whose cause is named, or not."""
    if report.trace is None:
        return
    for finding in report.findings:
        rule = rules().get(finding.code)
        if rule is None or finding.effect_of is not None or finding.severity == SEVERITIES[-1] or (finding.cause is not None) != named:
            continue
        for cause in rule.causes:
            if cause != finding.cause:
                blamed = replace(finding, code="", symptom=None, cause=cause)
                yield from (change.proposal for change in proposed([blamed], report.trace)[:1])


def _first_of_each(ordered: Sequence[Proposal], causes: Sequence[str]) -> Iterator[Proposal]:
    """Yields the best change of each cause that does not touch what one before it does."""
    used: set[str] = set()
    for cause in causes:
        best = next((p for p in ordered if p.cause == cause), None)
        if best is not None and best.remedy not in used:
            used.add(best.remedy)
            yield best


def _again(proposal: Proposal, base: Sequence[Proposal]) -> bool:
    """True for a second norm or a second clipping."""
    kinds = {name: remedy.change for name, remedy in discovered().items()}
    mine = kinds.get(proposal.remedy)
    return mine in {NORM, CLIP} and any(kinds.get(p.remedy) == mine for p in base)
