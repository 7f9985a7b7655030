"""A trace, or the place where one is kept, and rules -> findings, strongest first, with what was looked at and what was not."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evengrad.causes import folded, root_causes
from evengrad.errors import InputError, unknown
from evengrad.report import Report
from evengrad.report.compare import Comparison, compared
from evengrad.rules import Rule, discovered
from evengrad.signals.trainability import trainability
from evengrad.store import MAGIC, SUFFIX, default_folder, find_run, read_run
from evengrad.types import SEVERITIES, SYMPTOMS, Finding, Trace

_EXPECTED = "Give a stored run, a trace saved as .npz, or a report's JSON"


@dataclass(frozen=True)
class Judgement:
    """Findings, the codes that were checked, and why others were not."""

    findings: tuple[Finding, ...]
    checked: tuple[str, ...]
    skipped: dict[str, str]


def chosen_rules(
    rules: Sequence[Rule] | None = None, select: str | Iterable[str] | None = None, ignore: str | Iterable[str] | None = None
) -> list[Rule]:
    """Returns the rules to run: all discovered with their own thresholds, a given rule in the place of its namesake.

    Args:
        rules: Rules with thresholds of one's own; they replace the discovered rule of the same code.
        select: Codes, or beginnings of codes (`VAN`), to run; None runs all.
        ignore: Codes, or beginnings of codes, to leave out.

    Raises:
        InputError: if `rules` holds something else than a rule.
        UnknownNameError: if a code in `select` or `ignore` fits no rule.
    """
    by_code: dict[str, Rule] = {code: member() for code, member in discovered().items()}
    for rule in rules or ():
        if not isinstance(rule, Rule):
            raise InputError(f"rules must hold instances of evengrad.Rule; got {rule!r}. Write rules=[eg.rules.VanishingGradient()]")
        by_code[rule.code] = rule
    select = [select] if isinstance(select, str) else None if select is None else list(select)
    ignore = [ignore] if isinstance(ignore, str) else list(ignore or ())
    for prefix in [*(select or ()), *ignore]:
        if not any(code.startswith(prefix) for code in by_code):
            raise unknown("rule", prefix, by_code)
    wanted = {c for c in by_code if (select is None or c.startswith(tuple(select))) and not c.startswith(tuple(ignore))}
    return [rule for code, rule in sorted(by_code.items()) if code in wanted]


def judge(trace: Trace, rules: Iterable[Rule]) -> Judgement:
    """Runs the rules over a trace; a rule whose columns or facts are missing is skipped, with the reason."""
    findings: list[Finding] = []
    checked, skipped = [], {}
    for rule in rules:
        seen = trace.seen([need for need in rule.needs if "." not in need])  # not each step of a watch is looked into fully
        reason = rule.missing(trace) or (None if len(seen.steps) else "what it needs was never seen at one step")
        if reason:
            skipped[rule.code] = f"{rule.title}: {reason}"
        else:
            checked.append(rule.code)
            findings.extend(rule.check(seen))
    return Judgement(folded(sorted(findings, key=_rank)), tuple(checked), skipped)


def report_of(trace: Trace, rules: Iterable[Rule]) -> Report:
    """Judges a trace, wherever it comes from, by direct evidence: causes by experiment need the network (`check`, `diagnose`)."""
    judgement = judge(trace, rules)
    skipped = judgement.skipped | trace.run.unseen
    if not trace.layers:
        skipped["structure"] = "no operation of this model could be seen (TorchScript?): nothing is known of its layers"
    if "update_norm" not in trace.columns:
        skipped["updates"] = "no step was taken"
    chance = trainability(trace)
    if chance is None:
        skipped["chance to train"] = "known for plain networks of 16 to 64 units a layer with cross-entropy only"
    return Report(
        run=trace.run,
        findings=judgement.findings,
        causes=root_causes(judgement.findings),
        trainability=chance,
        checked=judgement.checked,
        skipped=skipped,
        trace=trace,
    )


def recall(source: str | Path, *, directory: Path | None = None, rules: Sequence[Rule] | None = None, salvage: bool = False) -> Report:
    """Returns the report of a run that is kept: a stored run or a saved trace is judged anew, a report's JSON is taken as it is.

    Args:
        source: Path of a stored run, of a trace saved as .npz or of a report's JSON, or the name of a stored run.
        directory: Where runs are looked up by name; `default_folder()` otherwise.
        rules: Rules to judge by, all of them otherwise; of a report's JSON, findings of these rules are kept.
        salvage: Leave out what is damaged in a stored run; an event of kind `fault` says what that was.

    Raises:
        InputError: if the file is none of these, is damaged, or several runs bear the name.
        UnknownNameError: if there is no such run.
    """
    path = find_run(str(source), default_folder() if directory is None else directory)
    judged = chosen_rules() if rules is None else rules
    try:
        with path.open("rb") as file:
            start = file.read(len(MAGIC))
        if path.suffix == SUFFIX or start == MAGIC:
            return report_of(read_run(path, salvage=salvage), judged)
        if start.startswith(b"PK") and not zipfile.is_zipfile(path):
            raise InputError(f"{str(path)!r} is cut short: it begins, but does not end, like a saved trace. {_EXPECTED}")
        if start.startswith(b"PK"):
            return report_of(Trace.load(path), judged)
        report = _report_in(path)
    except (OSError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{str(path)!r} cannot be read ({error}). {_EXPECTED}") from error
    if rules is None:
        return report
    codes = {rule.code for rule in rules}
    tried = tuple(i for i in report.interventions if i.code in codes)
    return replace(report, findings=tuple(f for f in report.findings if f.code in codes), interventions=tried)


def compare(before: Report | Trace | str | Path, after: Report | Trace | str | Path, *, directory: Path | None = None) -> Comparison:
    """Compares two reports, or two runs: such as those of a network before and after a change.

    Args:
        before: A report, a trace, or what `recall` takes: the path or the name of a run.
        after: The same, of the other.
        directory: Where runs are looked up by name; `default_folder()` otherwise.

    Raises:
        InputError: if a file is no run, trace or report.
        UnknownNameError: if there is no such run.

    Example:
        >>> print(eg.compare(eg.check(old, x, y, loss_fn), eg.check(new, x, y, loss_fn)))
        >>> print(eg.compare("stuck", "stuck-2"))
    """

    def report(side: Report | Trace | str | Path) -> Report:
        if isinstance(side, str | Path):
            return recall(side, directory=directory)
        return report_of(side, chosen_rules()) if isinstance(side, Trace) else side

    return compared(report(before), report(after))


def _report_in(path: Path) -> Report:
    try:
        return Report.from_json(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(f"{str(path)!r} is not text. {_EXPECTED}") from error
    except InputError as error:
        raise InputError(f"{str(path)!r}: {error}. {_EXPECTED}") from error


def _rank(finding: Finding) -> tuple[int, int, str]:
    symptom = SYMPTOMS.index(finding.symptom) if finding.symptom in SYMPTOMS else len(SYMPTOMS)
    return SEVERITIES.index(finding.severity), symptom, finding.code
