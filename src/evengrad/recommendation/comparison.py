"""Metrics of options -> what each factor does, the order of activations, who beats whom: pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from evengrad.recommendation.result import AS_IT_IS, FACTORS, TEXTBOOK, Effect, Inversion, Row
from evengrad.trial import is_better, middle, worth

_NEARLY_BEST = 0.9  # share of the best gain at which a smaller change is preferred


def effects(tried: Sequence[tuple[Mapping[str, str], float]], maximize: bool) -> tuple[Effect, ...]:
    """Returns what each factor with more than one level does, from the factors and the metric of each option."""
    found = []
    for factor in FACTORS:
        levels = _levels(factor, tried)
        medians = {level: middle([*metrics.values()], maximize) for level, metrics in levels.items()}
        if len(levels) < 2 or AS_IT_IS not in levels:
            continue
        ranked = sorted(medians, key=lambda level: (-worth(medians[level], maximize), level != AS_IT_IS))
        best, against = ranked[0], ranked[1] if ranked[0] == AS_IT_IS else AS_IT_IS
        pairs = [(levels[against][rest], metric) for rest, metric in levels[best].items() if rest in levels[against]]
        wins = sum(is_better(theirs, ours, maximize) for theirs, ours in pairs)
        found.append(Effect(factor=factor, levels=medians, best=best, against=against, wins=wins, settings=len(pairs)))
    return tuple(found)


def measured_order(scores: Mapping[str, Sequence[float]], maximize: bool) -> tuple[str, ...]:
    """Returns activations by the median of their metrics, best first; equal ones stand as in the textbook."""
    known = [name for name in TEXTBOOK if name in scores]
    return tuple(sorted(known, key=lambda name: -worth(middle(scores[name], maximize), maximize)))


def inversions(scores: Mapping[str, Sequence[float]], maximize: bool) -> tuple[Inversion, ...]:
    """Returns the pairs that stand the other way round than in the textbook: the worst seed of one beats the best seed of the other.

    A single seed has no spread, and gives no pair.
    """
    known = [name for name in TEXTBOOK if len(scores.get(name, ())) > 1]
    worst = {name: min(scores[name], key=lambda v: worth(v, maximize)) for name in known}
    best = {name: max(scores[name], key=lambda v: worth(v, maximize)) for name in known}
    return tuple(
        Inversion(better=later, worse=earlier, better_worst=worst[later], worse_best=best[earlier])
        for i, earlier in enumerate(known)
        for later in known[i + 1 :]
        if is_better(best[earlier], worst[later], maximize)
    )


def smallest(rows: Sequence[Row], base: Row, maximize: bool) -> Row | None:
    """Returns, of the rows that are better, the smallest change that reaches nine tenths of the best gain; None if none is better."""
    among = [row for row in rows if row.better]
    if not among:
        return None
    ends = [worth(row.median, maximize) for row in among]
    start = worth(base.median, maximize)
    start = start if math.isfinite(start) else min(ends)  # it diverged: count from the worst that did not
    near = [(row, end) for row, end in zip(among, ends, strict=True) if end - start >= _NEARLY_BEST * (max(ends) - start)]
    return min(near, key=lambda item: (item[0].changes, -item[1]))[0]


def _levels(factor: str, tried: Sequence[tuple[Mapping[str, str], float]]) -> dict[str, dict[tuple[str, ...], float]]:
    """Level -> setting of the other factors -> metric."""
    levels: dict[str, dict[tuple[str, ...], float]] = {}
    for factors, metric in tried:
        rest = tuple(level for name, level in factors.items() if name != factor)
        levels.setdefault(factors[factor], {})[rest] = metric
    return levels
