"""`NAME@N` -> the StudyResult of a finished run, without running it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from evengrad.errors import EvengradError, InputError, unknown
from evengrad.lab.factors import build
from evengrad.lab.own import load
from evengrad.lab.result import StudyResult
from evengrad.lab.rows import Run, Store
from evengrad.lab.running import find
from evengrad.lab.studies import discovered
from evengrad.lab.study import Rows, Study, canonical


def recall(reference: str, store: str | Path | None = None) -> StudyResult:
    """Returns what a finished run found.

    Args:
        reference: `NAME` for the last run of a study, `NAME@2` for its second, `FOLDER:NAME` for one in another store; in place of a
            name, the file of one's own study.
        store: Folder of the store; None for EVENGRAD_STORE, else the user's data folder.

    Raises:
        InputError: if there is no such run, or the store has lost rows of it.
    """
    folder, _, rest = reference.rpartition(":")
    name, at, place = rest.partition("@")
    with Store(Path(folder) if folder else None if store is None else Path(store), create=False) as kept:
        runs = kept.runs(load(name).name if name.endswith(".py") else name)
        if not runs:
            raise _no_run(name, kept)
        if at and not (place.isdecimal() and 1 <= int(place) <= len(runs)):
            raise InputError(f"{name!r} has {len(runs)} finished runs; expected {name}@1 to {name}@{len(runs)}, got {reference!r}")
        return restored(runs[int(place) - 1 if at else -1], kept)


def last_full(store: Store) -> list[StudyResult]:
    """Returns a run of every study in its full size, by the studies' numbers: the last of those that computed most themselves."""
    found = []
    for kind in sorted(discovered().values(), key=number_of):
        runs = [run for run in store.runs(kind.name) if not run.file and _sizes(run.fields) == _sizes(vars(kind()))]
        found += [restored(run, store) for run in sorted(runs, key=lambda run: run.computed)[-1:]]
    return found


def restored(run: Run, store: Store) -> StudyResult:
    """Returns the result of a run, from its stored rows.

    Raises:
        InputError: if rows are missing, or the study has other factors now.
    """
    kind = load(run.file) if run.file else find(run.study)
    try:
        study = build(kind, run.fields)
    except EvengradError as error:
        raise InputError(f"the study {run.study!r} was changed since that run: {error}. To run it again: {run.command}") from error
    rows = store.find(run.addresses)
    if lost := len(run.addresses) - len(rows):
        raise InputError(f"{lost} of {len(run.addresses)} rows of that run are damaged or gone; to compute them again: {run.command}")
    return StudyResult(study, Rows(rows[key] for key in run.addresses), run)


def number_of(study: type[Study]) -> tuple[str, int, str]:
    """Returns what studies are sorted by: S2 comes before S10, a study without a number last."""
    digits = study.number.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    return (study.number[: -len(digits)], int(digits), study.name) if digits.isdecimal() else ("~", 0, study.name)


def _no_run(name: str, kept: Store) -> InputError:
    known = kept.studies()
    if known and not name.endswith(".py"):
        return InputError(f"{unknown('finished run', name, known)}; in {kept.path}. To run it: evengrad study run {name}")
    return InputError(f"there is no finished run of {name!r} in {str(kept.path)!r}. To run it: evengrad study run {name}")


def _sizes(fields: Mapping[str, object]) -> str:
    return canonical({name: value for name, value in fields.items() if name not in {"chunk", "device"}})
