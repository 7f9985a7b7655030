"""SearchResult: the trials of a search, and all that is said, counted and drawn from them."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evengrad.lab.search.space import Axis, label
from evengrad.lab.search.watch import COMPLETE, DIVERGED, HEALTH, LOSS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from evengrad.training import Experiment


@dataclass(frozen=True, kw_only=True)
class Tried:
    """One trial.

    Attributes:
        number: Counts trials in the order in which they ended.
        numbers: What was tried.
        how: `complete`; stopped by `health` or by `loss`; `diverged`; or `failed`.
        metric: Its metric, NaN unless it is complete.
        steps: Optimizer steps that it took.
        planned: Steps of its whole training.
        reason: Why it was stopped, or what it raised.
        alone: Why it was trained one at a time; empty if it was not.
        rungs: Epochs trained -> metric.
        as_it_is: True for the experiment's own numbers.
    """

    number: int
    numbers: Mapping[str, Any]
    how: str
    metric: float
    steps: int
    planned: int
    reason: str
    alone: str
    rungs: Mapping[int, float]
    as_it_is: bool


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """What a search found.

    Attributes:
        name: What the user calls the experiment.
        original: The experiment that was searched around.
        experiment: The original with the best numbers, ready for `eg.train` and `eg.check`; the original if no trial came to its end.
        patch: What to change in one's own code.
        trials: All trials, in the order in which they ended.
        space: What was searched.
        metric: Name of the metric.
        maximize: Whether a larger one is better.
        seed: Seed of weights, data order and sampler.
        notes: What should be known about how the trials were trained.
        storage: Where they are kept.
        seconds: Wall-clock seconds of this call.
    """

    name: str
    original: Experiment
    experiment: Experiment
    patch: str
    trials: tuple[Tried, ...]
    space: Mapping[str, Axis]
    metric: str
    maximize: bool
    seed: int
    notes: tuple[str, ...]
    storage: str
    seconds: float

    @cached_property
    def ranked(self) -> tuple[Tried, ...]:
        """The trials that came to their end, the best first; of equals the earlier."""
        ended = [t for t in self.trials if t.how == COMPLETE]
        return tuple(sorted(ended, key=lambda t: -t.metric if self.maximize else t.metric))

    @property
    def best(self) -> Tried | None:
        """The best trial, or None if none came to its end."""
        return self.ranked[0] if self.ranked else None

    @property
    def as_it_is(self) -> Tried | None:
        """The trial of the experiment's own numbers, if the space holds them."""
        return next((t for t in self.trials if t.as_it_is), None)

    @property
    def ends(self) -> dict[str, int]:
        """How trials ended, and how many did so."""
        found = Counter(t.how for t in self.trials)
        return {how: found[how] for how in (COMPLETE, HEALTH, LOSS, DIVERGED, "failed") if found[how]}

    @property
    def reasons(self) -> dict[str, int]:
        """Codes of the findings that trials were stopped for, and how many were."""
        return dict(Counter(t.reason.split(" ", 1)[0] for t in self.trials if t.how == HEALTH).most_common())

    @property
    def steps(self) -> tuple[int, int]:
        """Optimizer steps that all trials took, and that they would have taken to their ends."""
        return sum(t.steps for t in self.trials), sum(t.planned for t in self.trials)

    def importance(self) -> dict[str, float]:
        """Returns each number's share of what makes trials good or bad, the largest first; they add up to 1.

        fANOVA (Hutter, Hoos & Leyton-Brown 2014) if scikit-learn is installed, else PED-ANOVA (Watanabe, Bansal & Hutter 2023). Empty
        where fewer than four trials came to their end, or all to the same.
        """
        from evengrad.lab.search.importance import importance

        return importance(self)

    @property
    def figures(self) -> Mapping[str, Callable[[], Figure]]:
        """Pictures by caption, drawn when they are called."""
        from evengrad.lab.search.figures import figures

        return figures(self)

    def to_json(self) -> str:
        """Returns one JSON document; numbers that are not finite are null."""
        document = {
            "name": self.name,
            "metric": self.metric,
            "maximize": self.maximize,
            "best": self.best and _trial(self.best),
            "patch": self.patch,
            "ends": self.ends,
            "reasons": self.reasons,
            "steps": dict(zip(("taken", "planned"), self.steps, strict=True)),
            "importance": self.importance(),
            "space": {name: axis.describe() for name, axis in self.space.items()},
            "seed": self.seed,
            "notes": self.notes,
            "storage": self.storage,
            "seconds": self.seconds,
            "trials": [_trial(t) for t in self.trials],
        }
        return json.dumps(document, indent=2, allow_nan=False)

    def to_html(self, path: str | Path) -> Path:
        """Writes one page that loads nothing, and returns its path.

        Raises:
            InputError: if matplotlib, which draws the pictures, is not installed.
        """
        from evengrad.lab.search.page import write

        return write(self, path)


def _trial(one: Tried) -> dict[str, Any]:
    return {
        "number": one.number,
        "numbers": {name: label(value) for name, value in one.numbers.items()},
        "how": one.how,
        "metric": _finite(one.metric),
        "steps": one.steps,
        "planned": one.planned,
        "reason": one.reason,
        "alone": one.alone,
        "rungs": {epoch: _finite(metric) for epoch, metric in one.rungs.items()},
        "as_it_is": one.as_it_is,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
