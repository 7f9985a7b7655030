"""Experiment -> Recommendation: all options for a few steps, the better ones for more, the last to the end on every seed."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from evengrad.errors import EvengradError, InputError
from evengrad.recommendation.comparison import effects, inversions, measured_order, smallest
from evengrad.recommendation.options import Option, options, present
from evengrad.recommendation.result import AS_IT_IS, TEXTBOOK, Recommendation, Row
from evengrad.recording import trace_of
from evengrad.report.numbers import plural
from evengrad.signals.depth import gradient_gain
from evengrad.signals.trainability import trainability
from evengrad.training import Experiment, build, first_batch, metric_name, train
from evengrad.trial import Trainings, compared, middle, worth
from evengrad.types import Outcome, Trace

_FEWEST = 30  # steps of a short trial
_SHORT = (16, 4)  # parts of a training that the two rounds of short trials take
_BEST_OVERALL = 3  # go to the end whatever their activation
_PROOFS, _PROOF_SEEDS = 3, 3  # changes that are compared on other seeds, at most; seeds of the first of them, at least


def recommend(
    experiment: Experiment,
    *,
    seeds: int | Sequence[int] = 3,
    max_seconds: float | None = None,
    progress: Callable[[str], None] | None = None,
    workers: int = 1,
    keep: str | Path | None = None,
    name: str = "",
) -> Recommendation:
    """Ranks activation, initialiser, norm and learning rate for this network and these data by short trials.

    Every combination is trained for a sixteenth of a training (thirty steps at least), the better quarter of them for a quarter, and the
    best of each activation, the best three of all and the network as it is to the end on every seed. Of the best, every change that nine
    tenths of the gain do not need is taken out again, and what is left must be better on other seeds, too. All trials are paired: same
    seeds, same order of data. The experiment itself is left as it is.

    Args:
        experiment: What to look for a better way to build; it need not have a fault.
        seeds: Number of seeds, or the seeds.
        max_seconds: Wall-clock budget; no new trial starts after it.
        progress: Called with a line of text from time to time.
        workers: Trainings at a time, each in a process of its own; 1 where processes cannot be forked or a GPU is in use.
        keep: File in which finished trainings are kept: a call that was ended goes on from there.
        name: What the result calls the experiment.

    Raises:
        InputError: if it is no experiment, there is no seed, or workers is under 1, or the file is of another experiment.

    Example:
        >>> found = eg.recommend(experiment)
        >>> print(found.verdict, found.patch)

    Reference: Jamieson & Talwalkar 2016 (successive halving); Géron 2019, ch. 11 (the order of activations).
    """
    if not isinstance(experiment, Experiment):
        raise InputError(f"recommend needs an Experiment, since it trains; got {type(experiment).__name__}. Wrap the model in one")
    chosen_seeds = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    if not chosen_seeds or workers < 1:
        raise InputError(f"recommend needs at least one seed and one worker; got seeds={seeds!r}, workers={workers}")
    search = _Search(
        experiment,
        chosen_seeds,
        until=math.inf if max_seconds is None else time.perf_counter() + max_seconds,
        say=progress or (lambda _line: None),
        workers=workers,
        keep=None if keep is None else Path(keep),
    )
    search.halve()
    search.settle()
    return search.result(name)


@dataclass
class _Search:
    """The trials of one call of `recommend`."""

    experiment: Experiment
    seeds: tuple[int, ...]
    until: float
    say: Callable[[str], None]
    workers: int
    keep: Path | None
    first_round: dict[str, float] = field(default_factory=dict)
    rows: dict[str, Row] = field(default_factory=dict)  # label -> its longest trial
    proofs: dict[str, Outcome] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    late: bool = False

    def __post_init__(self) -> None:
        self.started, self.maximize = time.perf_counter(), self.experiment.maximize
        rig = build(self.experiment, self.seeds[0])
        self.trace = trace_of(rig, first_batch(rig))
        self.options = {option.label: option for option in options(self.trace)}
        self.own = self.options[AS_IT_IS]
        self.say(f"{plural(len(self.options), 'option')}; the network as it is trains first")
        first = train(self.experiment, seed=self.seeds[0])
        whole = bool(np.isfinite(first.losses[-1]))  # one that diverged stops early
        self.steps = len(first.losses) if whole else rig.epochs * sum(1 for _ in rig.batches(0))
        self.trainings = Trainings(self.experiment, first, keep=self.keep, workers=self.workers)
        self.trainings.know((), self.seeds[0], first.metric)
        self._note(self.own, self.seeds[:1], (first.metric,), 1.0)

    def halve(self) -> None:
        """Short trials, each round on a seed of its own, then whole trainings on every seed."""
        others = [option for option in self.options.values() if option is not self.own]
        random.Random(0).shuffle(others)  # so that what a budget cuts off is no level of any factor
        left = [self.own, *others]
        for number, part in enumerate(_SHORT):
            found = self._round(left, self.seeds[number % len(self.seeds)], part)
            if number == 0:
                self.first_round = found
            ranked = sorted((o for o in left if o.label in found), key=lambda o: -worth(found[o.label], self.maximize))
            share, each = (math.ceil(len(ranked) / 4), 2) if number == 0 else (_BEST_OVERALL, 1)
            left = _unique([self.own, *ranked[:share], *_of_each_activation(ranked, each)])
        self._finish(left)

    def settle(self) -> None:
        """Takes out of the chosen change what its gain does not need, then compares it with the network as it is on other seeds.

        Of several options that are as good as the network as it is, one is often better on each of three seeds by luck alone.
        """
        while (best := self._chosen()) is not None and not self._is_late():
            fewer = [self._without(best, factor) for factor, level in best.factors.items() if level != AS_IT_IS]
            fewer = [option for option in fewer if not self._is_final(option.label) and option.label not in self.skipped]
            if fewer:
                self._finish(fewer)
            elif self._proved(best):
                break

    def result(self, name: str) -> Recommendation:
        """Puts everything together."""
        order = sorted(self.rows.values(), key=lambda r: (-r.share, -len(r.seeds), -worth(r.median, self.maximize)))
        finals = [row for row in order if self._is_final(row.label)]
        best_of = self._best_of_each(finals)
        scores = {activation: row.metrics for activation, row in best_of.items()}
        chosen = self._chosen()
        compared_to_the_end = self._is_final(AS_IT_IS) and (len(finals) > 1 or len(self.options) == 1)
        return Recommendation(
            verdict="change" if chosen else "keep" if compared_to_the_end else "not_decided",
            rows=tuple(order),
            chosen=chosen or self.rows[AS_IT_IS],
            proofs=self.proofs,
            experiment=self.experiment.repaired(chosen.proposals if chosen else ()),
            effects=effects([(self.options[label].factors, metric) for label, metric in self.first_round.items()], self.maximize),
            present=present(self.trace),
            order=measured_order(scores, self.maximize),
            best_of={activation: row.label for activation, row in best_of.items()},
            inversions=inversions(scores, self.maximize),
            metric=metric_name(self.experiment),
            maximize=self.maximize,
            seeds=self.seeds,
            options=len(self.options),
            steps=self.steps,
            late=self.late,
            skipped=self.skipped,
            seconds=time.perf_counter() - self.started,
            name=name,
        )

    def _round(self, among: Sequence[Option], seed: int, part: int) -> dict[str, float]:
        """Trains options for a part of a training on one seed."""
        steps = min(self.steps, max(_FEWEST, math.ceil(self.steps / part)))
        found: dict[str, float] = {}
        for start in range(0, len(among), self.workers):
            if self._is_late():
                break
            if start % max(1, len(among) // 8) < self.workers:
                self.say(f"{start} of {plural(len(among), 'option')} tried for {plural(steps, 'step')}")
            chunk = among[start : start + self.workers]
            for option, (metric,) in self._metrics(chunk, (seed,), None if steps == self.steps else steps):
                found[option.label] = metric
                if self.rows.get(option.label) is None or self.rows[option.label].share < steps / self.steps:
                    self._note(option, (seed,), (metric,), steps / self.steps)
        return found

    def _finish(self, among: Sequence[Option]) -> None:
        """Trains options to the end on every seed, as far as the time goes."""
        left, size = [o for o in among if not self._is_final(o.label)], math.ceil(self.workers / len(self.seeds))
        for start in range(0, len(left), size):
            if self._is_late():
                break
            chunk = left[start : start + size]
            self.say(f"{', '.join(option.label for option in chunk)}: to the end on {plural(len(self.seeds), 'seed')}")
            for option, metrics in self._metrics(chunk, self.seeds, None):
                self._note(option, self.seeds, metrics, 1.0)

    def _proved(self, row: Row) -> bool:
        """Compares on other seeds, the second change on twice as many as the first: the more are tried, the more are better by luck."""
        count = (len(self.proofs) + 1) * max(_PROOF_SEEDS, len(self.seeds))
        others = range(max(self.seeds) + 1, max(self.seeds) + 1 + count)
        self.say(f"{row.label}: to the end on {plural(len(others), 'seed')} more")
        proof = self.trainings.outcome(row.proposals, others)
        self.proofs[row.label] = proof
        if proof.verdict == "improved":
            return True
        changed = {factor: level for factor, level in row.factors.items() if level != AS_IT_IS}
        for label, other in self.rows.items():  # what holds the refuted change, and gained hardly more by it, is out with it
            self.rows[label] = replace(other, better=other.better and not changed.items() <= other.factors.items())
        return False

    def _metrics(self, among: Sequence[Option], seeds: Sequence[int], steps: int | None) -> list[tuple[Option, tuple[float, ...]]]:
        """Metrics of those that can be trained; why one cannot is kept."""
        try:
            return list(zip(among, self.trainings.metrics([o.proposals for o in among], seeds, steps=steps), strict=True))
        except EvengradError as error:
            if len(among) > 1:
                return [one for option in among for one in self._metrics([option], seeds, steps)]
            self.skipped[among[0].label] = str(error)
            return []

    def _note(self, option: Option, seeds: Sequence[int], metrics: Sequence[float], share: float) -> None:
        final = share == 1 and tuple(seeds) == self.seeds
        ordered = sorted(metrics, key=lambda v: worth(v, self.maximize), reverse=not self.maximize)
        trace = self._before_training(option) if final else None
        self.rows[option.label] = Row(
            label=option.label,
            factors=option.factors,
            seeds=tuple(seeds),
            metrics=tuple(metrics),
            low=ordered[0],
            median=middle(metrics, self.maximize),
            high=ordered[-1],
            share=share,
            better=final and self._beats(option, metrics),
            gradient_gain=None if trace is None else gradient_gain(trace),
            trainability=None if trace is None else trainability(trace),
            proposals=option.proposals,
        )

    def _before_training(self, option: Option) -> Trace:
        rig = build(self.experiment.repaired(option.proposals), self.seeds[0])
        return trace_of(rig, first_batch(rig))

    def _beats(self, option: Option, metrics: Sequence[float]) -> bool:
        base = self.rows.get(AS_IT_IS)
        if base is None or option is self.own or base.seeds != self.seeds:
            return False
        return compared(self.experiment, option.proposals, self.seeds, base.metrics, metrics).verdict == "improved"

    def _chosen(self) -> Row | None:
        if sum(proof.verdict != "improved" for proof in self.proofs.values()) == _PROOFS:
            return None
        return smallest(list(self.rows.values()), self.rows[AS_IT_IS], self.maximize)

    def _without(self, row: Row, factor: str) -> Option:
        wanted = row.factors | {factor: AS_IT_IS}
        return next(option for option in self.options.values() if option.factors == wanted)

    def _best_of_each(self, finals: Sequence[Row]) -> dict[str, Row]:
        """Activation of the textbook -> its best row; the network as it is counts for the activation that it has."""
        own = present(self.trace)
        found: dict[str, Row] = {}
        for row in finals:  # best first
            level = row.factors["activation"]
            activation = own[0] if level == AS_IT_IS and len(own) == 1 else level
            if activation in TEXTBOOK:
                found.setdefault(activation, row)
        return found

    def _is_final(self, label: str) -> bool:
        row = self.rows.get(label)
        return row is not None and row.share == 1 and row.seeds == self.seeds

    def _is_late(self) -> bool:
        self.late = self.late or time.perf_counter() > self.until
        return self.late


def _of_each_activation(ranked: Iterable[Option], count: int) -> list[Option]:
    """The best few of each activation."""
    taken: dict[str, list[Option]] = {}
    for option in ranked:
        taken.setdefault(option.factors["activation"], []).append(option)
    return [option for best in taken.values() for option in best[:count]]


def _unique(among: Iterable[Option]) -> list[Option]:
    return list({option.label: option for option in among}.values())
