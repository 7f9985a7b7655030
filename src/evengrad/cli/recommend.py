"""`evengrad recommend FILE.py:NAME`: activation, initialiser, norm and rate ranked for this network by short trials."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evengrad.cli.options import AsJson, Device, Seconds, Target, console_of, progress, shown_as


def recommend(
    target: Target,
    *,
    json: AsJson = False,
    device: Device = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds that the last options are trained on.")] = 3,
    max_seconds: Seconds = None,
    workers: Annotated[int, typer.Option(min=1, help="Trainings at a time, each in a process of its own.")] = 1,
    keep: Annotated[Path | None, typer.Option(metavar="FILE", help="Keep finished trainings there, and go on from them.")] = None,
) -> None:
    """Rank activations, initialisers, norms and rates for this network and data by short trials."""
    from evengrad.cli.load import load_experiment
    from evengrad.recommendation import recommend as run
    from evengrad.recommendation.text import render

    experiment = load_experiment(target, device)
    with progress(json) as say:
        found = run(experiment, seeds=seeds, max_seconds=max_seconds, progress=say, workers=workers, keep=keep, name=shown_as(target))
    if json:
        print(found.to_json())
    else:
        render(found, console_of())
