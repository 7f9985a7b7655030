"""An experiment and a space -> trials, a batch of which is trained as one network -> SearchResult."""

from __future__ import annotations

import math
import time
import warnings
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from evengrad.errors import EvengradError, InputError, unknown
from evengrad.lab.search.alone import steps_an_epoch, train_alone
from evengrad.lab.search.arms import Arms, layers_of
from evengrad.lab.search.halving import Halving
from evengrad.lab.search.health import Health
from evengrad.lab.search.joining import CannotJoinError, Joined, join
from evengrad.lab.search.keeping import Kept, address, draws, frozen, tried_of
from evengrad.lab.search.result import SearchResult, Tried
from evengrad.lab.search.space import Axis
from evengrad.lab.search.together import Together
from evengrad.lab.search.watch import FAILED, End, Watch
from evengrad.training import Experiment, build, metric_name

_HEALTH, _HALVING = Health(), Halving()
SAMPLERS = ("tpe", "random")
_USERS = (
    EvengradError,
    RuntimeError,
)  # what the user's code may raise for some numbers: sizes that do not fit, memory that does not suffice
_BUDGET = 2 * 2**30  # bytes that the weights of one network of many, their gradients and the optimizer's memory may take


@dataclass(frozen=True)
class Progress:
    """How far a search is: trials that have ended, all that are wanted, the best metric so far (None before there is one)."""

    done: int
    total: int
    best: float | None


def search(
    experiment: Experiment,
    space: Mapping[str, Any] | None = None,
    trials: int = 64,
    *,
    batch: int = 16,
    seed: int = 0,
    sampler: str = "tpe",
    health: Health | None = _HEALTH,
    halving: Halving | None = _HALVING,
    storage: str | Path | None = None,
    store: str | Path | None = None,
    resume: bool = True,
    name: str = "",
    progress: Callable[[Progress], None] | None = None,
) -> SearchResult:
    """Looks for better numbers: trials are drawn by Optuna a batch at a time, and the networks of a batch trained as one.

    The experiment's own numbers are the first trial, which is never stopped. Every trial has the same seed, so the same order of data,
    and is what `eg.train` makes of the experiment with its numbers, up to rounding (and the masks of dropout). What cannot share a
    network is trained by itself; the result's `notes` say so, and why.

    Args:
        experiment: What to search around; it is left as it is.
        space: Name -> (low, high), (low, high, "log") or [choices]. Names are those of the optimizer's numbers (`lr`, `momentum`,
            `beta1`, `weight_decay` ...), `optimizer`, `initialiser`, `init_scale`, `clip_norm`, `clip_value`, `batch_size`, and the
            arguments of the experiment's `model` function that have defaults. None searches around the experiment's own numbers.
        trials: Trials in all, with those that are kept from an earlier call.
        batch: Trials drawn at once: more are faster, fewer learn more from each other.
        seed: Seed of weights, data order and sampler.
        sampler: `tpe` or `random`.
        health: Stops trials whose gradients are sick; None does not look.
        halving: Stops trials that fall behind; None does not compare.
        storage: Path of a journal file, URL of a database that Optuna knows, or `memory`; None for a journal in the store.
        store: Folder of the store; None for EVENGRAD_STORE, else the user's data folder.
        resume: Go on from the trials that are kept; if False, they are thrown away.
        name: What to call the experiment.
        progress: Told after each trial.

    Raises:
        InputError: if Optuna is not installed, or a name, range or storage does not fit.
        UnknownNameError: for a name that the experiment does not have.

    Example:
        >>> result = eg.search(experiment, {"lr": (1e-3, 1.0, "log"), "width": [16, 32, 64]}, trials=64)
        >>> result.best.numbers, result.patch
    """
    _need_optuna()
    if trials < 1 or batch < 1:
        raise InputError(f"a search needs at least one trial, and one a batch; got trials={trials}, batch={batch}")
    if sampler not in SAMPLERS:
        raise unknown("sampler", sampler, SAMPLERS)
    started = time.perf_counter()
    arms = Arms(experiment, seed)
    axes = arms.space(space)
    kept = Kept(
        storage,
        None if store is None else Path(store),
        name=name,
        address=address(arms, axes, seed),
        maximize=experiment.maximize,
        resume=resume,
    )
    going = _Search(arms, axes, kept, health=health, halving=halving, seed=seed, say=progress or (lambda now: None))
    while (left := trials - len(kept.trials())) > 0:
        going.train(min(batch, left), sampler, trials)
    return going.result(name, time.perf_counter() - started)


@dataclass
class _Trial:
    draws: dict[str, Any]
    numbers: dict[str, Any]
    experiment: Experiment
    planned: int
    joined: Joined | None = None
    alone: str = ""


