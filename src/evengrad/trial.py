"""Experiment and proposals -> Outcome: trained before and after on the same seeds and the same order of data."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import torch

from evengrad.training import Experiment, build, evaluate, metric_name, train
from evengrad.types import Outcome, Proposal

Progress = Callable[[str], None]


def run_seeds(experiment: Experiment, seeds: Sequence[int], *, progress: Progress | None = None, label: str = "") -> tuple[float, ...]:
    """Trains once a seed and returns the metrics (K,); NaN where training diverged."""
    metrics = []
    for k, seed in enumerate(seeds, 1):
        if progress is not None:
            progress(f"{label}: seed {k} of {len(seeds)}")
        metrics.append(train(experiment, seed=seed).metric)
    return tuple(metrics)


def trial(
    experiment: Experiment,
    proposals: Sequence[Proposal],
    seeds: Sequence[int],
    before: Sequence[float],
    *,
    progress: Progress | None = None,
) -> Outcome:
    """Trains with the proposals on the same seeds as `before` was, and compares seed by seed.

    Where the unchanged training diverged, the network before training is the bar: a number instead of NaN is no improvement yet.
    """
    started = time.perf_counter()
    label = " + ".join(p.summary for p in proposals)
    after = run_seeds(experiment.repaired(proposals), seeds, progress=progress, label=label)
    bars = (b if math.isfinite(b) else _untrained(experiment, seed) for b, seed in zip(before, seeds, strict=True))
    better = all(is_better(bar, a, experiment.maximize) for bar, a in zip(bars, after, strict=True))
    return Outcome(
        proposals=tuple(proposals),
        seeds=tuple(seeds),
        before=tuple(before),
        after=after,
        metric=metric_name(experiment),
        maximize=experiment.maximize,
        seconds=time.perf_counter() - started,
        verdict="improved" if better else "no_better",
    )


def _untrained(experiment: Experiment, seed: int) -> float:
    with torch.random.fork_rng():
        return evaluate(experiment, build(experiment, seed))


def is_better(before: float, after: float, maximize: bool) -> bool:
    """True if `after` beats `before`; what is not finite is worse than any number."""
    if not math.isfinite(after):
        return False
    return not math.isfinite(before) or (after > before if maximize else after < before)


def middle(values: Sequence[float], maximize: bool) -> float:
    """Median in which a value that is not finite counts as the worst."""
    worst = -math.inf if maximize else math.inf
    ordered = sorted(v if math.isfinite(v) else worst for v in values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
