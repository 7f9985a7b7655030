"""A case -> whether its fault really bites: faulty program and healthy twin trained side by side, on three seeds.

    python -m benchmarks.faults.biting [--only NAME…] [--workers 2]     # writes benchmarks/results/faults_cases.json

A seed bites if a loss is not finite, or the score on the test set (accuracy, or the share of variance explained) loses at least a
quarter of what the twin gained over the best constant answer, or the program needs at least three times the twin's steps to come to
four fifths of that gain. Faults of numbers (NaN in the data, a loss without a floor) bite by losses that are not finite only. A case
bites if two of three seeds do; others are no cases.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

import evengrad as eg
from benchmarks.faults.base import Case, Program, chance, score
from benchmarks.faults.cases import candidates
from benchmarks.faults.programs import PROGRAMS
from evengrad.errors import EvengradError
from evengrad.rig import Rig
from evengrad.trace.batch import Batch

RESULTS = Path(__file__).parents[1] / "results" / "faults_cases.json"
SEEDS = (0, 1, 2)
FRACTIONS = (0.02, 0.04, 0.06, 0.08, 0.1, *(k / 20 for k in range(3, 21)))  # of the steps, where the score is taken
LOST = 0.25  # share of the twin's gain
SLOWER = 3.0  # times the twin's steps to LEVEL
LEVEL = 0.8  # share of the twin's gain
ENOUGH = 2  # seeds
NUMERIC = {"data_nan", "unstable_loss"}  # causes that bite by values that are not finite only


@dataclass(frozen=True)
class Track:
    """The score of one training at each of `FRACTIONS` of its steps, and the first step whose loss is not finite (or None)."""

    steps: int
    scores: tuple[float, ...]
    broken: int | None


class _Scores:
    """A `Watcher` that takes the score now and then."""

    def __init__(self, program: Program) -> None:
        self.program, self.split = program, program.split()
        self.at = [max(1, math.ceil(f * program.steps())) for f in FRACTIONS]
        self.scores: dict[int, float] = {}

    def before(self, rig: Rig, batch: Batch) -> None:
        pass

    def after(self, rig: Rig, batch: Batch, loss: Any) -> None:
        if rig.step in self.at:
            self.scores[rig.step] = score(rig.model, self.split, self.program.metric)


def track(program: Program, seed: int) -> Track:
    """Trains once and returns how the score went; after a loss that is not finite it is 0."""
    watcher = _Scores(program)
    result = eg.train(program.experiment(), seed=seed, watcher=watcher)
    finite = np.isfinite(result.losses)
    broken = None if finite.all() else int(np.argmin(finite))
    scores = tuple(watcher.scores.get(step, 0.0) if broken is None or step <= broken else 0.0 for step in watcher.at)
    return Track(program.steps(), scores, broken)


@cache
def twin_track(name: str, seed: int) -> Track:
    """The track of a healthy program."""
    return track(PROGRAMS[name], seed)


def verdict(case: Case, seeds: Iterable[int] = SEEDS) -> dict[str, Any]:
    """Trains the case and its twin, and returns figures and verdict as plain values."""
    base = chance(case.twin.split())
    pairs: list[tuple[Track, Track]] = []
    bitten: list[bool] = []
    for seed in seeds:
        if max(sum(bitten), len(bitten) - sum(bitten)) >= ENOUGH:
            break  # two seeds agree: the third cannot change the verdict
        pairs.append((track(case.program, seed), twin_track(case.twin.name, seed)))
        bitten.append(_bites(*pairs[-1], base))
    at = _bites_at(pairs, base)
    if case.cause in NUMERIC:
        bitten = [faulty.broken is not None for faulty, _ in pairs]
    return {
        "bites": sum(bitten) >= min(ENOUGH, len(bitten)),
        "seeds_bitten": sum(bitten),
        "faulty": [round(faulty.scores[-1], 3) for faulty, _ in pairs],
        "twin": [round(twin.scores[-1], 3) for _, twin in pairs],
        "chance": round(base, 3),
        "broken": [faulty.broken for faulty, _ in pairs],
        "steps": case.program.steps(),
        "bites_at": at,
        "early": at is not None and at <= 0.1 * case.program.steps(),
    }


def _bites(faulty: Track, twin: Track, base: float) -> bool:
    gain = twin.scores[-1] - base
    if faulty.broken is not None or twin.scores[-1] - faulty.scores[-1] >= LOST * gain:
        return True
    wanted = base + LEVEL * gain
    return faulty.steps == twin.steps and _first(faulty, wanted) >= SLOWER * _first(twin, wanted)


def _first(found: Track, wanted: float) -> float:
    """The first of the steps at which the score is this good; infinite if there is none."""
    good = [f * found.steps for f, s in zip(FRACTIONS, found.scores, strict=True) if s >= wanted]
    return good[0] if good else math.inf


def _bites_at(pairs: list[tuple[Track, Track]], base: float) -> int | None:
    """The first step by which two seeds show it: a loss is not finite, or the score lags by a quarter of the twin's gain."""
    when = []
    for faulty, twin in pairs:
        gain = twin.scores[-1] - base
        lags = [f for f, a, b in zip(FRACTIONS, faulty.scores, twin.scores, strict=True) if b - a >= LOST * gain]
        steps = [math.ceil(lags[0] * faulty.steps)] if lags else []
        when.append(min([*steps, *([] if faulty.broken is None else [faulty.broken + 1])], default=math.inf))
    found = sorted(when)[min(ENOUGH, len(when)) - 1]
    return None if math.isinf(found) else int(found)


