"""Trace and rules -> findings, strongest first, with what was looked at and what was not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from evengrad.errors import InputError, unknown
from evengrad.rules import Rule, discovered
from evengrad.types import SEVERITIES, SYMPTOMS, Finding, Trace


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
        reason = rule.missing(trace)
        if reason:
            skipped[rule.code] = f"{rule.title}: {reason}"
        else:
            checked.append(rule.code)
            findings.extend(rule.check(trace))
    return Judgement(tuple(sorted(findings, key=_rank)), tuple(checked), skipped)


def _rank(finding: Finding) -> tuple[int, int, str]:
    symptom = SYMPTOMS.index(finding.symptom) if finding.symptom in SYMPTOMS else len(SYMPTOMS)
    return SEVERITIES.index(finding.severity), symptom, finding.code
