"""A report with findings -> the same report with causes: changes tried on a copy in the order of least change.

The same batch, only the failing signal measured again. The first change that brings the signal into its healthy range names the
cause; later ones are listed as what also works.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from evengrad.recording import Recording, trace_of
from evengrad.remedies import Remedy, discovered
from evengrad.remedies.base import undo_all
from evengrad.report import Report
from evengrad.rig import Rig
from evengrad.rules import Rule
from evengrad.trace.batch import Batch
from evengrad.trace.recorder import COLUMNS
from evengrad.training import Experiment, train
from evengrad.types import SEVERITIES, Finding, Intervention, Proposal, Trace

_DRAWS = 3  # of a random change that seems to work: the median counts
_PAIRS = 3  # pairs tried where no single change works
_REPLAY = 200  # steps replayed at most for a fault that only training shows


def add_causes(
    report: Report, rig: Rig, batch: Batch, rules: dict[str, Rule], *, experiment: Experiment | None = None, seed: int = 0
) -> Report:
    """Tries changes for every finding and adds interventions, causes and proposals to the report."""
    trace = report.trace
    if trace is None or not report.findings:
        return report
    proposals = proposed(report.findings, trace)
    early = [f for f in report.findings if f.steps[0] == trace.steps[0]]
    late = [f for f in report.findings if f.steps[0] != trace.steps[0]]
    skipped = dict(report.skipped)
    tried: list[Intervention] = []
    if early:
        try:
            copied = replace(rig, model=copy.deepcopy(rig.model), optimizer=None, scheduler=None)
        except Exception as error:  # a model's own __deepcopy__ can raise anything
            skipped["causes"] = f"the model cannot be copied ({error})"
        else:
            tried += _at_once(early, trace.at(int(trace.steps[0])), proposals, copied, batch, rules)
    if late and experiment is not None:
        tried += _by_replay(late, trace, proposals, experiment, rules, seed)
    findings = tuple(_caused(f, tried) for f in report.findings)
    ordered = dict.fromkeys(f.cause for f in findings if f.cause)
    return replace(
        report, findings=findings, causes=tuple(ordered), interventions=tuple(tried), proposals=_ranked(proposals, tried), skipped=skipped
    )


def proposed(findings: Sequence[Finding], trace: Trace) -> list[tuple[Remedy, Proposal, list[Finding]]]:
    """Collects what remedies propose, each change once with the findings it is for, in the order of least change."""
    found: dict[str, tuple[Remedy, Proposal, list[Finding]]] = {}
    for remedy in sorted((member() for member in discovered().values()), key=lambda r: r.change):
        for finding in findings:
            for proposal in remedy.propose(finding, trace) if remedy.treats(finding) else ():
                found.setdefault(f"{proposal.remedy} {proposal.summary}", (remedy, proposal, []))[2].append(finding)
    return list(found.values())


def _at_once(
    findings: Sequence[Finding],
    trace: Trace,
    proposals: list[tuple[Remedy, Proposal, list[Finding]]],
    rig: Rig,
    batch: Batch,
    rules: dict[str, Rule],
) -> list[Intervention]:
    tried: list[Intervention] = []
    visible = [(r, p, [f for f in fs if f in findings]) for r, p, fs in proposals if r.shows_at_once]
    for remedy, proposal, treated in visible:
        tried += _try([(remedy, proposal)], treated, trace, rig, batch, rules)
    for finding in findings:
        if not any(t.restored for t in tried if t.code == finding.code):
            for pair in _pairs([(r, p) for r, p, fs in visible if finding in fs]):
                tried += _try(pair, [finding], trace, rig, batch, rules)
    return tried


def _pairs(changes: list[tuple[Remedy, Proposal]]) -> Iterator[list[tuple[Remedy, Proposal]]]:
    """Pairs of changes of different kinds, least change first."""
    found = [[a, b] for i, a in enumerate(changes) for b in changes[i + 1 :] if a[0].change != b[0].change]
    yield from sorted(found, key=lambda pair: pair[0][0].change + pair[1][0].change)[:_PAIRS]


def _try(
    changes: Sequence[tuple[Remedy, Proposal]], findings: Sequence[Finding], before: Trace, rig: Rig, batch: Batch, rules: dict[str, Rule]
) -> list[Intervention]:
    judged = [(f, rules[f.code]) for f in findings]
    if not judged:
        return []
    columns = frozenset(need for _, rule in judged for need in rule.needs if need in COLUMNS)
    draws: list[list[tuple[float, bool]]] = []
    for k in range(_DRAWS if any(remedy.random for remedy, _ in changes) else 1):
        drawn = replace(rig, seed=rig.seed + k)
        undo = undo_all([remedy.apply(drawn, proposal) for remedy, proposal in changes])
        try:
            after = trace_of(drawn, batch, columns=columns)
        finally:
            undo()
        draws.append([(rule.value(after), not any(rule.check(after))) for _, rule in judged])
        if not any(restored for _, restored in draws[-1]):
            break  # a draw that fails needs no second opinion
    return [_intervention(changes, f, rule, before, [d[i] for d in draws]) for i, (f, rule) in enumerate(judged)]


def _intervention(
    changes: Sequence[tuple[Remedy, Proposal]], finding: Finding, rule: Rule, before: Trace, draws: Sequence[tuple[float, bool]]
) -> Intervention:
    values = [v for v, _ in draws if math.isfinite(v)]
    proposal = changes[0][1] if len(changes) == 1 else _joined([p for _, p in changes])
    return Intervention(
        proposal=proposal,
        cause=proposal.cause,
        code=finding.code,
        signal=rule.signal[0],
        before=rule.value(before),
        after=float(np.median(values)) if values else math.nan,
        unit=rule.signal[1],
        restored=2 * sum(restored for _, restored in draws) > len(draws),
        findings=() if draws[-1][1] else (finding.code,),
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


def _by_replay(
    findings: Sequence[Finding],
    trace: Trace,
    proposals: list[tuple[Remedy, Proposal, list[Finding]]],
    experiment: Experiment,
    rules: dict[str, Rule],
    seed: int,
) -> list[Intervention]:
    """Trains again with each change, up to shortly after the fault first showed."""
    tried: list[Intervention] = []
    for finding in findings:
        rule = rules[finding.code]
        steps = min(_REPLAY, finding.steps[0] + 10)
        for remedy, proposal, treated in proposals:
            if finding in treated:
                after = _replay(experiment.repaired([proposal]), seed, steps)
                tried.append(_intervention([(remedy, proposal)], finding, rule, trace, [(rule.value(after), not any(rule.check(after)))]))
    return tried


class _Stop(Exception):
    """Ends a replay."""


class _Until(Recording):
    def __init__(self, steps: int) -> None:
        super().__init__(dense=0, growth=1.3)
        self._steps_left = steps

    def after(self, rig: Rig, batch: Batch) -> None:
        super().after(rig, batch)
        if rig.step >= self._steps_left:
            raise _Stop


def _replay(experiment: Experiment, seed: int, steps: int) -> Trace:
    recording = _Until(steps)
    try:
        losses = train(experiment, seed=seed, watcher=recording).losses
    except _Stop:
        losses = np.zeros(0)
    return recording.trace(losses)


def _caused(finding: Finding, tried: Sequence[Intervention]) -> Finding:
    cause = next((t.cause for t in tried if t.code == finding.code and t.restored), None)
    return replace(finding, cause=finding.cause or cause)


def _ranked(proposals: list[tuple[Remedy, Proposal, list[Finding]]], tried: Sequence[Intervention]) -> tuple[Proposal, ...]:
    """Changes that removed the strongest findings first; among equals the smaller change, then what only training can show."""

    def rank(entry: tuple[Remedy, Proposal, list[Finding]]) -> tuple[int, ...]:
        remedy, proposal, findings = entry
        mine = [t for t in tried if t.proposal is proposal]
        errors = {f.code for f in findings if f.severity == SEVERITIES[0]}
        failed = sum(not t.restored for t in mine if t.code in errors or not errors)
        restored = sum(t.restored for t in mine)
        return (0 if restored and not failed else 1 if not mine else 2 if restored else 3, remedy.change, -restored)

    return tuple(p for _, p, _ in sorted(proposals, key=rank))
