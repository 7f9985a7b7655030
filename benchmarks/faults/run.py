"""Cases and healthy runs -> the benchmark's figures: `python -m benchmarks.faults`."""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from benchmarks.faults import figures
from benchmarks.faults.runs import diagnosed, is_kept, kept, subjects
from benchmarks.faults.scoring import row

RESULTS = Path(__file__).parents[1] / "results" / "faults.json"


def arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--half", choices=("tuning", "reported"), help="one half; both without it")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="parts of names of cases and healthy runs")
    parser.add_argument("--healthy", action="store_true", help="healthy runs only")
    parser.add_argument("--faulty", action="store_true", help="cases only")
    parser.add_argument("--cache", type=Path, default=Path("/tmp/evengrad-faults"), help="folder for traces and reports")
    parser.add_argument("--fresh", action="store_true", help="train again what the folder has")
    parser.add_argument("--untimed", action="store_true", help="leave out the plain training that the cost is measured against")
    parser.add_argument("--rejudge", action="store_true", help="judge the folder's traces by the rules of today, without training")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="seed of the cases' weights and order")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/faults.json")
    return parser.parse_args()


def main() -> None:
    """Runs what is not in the folder yet, judges it all and prints the figures."""
    options = arguments()
    os.nice(5)
    found = subjects(options.half, faulty=not options.healthy, healthy=not options.faulty, only=tuple(options.only))
    missing = [] if options.rejudge else [s for s in found if options.fresh or not is_kept(s, options.cache)]
    with ProcessPoolExecutor(options.workers) as pool:
        for line in pool.map(partial(diagnosed, cache=options.cache, seed=options.seed, timed=not options.untimed), [s.name for s in missing]):
            print(line, flush=True)
    rows = [row(s, kept(s, options.cache, rejudge=options.rejudge)) for s in found if is_kept(s, options.cache)]
    if not rows:
        raise SystemExit("nothing to judge: no case of this name, or none in the folder")
    summary = figures.summary(rows)
    print(figures.text(summary, rows))
    if options.write:
        command = "python -m benchmarks.faults " + " ".join(sys.argv[1:])
        figures.write(RESULTS, command.strip(), summary, rows)
