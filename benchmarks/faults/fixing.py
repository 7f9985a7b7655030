"""Faulty programs -> how many trainings `fix` needs to bring each to its twin: `python -m benchmarks.faults.fixing`.

    python -m benchmarks.faults.fixing --half reported --workers 2 --write     # benchmarks/results/faults_fixing_reported.json

A *try* is one set of remedies, trained once to the end. A program counts as brought back if the score's gain over the best constant answer
reaches 95% of its healthy twin's. `fix` runs with one seed, so that the order of its outcomes is the order of its tries; what it trains
for a part only (short trials) is in its seconds, and is no try.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any

import torch

import evengrad as eg
from benchmarks.faults.base import HALVES, Case, chance, score
from benchmarks.faults.biting import cases, twin_track
from benchmarks.faults.figures import wilson
from benchmarks.faults.runs import limited
from evengrad.errors import EvengradError
from evengrad.types import Proposal

RESULTS = Path(__file__).parents[1] / "results"
RESTORED = 0.95  # of the twin's gain over the best constant answer
TRIES = (1, 3, 8)
LIMIT = 900


def fixed(name: str, *, seed: int = 0) -> dict[str, Any]:
    """Fixes one case, and scores each of its tries."""
    torch.set_num_threads(1)
    case = next(c for c in cases() if c.name == name)
    split = case.twin.split()
    base, twin = chance(split), twin_track(case.twin.name, seed).scores[-1]
    wanted = base + RESTORED * (twin - base)
    experiment = case.program.experiment()
    with limited(LIMIT, name):
        began = time.perf_counter()
        plain = eg.train(experiment, seed=seed)
        plain_seconds, began = time.perf_counter() - began, time.perf_counter()
        result = eg.fix(experiment, seeds=[seed])
        seconds = time.perf_counter() - began
        tries = [scored(case, outcome.proposals, seed) for outcome in result.outcomes[: TRIES[-1]]]
        chosen = scored(case, result.chosen, seed) if result.chosen else score(plain.model, split, case.program.metric)
    return {
        "name": name,
        "cause": case.cause,
        "causes": list(result.report.causes),
        "verdict": result.verdict,
        "wanted": round(wanted, 4),
        "tries": [[" + ".join(p.summary for p in o.proposals), round(s, 4)] for o, s in zip(result.outcomes, tries, strict=False)],
        "needed": next((k for k, s in enumerate(tries, 1) if s >= wanted), None),
        "chosen": " + ".join(p.summary for p in result.chosen),
        "chosen_score": round(chosen, 4),
        "restored": bool(chosen >= wanted),
        "plain_seconds": round(plain_seconds, 3),
        "seconds": round(seconds, 3),
        "first_seconds": None if math.isnan(result.first_seconds) else round(result.first_seconds, 3),
    }


def scored(case: Case, proposals: Sequence[Proposal], seed: int) -> float:
    """The score of the program with these changes, trained once; 0 where it cannot be trained or diverges."""
    try:
        trained = eg.train(case.program.experiment().repaired(proposals), seed=seed)
    except EvengradError:
        return 0.0
    return 0.0 if math.isnan(trained.losses[-1]) else score(trained.model, case.program.split(), case.program.metric)


def summary(rows: Sequence[dict[str, Any]], lost: int = 0) -> dict[str, Any]:
    """Shares of the cases that are brought back, with intervals, and what it cost beside one plain training; `lost` took too long."""
    total = len(rows) + lost
    found: dict[str, Any] = {"cases": total, "took_too_long": lost}
    for tries in TRIES:
        hits = sum(row["needed"] is not None and row["needed"] <= tries for row in rows)
        found[f"within_{tries}"] = [round(hits / total, 3), *(round(x, 3) for x in wilson(hits, total))]
    found["chosen_restores"] = round(sum(row["restored"] for row in rows) / total, 3)
    first = [row["first_seconds"] / row["plain_seconds"] for row in rows if row["first_seconds"]]
    found["first_working_in_plain_trainings"] = round(statistics.median(first), 2) if first else None
    found["all_in_plain_trainings"] = round(statistics.median(row["seconds"] / row["plain_seconds"] for row in rows), 2)
    return found


def write(kind: str, half: str, found: dict[str, Any], rows: Sequence[dict[str, Any]]) -> None:
    """Writes results/faults_KIND_HALF.json with the command that made it."""
    command = f"python -m benchmarks.faults.{kind} " + " ".join(sys.argv[1:])
    text = json.dumps({"command": command, "torch": torch.__version__, half: found, "rows": rows}, indent=1)
    (RESULTS / f"faults_{kind}_{half}.json").write_text(text + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--half", choices=HALVES, default="reported")
    parser.add_argument("--only", nargs="*", default=[], help="parts of names of cases")
    parser.add_argument("--every", type=int, default=1, help="take every n-th case")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    os.nice(5)
    chosen = [c.name for c in cases(options.half) if not options.only or any(o in c.name for o in options.only)][:: options.every]
    rows, lost = [], 0
    with ProcessPoolExecutor(options.workers) as pool:
        for done in as_completed([pool.submit(partial(fixed, name)) for name in chosen]):
            if done.exception() is not None:
                print(done.exception(), flush=True)
                lost += 1
                continue
            row = done.result()
            rows.append(row)
            told = f"{row['verdict']}; {row['chosen'] or 'nothing'}; {row['chosen_score']} of {row['wanted']}"
            print(f"{row['name']}: {row['needed'] or 'no'} ({told})", flush=True)
    rows.sort(key=lambda row: row["name"])
    found = summary(rows, lost)
    print(json.dumps(found, indent=1))
    if options.write:
        write("fixing", options.half, found, rows)


if __name__ == "__main__":
    main()