class _Search:
    """One call of `search`."""

    def __init__(
        self,
        arms: Arms,
        axes: Mapping[str, Axis],
        kept: Kept,
        *,
        health: Health | None,
        halving: Halving | None,
        seed: int,
        say: Callable[[Progress], None],
    ) -> None:
        self._arms, self._axes, self._kept, self._seed, self._say = arms, axes, kept, seed, say
        self._experiment, own = arms.experiment, arms.own
        inside = all(name in own and axis.holds(own[name]) for name, axis in axes.items())
        self._own = {name: axis.draw(own[name]) for name, axis in axes.items()} if inside else {}
        before = [dict(t.intermediate_values) for t in kept.trials()]
        watch = partial(Watch, epochs=self._experiment.epochs, maximize=self._experiment.maximize)
        self._watch, self._spare = watch(health, halving, before=before), watch(None, None)
        self._per_epoch: dict[int, int] = {}
        self._unseen: set[str] = set()
        self._error: Exception | None = None

    def train(self, count: int, sampler: str, total: int) -> None:
        """Draws so many trials and trains them; where none of all so far could be trained, the last error ends the search."""
        maximize = self._experiment.maximize
        known = self._kept.trials()
        drawn = draws(self._axes, known, count, sampler=sampler, seed=self._seed, maximize=maximize, first=self._own)
        groups: dict[Hashable, list[_Trial]] = {}
        self._total = total
        for trial in map(self._trial, drawn):
            try:
                trial.joined = self._joined(trial)
            except CannotJoinError as why:
                trial.alone = str(why)
            except _USERS as error:
                self._fail(trial, error)
                continue
            groups.setdefault(trial.joined and trial.joined.shape, []).append(trial)
        apart = groups.pop(None, [])
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="There is a performance drop", category=UserWarning)  # of vmap, run by run
            for group in groups.values():
                apart += self._together(group)
        for trial in apart:
            self._alone(trial)
        if self._error is not None and all(t.user_attrs["how"] == FAILED for t in self._kept.trials()):
            raise self._error

    def result(self, name: str, seconds: float) -> SearchResult:
        """Puts everything together."""
        tried = tuple(tried_of(trial, self._numbers(trial.params)) for trial in self._kept.trials())
        draft = SearchResult(
            name=name,
            original=self._experiment,
            experiment=self._experiment,
            patch="",
            trials=tried,
            space=self._axes,
            metric=metric_name(self._experiment),
            maximize=self._experiment.maximize,
            seed=self._seed,
            notes=(*self._notes(tried), *sorted(self._unseen)),
            storage=self._kept.where,
            seconds=seconds,
        )
        if draft.best is None:
            return draft
        return replace(draft, experiment=self._arms.apply(draft.best.numbers), patch=self._arms.patch(draft.best.numbers))

    def _trial(self, drawn: dict[str, Any]) -> _Trial:
        numbers = self._numbers(drawn)
        experiment = self._arms.apply(numbers)
        size = experiment.batch_size
        if size not in self._per_epoch:
            self._per_epoch[size] = steps_an_epoch(experiment.data, size)
        return _Trial(drawn, numbers, experiment, self._per_epoch[size] * experiment.epochs)

    def _numbers(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        """What a draw stands for; the experiment's own numbers to the last digit."""
        if drawn == self._own:
            return {name: self._arms.own[name] for name in self._axes}
        return {name: axis.value(drawn[name]) for name, axis in self._axes.items()}

    def _joined(self, trial: _Trial) -> Joined:
        return join(trial.experiment, build(trial.experiment, self._seed), self._arms.batch)

    def _together(self, group: list[_Trial]) -> list[_Trial]:
        """Trains trials of one shape; returns those that have to be trained alone after all."""
        joined = [trial.joined for trial in group if trial.joined is not None]
        layers = layers_of(joined[0].rig.model, self._arms.batch)
        size = _fitting(joined[0])
        for start in range(0, len(group), size):
            part = group[start : start + size]
            try:
                runs = Together(part[0].experiment, joined[start : start + size], layers, self._arms.batch)
            except CannotJoinError as why:
                for trial in group[start:]:
                    trial.alone = str(why)
                return group[start:]
            spared = {k for k, trial in enumerate(part) if trial.draws == self._own}
            try:
                runs.train(self._watch, lambda k, end, part=part: self._tell(part[k], end), spared=spared)  # type: ignore[misc]
            except torch.OutOfMemoryError as error:
                raise InputError(f"{len(part)} networks do not fit into the device's memory together: give a smaller batch") from error
            if runs.unseen:
                self._unseen.add(runs.unseen)
        return []

    def _alone(self, trial: _Trial) -> None:
        watch = self._spare if trial.draws == self._own else self._watch
        try:
            end = train_alone(trial.experiment, self._seed, watch, trial.planned // trial.experiment.epochs)
        except _USERS as error:
            self._fail(trial, error)
        else:
            self._tell(trial, end)

    def _fail(self, trial: _Trial, error: Exception) -> None:
        self._error = error
        self._tell(trial, End(FAILED, 0, reason=str(error)))

    def _tell(self, trial: _Trial, end: End) -> None:
        about = {"how": end.how, "steps": end.steps, "planned": trial.planned, "reason": end.reason, "alone": trial.alone}
        self._kept.add(frozen(trial.draws, self._axes, end, self._experiment.maximize, about | {"as_it_is": trial.draws == self._own}))
        known = [t.value for t in self._kept.trials() if t.value is not None and math.isfinite(t.value)]
        best = (max if self._experiment.maximize else min)(known, default=None)
        self._say(Progress(len(self._kept.trials()), self._total, best))

    def _notes(self, tried: tuple[Tried, ...]) -> Iterator[str]:
        for why, count in Counter(t.alone for t in tried if t.alone).items():
            yield f"{count} of {len(tried)} trials were trained one at a time, since the experiment {why}"
        dropout = any(isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0 for m in self._arms.rig.model.modules())
        if dropout and any(not t.alone for t in tried):
            yield "trials that were trained together had dropout masks of their own: eg.train draws others"


def _fitting(joined: Joined) -> int:
    """How many runs like this fit into the budget: weights, gradients, the optimizer's memory and what a step needs beside them."""
    bytes_each = sum(p.numel() * p.element_size() for p in joined.rig.model.parameters())
    return max(1, _BUDGET // (6 * bytes_each))


def _need_optuna() -> None:
    if find_spec("optuna") is None:
        raise InputError("search draws its trials with Optuna, which is not installed: pip install 'evengrad[search]'")
