"""Trials that ended -> a file that they are found in again, by what decides their results."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from evengrad.errors import InputError
from evengrad.lab.search.arms import Arms
from evengrad.lab.search.result import Tried
from evengrad.lab.search.space import Axis
from evengrad.lab.search.tuning import numbers_of
from evengrad.lab.search.watch import COMPLETE, DIVERGED, FAILED, End
from evengrad.store import default_folder
from evengrad.trace.batch import call, scalar_loss
from evengrad.trace.capture import tensors_in
from evengrad.training import metric_name

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.storages.journal import JournalFileOpenLock
    from optuna.trial import FrozenTrial

VERSION = 1  # raise it when the same numbers would give another result
MEMORY = "memory"
_GRACE = 10  # seconds after which a lock counts as left behind by a process that was killed; a write holds it for milliseconds


class Kept:
    """The trials of one search, in a study of Optuna's that only ever holds trials that have ended.

    What is being trained is nowhere but in this process: a search that is killed leaves nothing half done behind.

    Args:
        storage: Path of a journal file, URL of a database, `memory`, or None for a journal of its own in `folder`.
        folder: Folder of the store; None for the default one.
        name: What the user calls the experiment.
        address: What decides the results of its trials.
        maximize: Whether a larger value is better.
        resume: Whether to go on from what is there; else it is thrown away.

    Raises:
        InputError: if the storage cannot be opened.
    """

    def __init__(self, storage: str | Path | None, folder: Path | None, *, name: str, address: str, maximize: bool, resume: bool) -> None:
        import optuna

        self.study_name = f"{name or 'experiment'} {address[:12]}"
        self.where = _place(storage, folder, self.study_name)
        with quiet():
            try:
                kept = _opened(self.where)
                if not resume and self.study_name in optuna.get_all_study_names(kept):
                    optuna.delete_study(study_name=self.study_name, storage=kept)
                self._study = optuna.create_study(
                    storage=kept, study_name=self.study_name, direction="maximize" if maximize else "minimize", load_if_exists=True
                )
            except InputError:
                raise
            except Exception as error:  # whatever a file, a database or a driver raises
                raise InputError(
                    f"the storage {self.where!r} cannot be used ({type(error).__name__}: {error}). Give another --storage"
                ) from error

    def trials(self) -> list[FrozenTrial]:
        """Returns all trials that have ended."""
        return self._study.get_trials(deepcopy=False)

    def add(self, trial: FrozenTrial) -> None:
        """Keeps a trial that has ended: one write."""
        with quiet():
            self._study.add_trial(trial)


def draws(
    axes: Mapping[str, Axis],
    trials: Sequence[FrozenTrial],
    count: int,
    *,
    sampler: str,
    seed: int,
    maximize: bool,
    first: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Asks Optuna's sampler what to try next, given the trials that have ended.

    The sampler starts anew each time, from `seed` and the number of trials: a search that was stopped goes on as if it had not been.

    Args:
        axes: The space.
        trials: What is known.
        count: How many are to be trained at once.
        sampler: `tpe` or `random`.
        seed: Seed of the search.
        maximize: Whether a larger value is better.
        first: What to try before all else; empty for nothing.
    """
    import optuna

    distributions = {name: found.distribution() for name, found in axes.items()}
    own = (seed * 1_000_003 + len(trials)) % 2**32
    with quiet():
        if sampler == "random":
            chosen: Any = optuna.samplers.RandomSampler(seed=own)
        else:
            chosen = optuna.samplers.TPESampler(seed=own, constant_liar=True, multivariate=True)
        study = optuna.create_study(sampler=chosen, direction="maximize" if maximize else "minimize")
        study.add_trials(trials)
        if first and not trials:
            study.enqueue_trial(dict(first))
        return [study.ask(distributions).params for _ in range(count)]