def stored() -> dict[str, Any]:
    """Returns the verdicts that are kept, by case."""
    return dict(json.loads(RESULTS.read_text())["cases"]) if RESULTS.exists() else {}


def cases(half: str | None = None) -> list[Case]:
    """Returns the cases that bite (and those without a verdict yet), of one half or of both."""
    kept = stored()
    return [c for c in candidates().values() if kept.get(c.name, {"bites": True})["bites"] and half in {None, c.half}]


def _one(name: str) -> tuple[str, dict[str, Any]]:
    torch.set_num_threads(1)
    try:
        return name, verdict(candidates()[name])
    except EvengradError as error:
        return name, {"bites": False, "error": str(error)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="*", default=[], help="beginnings or parts of names of cases")
    parser.add_argument("--new", action="store_true", help="leave out those with a verdict")
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    kept = {name: found for name, found in stored().items() if name in candidates()}
    wanted = [n for n in candidates() if (not arguments.only or any(o in n for o in arguments.only)) and not (arguments.new and n in kept)]
    wanted.sort(key=lambda n: n.rpartition("/")[2])  # of one program together: a twin is trained once
    os.nice(5)
    with ProcessPoolExecutor(arguments.workers) as pool:
        for name, found in pool.map(_one, wanted, chunksize=4):
            kept = stored() | kept
            kept[name] = found | {"also": kept.get(name, {}).get("also", [])}
            scores = f"{found.get('faulty')} twin {found.get('twin')} at {found.get('bites_at')}"
            print(f"{'bites' if found['bites'] else 'NO   '} {name}: {scores}", flush=True)
            save(kept)


def save(kept: dict[str, Any]) -> None:
    """Writes the verdicts of what is a candidate, a case a line."""
    kept = {name: found for name, found in kept.items() if name in candidates()}
    lines = [f"  {json.dumps(name)}: {json.dumps(found)}" for name, found in sorted(kept.items())]
    head = {"command": "python -m benchmarks.faults.biting", "torch": torch.__version__, "seeds": list(SEEDS)}
    top = [f" {json.dumps(k)}: {json.dumps(v)}," for k, v in head.items()]
    RESULTS.write_text("\n".join(["{", *top, ' "cases": {', ",\n".join(lines), " }", "}"]) + "\n")


if __name__ == "__main__":
    main()
