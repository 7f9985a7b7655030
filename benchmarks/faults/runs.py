"""A case or a healthy run -> its trace, its report and what they cost, kept in a folder so that traces can be judged again."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import evengrad as eg
from benchmarks.faults.base import Case, Program, score
from benchmarks.faults.biting import cases
from benchmarks.faults.cases import candidates
from benchmarks.faults.healthy import Healthy, runs
from evengrad.examine import diagnose_run
from evengrad.judge import chosen_rules, report_of
from evengrad.report import Report
from evengrad.types import Trace

LIMIT = 600  # seconds that one run may take


@dataclass(frozen=True)
class Kept:
    """What is kept of one run: its report as `diagnose` gave it, and seconds, steps and score."""

    report: Report
    trace: Trace
    meta: dict[str, Any]


def subjects(half: str | None, *, faulty: bool = True, healthy: bool = True, only: tuple[str, ...] = ()) -> list[Case | Healthy]:
    """Returns the cases that bite and the healthy runs, of one half or of both."""
    found: list[Case | Healthy] = [*(cases(half) if faulty else []), *(r for r in runs().values() if healthy and half in {None, r.half})]
    return [s for s in found if not only or any(o in s.name for o in only)]


def subject(name: str) -> Case | Healthy:
    """Returns the case or healthy run of this name."""
    found: Case | Healthy = runs()[name] if name in runs() else candidates()[name]
    return found


@contextmanager
def limited(seconds: int, name: str) -> Iterator[None]:
    """Ends what takes too long, so that one run cannot hold up the others."""

    def stop(signum: int, frame: object) -> None:
        raise TimeoutError(f"{name} took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def diagnosed(name: str, cache: Path, seed: int = 0, timed: bool = True) -> str:
    """Diagnoses the subject, and trains it bare if it is to be timed, and keeps what came; returns a line that says what it was."""
    torch.set_num_threads(1)
    with limited(LIMIT, name):
        return _diagnosed(name, cache, seed, timed)


def _diagnosed(name: str, cache: Path, seed: int, timed: bool) -> str:
    found = subject(name)
    program: Program = found.program
    seed = found.seed if isinstance(found, Healthy) else seed
    started = time.perf_counter()
    if timed:
        eg.train(program.experiment(), seed=seed)
    plain = time.perf_counter() - started if timed else None
    started = time.perf_counter()
    report, result = diagnose_run(program.experiment(), chosen_rules(), seed=seed)  # what eg.diagnose does, with the network
    seconds = time.perf_counter() - started
    assert report.trace is not None
    cache.mkdir(parents=True, exist_ok=True)
    report.trace.save(cache / f"{found.file}.npz")
    (cache / f"{found.file}.json").write_text(report.to_json())
    meta = {
        "name": name,
        "half": found.half,
        "kind": program.kind,
        "steps": program.steps(),
        "seed": seed,
        "plain_seconds": None if plain is None else round(plain, 3),
        "seconds": round(seconds, 3),
        "score": round(score(result.model, program.split(), program.metric), 4),
    }
    (cache / f"{found.file}.meta.json").write_text(json.dumps(meta))
    codes = ", ".join(f"{f.code}" for f in report.findings if f.severity != "note") or "nothing"
    return f"{name}: {codes}; causes {', '.join(report.causes) or 'none'} ({seconds:.1f} s)"


def is_kept(found: Case | Healthy, cache: Path) -> bool:
    """True if the folder has this run."""
    return (cache / f"{found.file}.meta.json").exists()


def kept(found: Case | Healthy, cache: Path, *, rejudge: bool) -> Kept:
    """Returns what the folder has of a run; judged again by the rules of today, by direct evidence alone, if asked for."""
    trace = Trace.load(cache / f"{found.file}.npz")
    meta = json.loads((cache / f"{found.file}.meta.json").read_text())
    report = report_of(trace, chosen_rules()) if rejudge else Report.from_json((cache / f"{found.file}.json").read_text())
    return Kept(report, trace, meta)
