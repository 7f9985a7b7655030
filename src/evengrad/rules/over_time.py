"""A rule and what it saw of a curve -> a finding with the steps of the training, and the cause where it shows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from evengrad.rules.base import Rule
from evengrad.signals.why import cause_of
from evengrad.types import Evidence, Finding, Series, Trace

_PLACES = {  # where a cause is, beside the loss that shows it
    **dict.fromkeys(("lr_too_high", "lr_too_low", "scheduler_bug", "over_regularized", "frozen_params", "low_precision"), "optimizer"),
    **dict.fromkeys(("missing_zero_grad", "over_clipped", "batch_too_small", "undertrained"), "loop"),
    **dict.fromkeys(("labels_corrupt", "target_not_scaled"), "targets"),
    "input_not_normalized": "inputs",
}


def seen_over(
    rule: Rule,
    trace: Trace,
    severity: str,
    message: str,
    evidence: Evidence,
    *,
    first: int,
    last: int | None = None,
    where: tuple[str, ...] = ("loss",),
    cause: str | None = None,
    at: int | None = None,
) -> Finding:
    """Builds a finding that lasts from one step of the training to another.

    Args:
        rule: The rule that saw it.
        trace: What it was seen in.
        severity: Severity.
        message: One sentence.
        evidence: The deciding number.
        first: First step at which it shows.
        last: Last step; that of the loss otherwise.
        where: Places.
        cause: The cause, where the rule knows it; evidence beside the curve is asked otherwise (`signals.why`).
        at: Step at which it began, for that evidence.
    """
    end = int(trace.curves["loss"].steps[-1]) if last is None else last
    found = rule.finding(trace, severity, message, evidence=(evidence,), where=where, at=(0, 0))
    begin = max(first, int(trace.steps[0]))
    named = cause or cause_of(trace, rule.causes, at)
    there = (_PLACES[named],) if named in _PLACES else ()
    return replace(found, steps=(begin, max(begin, end)), cause=named, where=tuple(dict.fromkeys((*there, *where))))


def finite(values: Series) -> Series:
    """Returns the values that are finite."""
    out: Series = values[np.isfinite(values)]
    return out
