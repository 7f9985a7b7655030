"""Report -> the table of changes that were tried by training: a distribution over seeds for each, not one number."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from evengrad.report.numbers import number, percent
from evengrad.report.report import Report
from evengrad.report.wording import together


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One row: a change, and the metric of each seed.

    Attributes:
        label: What was changed; `nothing` for the baseline.
        values: The metric of each seed, in the order of `seeds`.
        seeds: The seeds.
        low, median, high: Smallest, middle and largest; a metric that is not finite counts as the worst.
        box: Positions in [0, 1] of low, lower quartile, median, upper quartile and high on the table's axis; empty if none is finite.
        dots: Positions in [0, 1] of the finite values.
        failed: Seeds whose metric is not finite.
        findings: Codes of the error findings that remain, `none`, or `–` where that was not judged.
        chosen: True for the smallest set that works.
        rank: What orders rows, larger is better.
    """

    label: str
    values: tuple[float, ...]
    seeds: tuple[int, ...]
    low: float
    median: float
    high: float
    box: tuple[float, ...]
    dots: tuple[float, ...]
    failed: int
    findings: str
    chosen: bool
    rank: float


@dataclass(frozen=True, kw_only=True)
class Trials:
    """The table: the baseline, then a row a change, on one axis from `low` to `high`."""

    metric: str
    maximize: bool
    seeds: int
    rows: tuple[Trial, ...]
    low: float
    high: float


def trials(report: Report) -> Trials | None:
    """Builds the table, or None where nothing was tried."""
    if not report.outcomes:
        return None
    first, most = report.outcomes[0], max(len(o.seeds) for o in report.outcomes)
    base = {seed: value for o in reversed(report.outcomes) for seed, value in zip(o.seeds, o.before, strict=True)}
    finite = [v for o in report.outcomes for v in (*o.before, *o.after) if math.isfinite(v)]
    low, high = _axis(first.metric, finite)
    sick = ", ".join(dict.fromkeys(f.code for f in report.findings if f.severity == "error"))
    rows = [replace(_row("nothing", base, (low, high), first.maximize), findings=sick)]
    for o in report.outcomes:
        row = _row(together(o.proposals), dict(zip(o.seeds, o.after, strict=True)), (low, high), o.maximize)
        chosen = bool(report.chosen) and o.proposals == report.chosen
        left = ", ".join(o.findings) or ("–" if o.verdict == "no_better" else "none")  # what is no better is not judged again
        rows.append(replace(row, chosen=chosen, findings=left))
    return Trials(metric=metric_name(first.metric), maximize=first.maximize, seeds=most, rows=tuple(rows), low=low, high=high)


def score(metric: str, value: float) -> str:
    """Returns a metric as it is read: an accuracy in percent, anything else as a number."""
    if not math.isfinite(value):
        return "not finite"
    return percent(value, 1) if is_share(metric) else number(value)


def spread(metric: str, row: Trial) -> str:
    """Returns smallest to largest: `82.0–85.0%`, or with the worst as `not finite`."""
    low, high = score(metric, row.low), score(metric, row.high)
    if low == high:
        return low
    return f"{low.removesuffix('%') if high.endswith('%') else low} – {high}"


def is_share(metric: str) -> bool:
    """Tells whether a metric lives in [0, 1]."""
    return "accuracy" in metric or metric.endswith(("_fraction", "f1"))


def metric_name(metric: str) -> str:
    """Returns the metric's name in words."""
    return metric.replace("_", " ")


def _row(label: str, by_seed: dict[int, float], axis: tuple[float, float], maximize: bool) -> Trial:
    worst = -math.inf if maximize else math.inf
    values = tuple(by_seed.values())
    ordered = sorted(v if math.isfinite(v) else worst for v in values)
    median = quantile(ordered, 0.5)
    finite = [v for v in ordered if math.isfinite(v)]
    corners = [quantile(finite, q) for q in (0.0, 0.25, 0.5, 0.75, 1.0)] if finite else []
    rank = median if maximize else -median
    return Trial(
        label=label,
        values=values,
        seeds=tuple(by_seed),
        low=ordered[0] if ordered else math.nan,
        median=median,
        high=ordered[-1] if ordered else math.nan,
        box=tuple(_place(v, axis) for v in corners),
        dots=tuple(_place(v, axis) for v in finite),
        failed=len(values) - len(finite),
        findings="",
        chosen=False,
        rank=rank if not math.isnan(rank) else -math.inf,
    )


def quantile(ordered: list[float], q: float) -> float:
    """Returns a quantile of sorted values (linear between neighbours; an infinite neighbour wins)."""
    if not ordered:
        return math.nan
    at = q * (len(ordered) - 1)
    below, above = ordered[math.floor(at)], ordered[math.ceil(at)]
    if at == math.floor(at) or below == above:
        return below
    return below + (above - below) * (at - math.floor(at))


def _place(value: float, axis: tuple[float, float]) -> float:
    return (value - axis[0]) / (axis[1] - axis[0])


def _axis(metric: str, finite: list[float]) -> tuple[float, float]:
    if is_share(metric) and all(0 <= v <= 1 for v in finite):
        return 0.0, 1.0
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    pad = 0.05 * (high - low) or 0.5
    return low - pad, high + pad
