"""SearchResult -> what is said of it: a verdict in words, and a table of the best trials."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evengrad.lab.search.space import label
from evengrad.lab.search.watch import DIVERGED, FAILED, HEALTH, LOSS
from evengrad.report.numbers import number, percent, plural

if TYPE_CHECKING:
    from evengrad.lab.search.result import SearchResult, Tried


def verdict(result: SearchResult) -> str:
    """Returns the best metric, beside that of the experiment as it is."""
    own, best = result.as_it_is, result.best
    if best is None:
        return f"none of {plural(len(result.trials), 'trial')} came to its end"
    if own is None or own is best:
        better = "; nothing beat the experiment as it is" if own is best else ""
        return f"{result.metric} {number(best.metric)}, the best of {plural(len(result.trials), 'trial')}{better}"
    before = "diverged" if own.how == DIVERGED else f"{number(own.metric)}" if own.how == "complete" else own.how
    return f"{result.metric} {before} as it is, {number(best.metric)} with the best of {plural(len(result.trials), 'trial')}"


def account(result: SearchResult) -> list[str]:
    """Returns who was stopped and why, what that saved, and what should be known."""
    ends, total = result.ends, len(result.trials)
    words = {HEALTH: "were stopped by gradient health", LOSS: "fell behind", DIVERGED: "diverged", FAILED: "could not be trained"}
    parts = []
    for how, said in words.items():
        if count := ends.get(how):
            codes = ", ".join(f"{code} {n}" for code, n in result.reasons.items()) if how == HEALTH else ""
            parts.append(f"{percent(count / total)} {said}" + (f" ({codes})" if codes else ""))
    taken, planned = result.steps
    lines = [f"{'; '.join(parts)}. " if parts else ""]
    lines[0] += f"{taken:,} of {planned:,} steps were taken ({percent(taken / max(1, planned))})"
    failed = next((t.reason for t in result.trials if t.how == FAILED), "")
    return lines + ([f"one that could not be trained: {failed}"] if failed else []) + list(result.notes)


def table(result: SearchResult, rows: int = 10) -> tuple[list[str], list[list[str]]]:
    """Returns header and lines of the best trials, the experiment as it is last if it is not among them."""
    shown = list(result.ranked[:rows])
    own = result.as_it_is
    if own is not None and own not in shown:
        shown.append(own)
    header = ["trial", result.metric, *(name.replace("_", " ") for name in result.space)]
    return header, [_line(result, one) for one in shown]


def _line(result: SearchResult, one: Tried) -> list[str]:
    name = f"{one.number} as it is" if one.as_it_is else str(one.number)
    metric = number(one.metric) if one.how == "complete" else one.how
    return [name, metric, *(written(one.numbers[n]) for n in result.space)]


def written(value: Any) -> str:
    """Returns a value as the table shows it."""
    shown = label(value)
    if shown is None:
        return "none"
    return f"{shown:g}" if isinstance(shown, float) else str(shown)
