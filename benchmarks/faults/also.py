"""A case -> other causes whose remedy alone brings it to 95% of its twin: what counts as an answer beside the planted cause.

    python -m benchmarks.faults.also [--only NAME…]     # adds to benchmarks/results/faults_cases.json

Each change below is made to the faulty program and trained with one seed. A change that brings the score's gain over the best constant
answer to 95% of the twin's adds its cause to the case's `also`.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable

import torch

import evengrad as eg
from benchmarks.faults import steps
from benchmarks.faults.base import Program, chance, score
from benchmarks.faults.biting import cases, save, stored, twin_track
from benchmarks.faults.programs import warm_up
from evengrad.errors import EvengradError

RESTORED = 0.95  # of the twin's gain over the best constant answer
SEED = 0


def _clipped(program: Program) -> Program:
    if program.train_step is not None:
        raise ValueError("the program has a step of its own")
    return program.having(train_step=steps.clipped(1.0))


REMEDIES: tuple[tuple[str, Callable[[Program], Program]], ...] = (
    ("lr_too_high", lambda p: p.having(lr=p.lr / 10)),
    ("lr_too_high", lambda p: p.having(lr=p.lr / 100)),
    ("lr_too_low", lambda p: p.having(lr=p.lr * 10)),
    ("no_grad_clip", _clipped),
    ("no_warmup", lambda p: p.having(schedule=warm_up(0.3))),
    ("undertrained", lambda p: p.having(epochs=4 * p.epochs)),
    ("batch_too_small", lambda p: p.having(batch_size=8 * p.batch_size, epochs=4 * p.epochs)),
    ("missing_normalization_layer", lambda p: p.with_net(norm="layer")),
    ("bad_hidden_activation", lambda p: p.with_net(activation="elu")),
)


def restoring(program: Program, wanted: float, causes: set[str], skip: set[str]) -> set[str]:
    """Returns the causes, of those asked for, whose remedy alone brings the program to this score."""
    split = program.split()
    found: set[str] = set()
    for cause, change in REMEDIES:
        if cause in skip | found or (causes and cause not in causes):
            continue
        try:
            result = eg.train(change(program).experiment(), seed=SEED)
        except (TypeError, ValueError, EvengradError):
            continue  # the change does not fit this program
        if not math.isnan(result.metric) and score(result.model, split, program.metric) >= wanted:
            found.add(cause)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="*", default=[], help="parts of names of cases")
    parser.add_argument("--causes", nargs="*", default=[], help="causes whose remedies are tried; all of them without it")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.nice(5)
    for case in cases():
        if arguments.only and not any(o in case.name for o in arguments.only):
            continue
        base = chance(case.twin.split())
        wanted = base + RESTORED * (twin_track(case.twin.name, SEED).scores[-1] - base)
        found = restoring(case.program, wanted, set(arguments.causes), {case.cause})
        kept = stored()
        if case.name in kept:
            kept[case.name]["also"] = sorted({*kept[case.name].get("also", []), *found})
            save(kept)
        print(f"{case.name}: {', '.join(sorted(found)) or 'nothing else'}", flush=True)


if __name__ == "__main__":
    main()
