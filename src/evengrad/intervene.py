"""A report with findings -> the same report with causes: changes tried on a copy in the order of least change.

The same batch, only the failing signal measured again. The first change that brings the signal into its healthy range names the
cause; later ones are listed as what also works.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from evengrad.causes import folded, root_causes
from evengrad.errors import EvengradError
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

_DRAWS = 3  # of a random change that would name a cause: the median counts
_ENOUGH = 3  # changes that work for a finding; more would be a list, not an answer
_PAIRS = 3  # pairs tried where no single change works
_REPLAY = 200  # steps replayed at most for a fault that only training shows


@dataclass(frozen=True)
class Change:
    """A proposal, the remedy that applies it, and the findings that it is for."""

    remedy: Remedy
    proposal: Proposal
    findings: list[Finding]


@dataclass(frozen=True)
class Bench:
    """Where changes are tried: a rig and a batch for faults that one pass shows, an experiment for those that only training shows."""

    rig: Rig
    batch: Batch
    rules: dict[str, Rule]
    experiment: Experiment | None = None


def add_causes(report: Report, bench: Bench) -> Report:
    """Tries changes for every finding and adds interventions, causes and proposals to the report."""
    trace = report.trace
    if trace is None or not report.findings:
        return report
    changes = proposed(report.findings, trace)
    early = [f for f in report.findings if f.steps[0] == trace.steps[0]]
    late = [f for f in report.findings if f.steps[0] != trace.steps[0]]
    skipped = dict(report.skipped)
    tried: list[Intervention] = []
    if early:
        try:
            copied = replace(bench.rig, model=copy.deepcopy(bench.rig.model), optimizer=None, scheduler=None)
        except Exception as error:  # a model's own __deepcopy__ can raise anything
            skipped["causes"] = f"the model cannot be copied ({error})"
        else:
            tried += _at_once(early, changes, replace(bench, rig=copied), trace.at(int(trace.steps[0])))
    if late and bench.experiment is not None:
        tried += _by_replay(late, changes, bench, trace)
    findings = folded([_caused(f, tried) for f in report.findings])
    return replace(
        report,
        findings=findings,
        causes=root_causes(findings),
        interventions=tuple(tried),
        proposals=_ranked(changes, tried),
        skipped=skipped,
    )


def proposed(findings: Sequence[Finding], trace: Trace) -> list[Change]:
    """Collects what remedies propose, each change once with the findings it is for, in the order of least change."""
    found: dict[str, Change] = {}
    for remedy in sorted((member() for member in discovered().values()), key=lambda r: r.change):
        for finding in findings:
            for proposal in remedy.propose(finding, trace) if remedy.treats(finding) else ():
                found.setdefault(proposal.summary, Change(remedy, proposal, [])).findings.append(finding)
    return list(found.values())


def _at_once(findings: Sequence[Finding], changes: Sequence[Change], bench: Bench, trace: Trace) -> list[Intervention]:
    tried: list[Intervention] = []
    visible = [replace(c, findings=[f for f in c.findings if f in findings]) for c in changes if c.remedy.shows_at_once]
    for change in visible:
        working = Counter(t.code for t in tried if t.restored)
        if all(working[f.code] >= _ENOUGH for f in change.findings):
            continue
        draws = _DRAWS if change.remedy.random and any(not working[f.code] for f in change.findings) else 1
        tried += _try([change], change.findings, bench, trace, draws=draws)
    for finding in findings:
        if not any(t.restored for t in tried if t.code == finding.code):
            for pair in _pairs([c for c in visible if finding in c.findings]):
                tried += _try(pair, [finding], bench, trace, draws=_DRAWS)
    return tried


def _pairs(changes: Sequence[Change]) -> Iterator[list[Change]]:
    """Pairs of changes of different kinds, least change first."""
    found = [[a, b] for i, a in enumerate(changes) for b in changes[i + 1 :] if a.remedy.change != b.remedy.change]
    yield from sorted(found, key=lambda pair: pair[0].remedy.change + pair[1].remedy.change)[:_PAIRS]


def _try(changes: Sequence[Change], findings: Sequence[Finding], bench: Bench, before: Trace, *, draws: int) -> list[Intervention]:
    judged = [bench.rules[f.code] for f in findings]
    if not judged:
        return []
    columns = frozenset(need for rule in judged for need in rule.needs if need in COLUMNS)
    evidence = any(need.startswith("facts.") for rule in judged for need in rule.needs)
    worst = min(SEVERITIES.index(f.severity) for f in findings)
    deciding = [i for i, f in enumerate(findings) if SEVERITIES.index(f.severity) == worst]
    drawn_verdicts: list[list[tuple[float, bool]]] = []
    for k in range(draws):
        drawn = replace(bench.rig, seed=bench.rig.seed + k)
        undo = undo_all(c.remedy.apply(drawn, c.proposal) for c in changes)
        try:
            after = trace_of(drawn, bench.batch, columns=columns, facts=evidence)
            drawn_verdicts.append([_verdict(rule, after) for rule in judged])
        except EvengradError:  # a change that the model cannot run with (batch norm on one sample) was tried, and failed
            drawn_verdicts.append([(math.nan, False) for _ in judged])
        finally:
            undo()
        if not any(drawn_verdicts[-1][i][1] for i in deciding):
            break  # a draw that leaves the strongest findings needs no second opinion
    return [_intervention(changes, rule, before, [d[i] for d in drawn_verdicts]) for i, rule in enumerate(judged)]


def _verdict(rule: Rule, trace: Trace) -> tuple[float, bool]:
    """The deciding signal, and whether it is healthy; a signal that cannot be read is not."""
    value = rule.value(trace)
    broken = any(np.isinf(trace.column(name)).any() for name in ("out_abs_max", "grad_out_abs_max"))
    return value, math.isfinite(value) and not broken and not any(rule.check(trace))


def _intervention(changes: Sequence[Change], rule: Rule, before: Trace, draws: Sequence[tuple[float, bool]]) -> Intervention:
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


def _by_replay(findings: Sequence[Finding], changes: Sequence[Change], bench: Bench, trace: Trace) -> list[Intervention]:
    """Trains again with each change, once, and looks well past the step at which each fault first showed."""
    replays = {}
    for change in changes:
        steps = [_horizon(f) for f in findings if f in change.findings]
        if steps:
            replays[change.proposal.summary] = _replay(bench, change, max(steps))
    tried: list[Intervention] = []
    for finding in findings:
        rule = bench.rules[finding.code]
        for change in changes:
            if finding in change.findings:
                after = replays[change.proposal.summary].until(_horizon(finding))
                tried.append(_intervention([change], rule, trace, [_verdict(rule, after)]))
    return tried


def _horizon(finding: Finding) -> int:
    return min(_REPLAY, 2 * finding.steps[0] + 50)


def _replay(bench: Bench, change: Change, steps: int) -> Trace:
    assert bench.experiment is not None  # its caller looked
    recording = Recording(dense=0, growth=1.3)
    result = train(bench.experiment.repaired([change.proposal]), seed=bench.rig.seed, watcher=recording, max_steps=steps)
    return recording.trace(result.losses)


def _caused(finding: Finding, tried: Sequence[Intervention]) -> Finding:
    cause = next((t.cause for t in tried if t.code == finding.code and t.restored), None)
    return replace(finding, cause=finding.cause or cause)


def _ranked(changes: Sequence[Change], tried: Sequence[Intervention]) -> tuple[Proposal, ...]:
    """Changes that removed the strongest findings first; among equals the smaller change, then what only training can show."""

    def rank(change: Change) -> tuple[int, ...]:
        mine = [t for t in tried if t.proposal is change.proposal]
        errors = {f.code for f in change.findings if f.severity == SEVERITIES[0]}
        failed = sum(not t.restored for t in mine if t.code in errors or not errors)
        restored = sum(t.restored for t in mine)
        return (0 if restored and not failed else 1 if not mine else 2 if restored else 3, change.remedy.change, -restored)

    return tuple(c.proposal for c in sorted(changes, key=rank))
