"""Faulty programs -> how far one gets without a diagnosis: `python -m benchmarks.faults.baselines`.

    python -m benchmarks.faults.baselines --half reported --workers 2 --write     # benchmarks/results/faults_baselines_reported.json

Every remedy that can be applied to a program is trained once to the end, in its best option, whatever was found. From that follow, on the
same programs and with the same bar as `benchmarks.faults.fixing`:

- `random`: the chance that one of k remedies, drawn without return, restores the program (Kim et al. 2021 call it random search);
- `fixed_order`: the share restored by the first k remedies of the best fixed order. It is found greedily on these very programs, so it is
  an upper bound of any order that somebody could have written down before.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

import torch

from benchmarks.faults.base import HALVES, chance
from benchmarks.faults.biting import cases, twin_track
from benchmarks.faults.fixing import LIMIT, RESTORED, scored, write
from benchmarks.faults.runs import limited
from evengrad.errors import EvengradError
from evengrad.examine import diagnose_run
from evengrad.remedies import discovered
from evengrad.types import Finding, Proposal, Trace

TRIES = (1, 3, 8, 9)


def applicable(trace: Trace) -> list[Proposal]:
    """Returns what each remedy would do first to this program, whatever its trace shows: one proposal a remedy."""
    found = []
    for remedy in discovered().values():
        reasons = [(s, None) for s in remedy.symptoms] + [(None, c) for c in remedy.causes]
        for word, cause in reasons:
            symptom = None if word is None or word[-1].isdigit() else word
            finding = Finding(
                code=word if word is not None and symptom is None else "ANY000",
                symptom=symptom,
                severity="error",
                message="a remedy is tried for its own sake",
                where=tuple(layer.name for layer in trace.layers),
                cause=cause,
            )
            try:
                first = next(iter(remedy().propose(finding, trace)), None)
            except (EvengradError, IndexError, KeyError, StopIteration):
                first = None
            if first is not None:
                found.append(first)
                break
    return found


def tried(name: str, *, seed: int = 0) -> dict[str, Any]:
    """Trains one case with each applicable remedy, and says which restore it."""
    torch.set_num_threads(1)
    case = next(c for c in cases() if c.name == name)
    base, twin = chance(case.twin.split()), twin_track(case.twin.name, seed).scores[-1]
    wanted = base + RESTORED * (twin - base)
    with limited(LIMIT, name):
        trace = diagnose_run(case.program.experiment(), [], seed=seed, causes=False)[0].trace
        assert trace is not None
        scores = {p.remedy: scored(case, [p], seed) for p in applicable(trace)}
    return {"name": name, "cause": case.cause, "remedies": len(scores), "restore": sorted(r for r, s in scores.items() if s >= wanted)}


def by_chance(row: dict[str, Any], tries: int) -> float:
    """The chance that one of so many remedies, drawn without return, is one that restores the program."""
    n, good = row["remedies"], len(row["restore"])
    return 1.0 - math.comb(n - good, min(tries, n)) / math.comb(n, min(tries, n))


def best_order(rows: Sequence[dict[str, Any]], tries: int) -> list[str]:
    """The order that restores most programs at each place, greedily."""
    left, order = list(rows), []
    for _ in range(tries):
        counts: dict[str, int] = {}
        for row in left:
            for remedy in row["restore"]:
                counts[remedy] = counts.get(remedy, 0) + 1
        if not counts:
            break
        order.append(max(sorted(counts), key=lambda r: counts[r]))
        left = [row for row in left if order[-1] not in row["restore"]]
    return order


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Shares of the programs that random repair and the best fixed order bring back."""
    order = best_order(rows, max(TRIES))
    return {
        "cases": len(rows),
        "remedies_median": sorted(row["remedies"] for row in rows)[len(rows) // 2],
        "random": {k: round(sum(by_chance(row, k) for row in rows) / len(rows), 3) for k in TRIES},
        "fixed_order": {k: round(sum(bool(set(order[:k]) & set(row["restore"])) for row in rows) / len(rows), 3) for k in TRIES},
        "order": order,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--half", choices=HALVES, default="reported")
    parser.add_argument("--every", type=int, default=1, help="take every n-th case")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    os.nice(5)
    rows = []
    with ProcessPoolExecutor(options.workers) as pool:
        for done in as_completed([pool.submit(tried, c.name) for c in cases(options.half)[:: options.every]]):
            if done.exception() is not None:
                print(done.exception(), flush=True)
                continue
            rows.append(done.result())
            print(
                f"{rows[-1]['name']}: {len(rows[-1]['restore'])} of {rows[-1]['remedies']} ({', '.join(rows[-1]['restore'])})", flush=True
            )
    rows.sort(key=lambda row: row["name"])
    found = summary(rows)
    print(json.dumps(found, indent=1))
    if options.write:
        write("baselines", options.half, found, rows)


if __name__ == "__main__":
    main()
