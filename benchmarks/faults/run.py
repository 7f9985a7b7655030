"""Cases and healthy runs -> the benchmark's figures: `python -m benchmarks.faults`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.faults import figures
from benchmarks.faults.base import HALVES, Case
from benchmarks.faults.healthy import Healthy
from benchmarks.faults.runs import diagnosed, is_kept, kept, limited, subjects
from benchmarks.faults.scoring import row

RESULTS = Path(__file__).parents[1] / "results"


def arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--half", choices=HALVES, help="one half; all of them without it")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="parts of names of cases and healthy runs")
    parser.add_argument("--healthy", action="store_true", help="healthy runs only")
    parser.add_argument("--faulty", action="store_true", help="cases only")
    parser.add_argument("--cache", type=Path, default=Path("/tmp/evengrad-faults"), help="folder for traces and reports")
    parser.add_argument("--fresh", action="store_true", help="train again what the folder has")
    parser.add_argument("--untimed", action="store_true", help="leave out the plain training that the cost is measured against")
    parser.add_argument("--rejudge", action="store_true", help="judge the folder's traces by the rules of today, without training")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="seed of the cases' weights and order")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/faults_HALF.json")
    return parser.parse_args()


def _rows(found: list[Case | Healthy], options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for subject in found:
        try:
            with limited(60, subject.name):
                yield row(subject, kept(subject, options.cache, rejudge=options.rejudge))
        except TimeoutError as error:
            print(error)


def main() -> None:
    """Runs what is not in the folder yet, judges it all and prints the figures."""
    options = arguments()
    os.nice(5)
    found = subjects(options.half, faulty=not options.healthy, healthy=not options.faulty, only=tuple(options.only))
    missing = [] if options.rejudge else [s for s in found if options.fresh or not is_kept(s, options.cache)]
    with ProcessPoolExecutor(options.workers) as pool:
        watched = partial(diagnosed, cache=options.cache, seed=options.seed, timed=not options.untimed)
        for done in as_completed([pool.submit(watched, s.name) for s in missing]):
            print(done.exception() or done.result(), flush=True)
    rows = list(_rows([s for s in found if is_kept(s, options.cache)], options))
    if not rows:
        raise SystemExit("nothing to judge: no case of this name, or none in the folder")
    summary = figures.summary(rows)
    print(figures.text(summary, rows))
    if options.write:
        command = "python -m benchmarks.faults " + " ".join(a for a in sys.argv[1:] if a not in {"--cache", str(options.cache)})
        for half, found_of in summary.items():
            figures.write(RESULTS / f"faults_{half}.json", command.strip(), {half: found_of}, [row for row in rows if row["half"] == half])