def frozen(drawn: Mapping[str, Any], axes: Mapping[str, Axis], end: End, maximize: bool, about: Mapping[str, Any]) -> FrozenTrial:
    """Returns a trial that has ended as Optuna keeps it; one that diverged is complete, with the worst value there is."""
    from optuna.trial import TrialState, create_trial

    states = {COMPLETE: TrialState.COMPLETE, DIVERGED: TrialState.COMPLETE, FAILED: TrialState.FAIL}
    values = {COMPLETE: end.metric, DIVERGED: -math.inf if maximize else math.inf}
    return create_trial(
        state=states.get(end.how, TrialState.PRUNED),
        value=values.get(end.how),
        params=dict(drawn),
        distributions={name: axis.distribution() for name, axis in axes.items()},
        user_attrs=dict(about),
        intermediate_values=end.rungs,
    )


def tried_of(trial: FrozenTrial, numbers: Mapping[str, Any]) -> Tried:
    """Reads what `frozen` wrote, given what was tried."""
    about: dict[str, Any] = dict(trial.user_attrs)
    return Tried(
        number=trial.number,
        numbers=numbers,
        metric=trial.value if about["how"] == COMPLETE and trial.value is not None else math.nan,
        rungs=dict(trial.intermediate_values),
        **about,
    )


def address(arms: Arms, axes: Mapping[str, Axis], seed: int) -> str:
    """Returns a hash of what decides the results of a search's trials, as far as that can be seen.

    That is the network as it is built and its loss on the first batch, the data, optimizer, metric, sizes, space and seed. Of code
    that runs later only the name is known.
    """
    experiment, rig = arms.experiment, arms.rig
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        batch = arms.batch.to(rig.device)
        loss = float(scalar_loss(call(rig.model, batch.inputs), batch.targets, experiment.loss_fn).detach())
    what = {
        "version": VERSION,
        "weights": [[name, list(p.shape), f"{float(p.detach().double().abs().sum()):.6g}"] for name, p in rig.model.named_parameters()],
        "loss": f"{loss:.4g}",
        "data": [_summary(part) for part in (experiment.data, experiment.validation, (arms.batch.inputs, arms.batch.targets))],
        "optimizer": [
            type(arms.optimizer).__name__,
            [numbers_of(arms.optimizer)],
            _name(experiment.scheduler),
            _name(experiment.train_step),
        ],
        "metric": [metric_name(experiment), experiment.maximize],
        "sizes": [experiment.epochs, experiment.batch_size],
        "repairs": [p.summary for p in experiment.repairs],
        "space": {name: found.describe() for name, found in axes.items()},
        "seed": seed,
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps Optuna from writing lines of its own, and from warning of what we use on purpose."""
    import optuna

    logger = logging.getLogger("optuna")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        logger.setLevel(level)


def _place(storage: str | Path | None, folder: Path | None, study: str) -> str:
    if storage is not None:
        given = str(storage)
        return given if given == MEMORY or "://" in given else str(Path(given).absolute())
    file = f"{re.sub(r'[^A-Za-z0-9]+', '-', study).strip('-')}.journal"
    return str((folder or default_folder()).absolute() / "searches" / file)


def _opened(where: str) -> BaseStorage:
    from optuna.storages import InMemoryStorage, JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    if where == MEMORY:
        return InMemoryStorage()
    if "://" in where:
        return RDBStorage(where)
    path = Path(where)
    if path.is_dir():
        raise InputError(f"the storage {where!r} is a folder; expected a file, such as {str(path / 'search.journal')!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = JournalFileOpenLock(where, grace_period=_GRACE)
    _mend(path, lock)
    return JournalStorage(JournalFileBackend(where, lock_obj=lock))


def _mend(path: Path, lock: JournalFileOpenLock) -> None:
    """Cuts off a line that a kill left half written, or the whole journal could not be read after the next one."""
    if not path.exists() or not path.stat().st_size:
        return
    lock.acquire()
    try:
        with path.open("rb+") as file:
            data = file.read()
            if not data.endswith(b"\n"):
                file.truncate(data.rfind(b"\n") + 1)
    finally:
        lock.release()


def _summary(data: Any) -> Any:
    if data is None or not isinstance(data, (tuple, list)):
        return _name(data)
    parts = list(tensors_in(tuple(torch.as_tensor(p) if not isinstance(p, torch.Tensor) else p for p in data)))
    return [[list(t.shape), f"{float(t.detach().sum(dtype=torch.float64)):.6g}"] for t in parts]


def _name(part: Any) -> str:
    return "" if part is None else getattr(part, "__name__", type(part).__name__)
