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

from evengrad.causes import WILD, folded, root_causes
from evengrad.changes import Change, intervention, proposed, verdict
from evengrad.errors import EvengradError
from evengrad.judge import report_of
from evengrad.recording import Snapshot, trace_of
from evengrad.remedies.base import undo_all
from evengrad.replays import Replays
from evengrad.report import Report
from evengrad.rig import Rig
from evengrad.rivals import Rivals
from evengrad.rules import Rule
from evengrad.signals.why import is_possible, odd_activations
from evengrad.trace.batch import Batch
from evengrad.trace.between_probe import between
from evengrad.trace.recorder import COLUMNS
from evengrad.trace.step_probe import step_facts
from evengrad.training import Experiment
from evengrad.types import SEVERITIES, Finding, Intervention, Proposal, Trace

_DRAWS = 3  # of a random change that would name a cause: the median counts
_ENOUGH = 3  # changes that work for a finding; more would be a list, not an answer
_PAIRS = 3  # pairs tried where no single change works
_COVERS = {"missing_normalization_layer", "too_deep_no_skip"}  # what mends nearly everything
_FADED = {"vanishing_gradient", "zero_gradient", "signal_collapse", "saturated_activation"}


@dataclass(frozen=True)
class Bench:
    """Where changes are tried: a rig and a batch for faults that one pass shows, an experiment for those that only training shows.

    Attributes:
        steps: How many steps may be trained again in search of causes that only training shows.
        until: When no further change is tried, by `time.perf_counter`.
        snapshot: The training shortly before its loss jumped, or None.
    """

    rig: Rig
    batch: Batch
    rules: dict[str, Rule]
    experiment: Experiment | None = None
    steps: int = 0
    until: float = math.inf
    snapshot: Snapshot | None = None


def add_causes(report: Report, bench: Bench) -> Report:
    """Tries changes for every finding and adds interventions, causes and proposals to the report."""
    if report.trace is None or not report.findings:
        return report
    report, trace = _looked_into(report, report.trace, bench)
    changes = [c for c in proposed(report.findings, trace) if c.remedy.diagnostic and is_possible(c.proposal.cause, trace)]
    over_time = [f for f in report.findings if f.steps[0] != trace.steps[0] or "curves" in "".join(bench.rules[f.code].needs)]
    early = [f for f in report.findings if f not in over_time and not _only_an_effect(f, report.findings)]
    late = [f for f in over_time if f.cause is None and f.effect_of is None and f.severity != SEVERITIES[-1]]
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
        replays = Replays(
            bench.experiment, bench.rules, trace, seed=bench.rig.seed, steps=bench.steps, until=bench.until, snapshot=bench.snapshot
        )
        tried += replays.tried(late, changes)
        skipped |= replays.skipped
    findings = folded([_caused(f, tried, trace) for f in report.findings])
    causes = root_causes(findings)
    if causes[:1] in {("lr_too_high",), ()}:
        findings, tried = _challenged(findings, tried, trace, bench)
        causes = root_causes(findings)
    proposals = _ranked(proposed(findings, trace), tried, causes)
    return replace(report, findings=findings, causes=causes, interventions=tuple(tried), proposals=proposals, skipped=skipped)


def _looked_into(report: Report, trace: Trace, bench: Bench) -> tuple[Report, Trace]:
    """Asks what lies between the layers, and what a step of the user's own does, where anything is wrong, and judges again."""
    if all(f.severity == SEVERITIES[-1] for f in report.findings):
        return report, trace
    ways = between(bench.rig.model, bench.batch, trace.layers, trace.facts.edges or (), seed=bench.rig.seed)
    rig = bench.rig
    step = step_facts(rig.train_step, rig.model, rig.optimizer, rig.loss_fn, bench.batch, seed=rig.seed)
    if not ways and not step:
        return report, trace
    modules = (trace.facts.modules or {}) | ({"between": ways} if ways else {})
    facts = replace(trace.facts, modules=modules, loop=(trace.facts.loop or {}) | step if step else trace.facts.loop)
    trace = replace(trace, facts=facts)
    again = report_of(trace, bench.rules.values())
    return replace(report, trace=trace, findings=again.findings, causes=again.causes, checked=again.checked), trace


def _challenged(
    findings: Sequence[Finding], tried: list[Intervention], trace: Trace, bench: Bench
) -> tuple[tuple[Finding, ...], list[Intervention]]:
    """Names what does better than a smaller rate in the place of the rate, or where a run that broke out has no cause yet."""
    told = [f for f in findings if f.severity != SEVERITIES[-1] and f.effect_of is None]
    shaken = next((f for f in told if f.cause == "lr_too_high" or (f.cause is None and f.symptom in WILD - {"loss_spike"})), None)
    if bench.experiment is None or shaken is None or "loss" not in trace.curves:
        return tuple(findings), tried
    winner, more = Rivals(bench.experiment, trace, bench.rig.seed, bench.until).winner(shaken)
    changed = [replace(f, cause=winner) if winner and (f is shaken or f.cause == "lr_too_high") else f for f in findings]
    return folded(changed), tried + more


def _only_an_effect(finding: Finding, findings: Sequence[Finding]) -> bool:
    """True if a finding that is at least as severe brings it about: a warning is not taken for the cause of an error without a trial."""
    roots = [f.severity for f in findings if f.code == finding.effect_of]
    return any(SEVERITIES.index(severity) <= SEVERITIES.index(finding.severity) for severity in roots)


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
            drawn_verdicts.append([verdict(rule, after) for rule in judged])
        except EvengradError:  # a change that the model cannot run with (batch norm on one sample) was tried, and failed
            drawn_verdicts.append([(math.nan, False) for _ in judged])
        finally:
            undo()
        if not any(drawn_verdicts[-1][i][1] for i in deciding):
            break  # a draw that leaves the strongest findings needs no second opinion
    return [intervention(changes, rule, before, [d[i] for d in drawn_verdicts]) for i, rule in enumerate(judged)]


def _caused(finding: Finding, tried: Sequence[Intervention], trace: Trace) -> Finding:
    """Names what the first change that worked would remove; a norm hides what an odd activation does, and is no cause beside one."""
    cause = next((t.cause for t in tried if t.code == finding.code and t.restored), None)
    if cause in _COVERS and finding.symptom in _FADED and not finding.cause and odd_activations(trace):
        cause = "bad_hidden_activation"
    return replace(finding, cause=finding.cause or cause)


def _ranked(changes: Sequence[Change], tried: Sequence[Intervention], causes: Sequence[str]) -> tuple[Proposal, ...]:
    """Changes that removed the strongest findings first, then those that remove a root cause; among equals the smaller change."""

    def rank(change: Change) -> tuple[int, ...]:
        mine = [t for t in tried if t.proposal == change.proposal]
        errors = {f.code for f in change.findings if f.severity == SEVERITIES[0]}
        failed = sum(not t.restored for t in mine if t.code in errors or not errors)
        restored = sum(t.restored for t in mine)
        named = change.proposal.cause in causes
        state = 0 if restored and not failed else 1 if named else 2 if not mine else 3 if restored else 4
        return state, causes.index(change.proposal.cause) if named else len(causes), change.remedy.change, -restored

    return tuple(c.proposal for c in sorted(changes, key=rank))
