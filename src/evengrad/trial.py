"""Experiment and proposals -> Outcome: trained before and after on the same seeds and the same order of data."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn

from evengrad.errors import InputError
from evengrad.parallel import each
from evengrad.remedies import discovered
from evengrad.report import Report
from evengrad.rig import Rig
from evengrad.training import Experiment, TrainResult, build, evaluate, metric_name, train
from evengrad.types import Outcome, Proposal

Progress = Callable[[str], None]
_Key = tuple[str, int, int | None]


class Trainings:
    """Trainings of one experiment with sets of changes: each is done once, and kept in a file if there is one.

    Args:
        experiment: What is trained.
        first: Its training with the first seed, which tells in a file whose experiment it is.
        keep: File in which the metric of each training is kept, so that a search that was ended goes on from there; None keeps nothing.
        workers: Trainings at a time.
        progress: Called with a line before each training.

    Raises:
        InputError: if the file is of another experiment, or no such file.
    """

    def __init__(
        self, experiment: Experiment, first: TrainResult, *, keep: Path | None = None, workers: int = 1, progress: Progress | None = None
    ) -> None:
        self._experiment, self._workers, self._say = experiment, workers, progress or (lambda _line: None)
        self._done: dict[_Key, float] = {}
        self._file = keep
        if keep is not None:
            owner = hashlib.sha256(first.losses.tobytes()).hexdigest()
            self._done = _kept(keep, owner)
            if not keep.exists():
                keep.parent.mkdir(parents=True, exist_ok=True)
                keep.write_text(json.dumps({"experiment": owner}) + "\n")

    def metrics(self, sets: Sequence[Sequence[Proposal]], seeds: Sequence[int], *, steps: int | None = None) -> list[tuple[float, ...]]:
        """Returns the metrics (K,) of each set of changes: of whole trainings, or of their first steps; NaN where training diverged."""
        wanted = [(_key(proposals, seed, steps), proposals, seed) for proposals in sets for seed in seeds]
        missing = {key: (proposals, seed) for key, proposals, seed in wanted if key not in self._done}

        def one(task: tuple[Sequence[Proposal], int]) -> float:
            proposals, seed = task
            self._say(f"{described(proposals)}: seed {seed}{'' if steps is None else f', {steps} steps'}")
            return train(self._experiment.repaired(proposals), seed=seed, max_steps=steps).metric

        for key, metric in zip(missing, each(one, list(missing.values()), workers=self._workers), strict=True):
            self._add(key, metric)
        values = [self._done[key] for key, *_ in wanted]
        return [tuple(values[i : i + len(seeds)]) for i in range(0, len(values), len(seeds))]

    def _add(self, key: _Key, metric: float) -> None:
        self._done[key] = metric
        if self._file is not None:
            with self._file.open("a") as file:
                file.write(json.dumps([*key, metric]) + "\n")

    def know(self, proposals: Sequence[Proposal], seed: int, metric: float) -> None:
        """Notes the metric of a whole training that was done elsewhere."""
        self._add(_key(proposals, seed, None), metric)

    def outcome(self, proposals: Sequence[Proposal], seeds: Sequence[int]) -> Outcome:
        """Trains with the proposals and without them on the same seeds, and compares seed by seed."""
        started = time.perf_counter()
        (before,), (after,) = (self.metrics([part], seeds) for part in ((), proposals))
        return compared(self._experiment, proposals, seeds, before, after, seconds=time.perf_counter() - started)


def described(proposals: Sequence[Proposal]) -> str:
    """Returns what is changed, in a few words."""
    return " + ".join(p.summary for p in proposals) or "unchanged"


def compared(
    experiment: Experiment,
    proposals: Sequence[Proposal],
    seeds: Sequence[int],
    before: Sequence[float],
    after: Sequence[float],
    *,
    seconds: float = 0.0,
) -> Outcome:
    """Compares seed by seed.

    Where the unchanged training diverged, the network before training is the bar: a number instead of NaN is no improvement yet.
    """
    bars = (b if math.isfinite(b) else _untrained(experiment, seed) for b, seed in zip(before, seeds, strict=True))
    better = all(is_better(bar, a, experiment.maximize) for bar, a in zip(bars, after, strict=True))
    return Outcome(
        proposals=tuple(proposals),
        seeds=tuple(seeds),
        before=tuple(before),
        after=tuple(after),
        metric=metric_name(experiment),
        maximize=experiment.maximize,
        seconds=seconds,
        verdict="improved" if better else "no_better",
    )


@dataclass(frozen=True)
class MinusLoss:
    """The metric `-loss` of an experiment, by another loss than its own."""

    experiment: Experiment
    loss: Proposal

    @property
    def __name__(self) -> str:  # what reports call it
        return f"-{self.loss.options['loss']}"

    def __call__(self, model: nn.Module) -> float:
        """Returns minus the loss on the data that the experiment is judged on."""
        rig = Rig(model, loss_fn=self.experiment.loss_fn)
        discovered()[self.loss.remedy]().apply(rig, self.loss)
        assert rig.loss_fn is not None
        return evaluate(replace(self.experiment, loss_fn=rig.loss_fn), rig)


def judged(experiment: Experiment, report: Report) -> Experiment:
    """Returns the experiment with a metric that can tell repair from fault: where its loss is the first fault, by the loss in its place."""
    proposal = next((p for p in report.proposals if p.remedy == "replace_loss" and p.cause in report.causes[:1]), None)
    if proposal is None or metric_name(experiment) != "-loss":
        return experiment
    return replace(experiment, metric=MinusLoss(replace(experiment, metric="auto"), proposal))


def _key(proposals: Sequence[Proposal], seed: int, steps: int | None) -> _Key:
    return json.dumps([asdict(p) for p in proposals], sort_keys=True), seed, steps


def _kept(file: Path, owner: str) -> dict[_Key, float]:
    """Reads the trainings that a file has; a last line that was cut off is passed by."""
    if not file.exists():
        return {}
    lines = file.read_text().splitlines()
    try:
        held = json.loads(lines[0])["experiment"]
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file} is no file of kept trainings; give another name, or none") from error
    if held != owner:
        raise InputError(f"{file} holds trainings of another experiment, or of this one before it was changed; give another name")
    found: dict[_Key, float] = {}
    for line in lines[1:]:
        try:
            proposals, seed, steps, metric = json.loads(line)
        except ValueError:
            continue
        found[proposals, seed, steps] = metric
    return found


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


def worth(value: float, maximize: bool) -> float:
    """Orders metrics: larger is better, and what is not finite is the worst."""
    if not math.isfinite(value):
        return -math.inf
    return value if maximize else -value
