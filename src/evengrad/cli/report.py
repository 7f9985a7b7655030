"""`evengrad report`: a run that is kept -> its report, without torch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evengrad.cli.options import AsJson, Baseline, Ignore, Output, Rule, Select, accepted, chosen, console_of, writable
from evengrad.cli.study import Folder
from evengrad.errors import InputError

if TYPE_CHECKING:
    from evengrad.report import Report

Kept = Annotated[str, typer.Argument(metavar="RUN", help="Name or path of a stored run; a trace saved as .npz; a report's JSON.")]


def report(
    run: Kept,
    *,
    json: AsJson = False,
    output: Output = None,
    png: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw its figures there.")] = None,
    svg: Annotated[Path | None, typer.Option(metavar="FILE.svg", help="Draw its figures there, for a paper.")] = None,
    store: Folder = None,
    select: Select = None,
    ignore: Ignore = None,
    rule: Rule = None,
    baseline: Baseline = None,
    salvage: Annotated[bool, typer.Option("--salvage", help="Leave out what is damaged in a stored run.")] = False,
) -> None:
    """Judge a run that is kept once more, and show its report."""
    settings = chosen(Path.cwd(), select=select, ignore=ignore, rules=rule or (), baseline=baseline)
    hide = accepted(settings)
    for path in (output, png, svg):
        writable(path)
    from evengrad.judge import recall

    changed = settings.select is not None or settings.ignore or settings.thresholds
    found = recall(run, directory=store, rules=settings.rules() if changed else None, salvage=salvage)
    found = hide(found)
    draw(found, (png, ".png"), (svg, ".svg"))
    show(found, json, output)


def draw(report: Report, *wanted: tuple[Path | None, str]) -> None:
    """Draws the report's figures to the files that are asked for; a file's ending must fit its kind."""
    for path, ending in wanted:
        if path is None:
            continue
        if path.suffix.lower() != ending:
            raise InputError(f"{str(path)!r} does not end with {ending}, and its ending tells what is drawn: give FILE{ending}")
        from evengrad.report.figures import save

        print(f"figures: {save(report, path).resolve()}", file=sys.stderr)


def show(report: Report, json: bool, output: Path | None) -> None:
    """Prints the report as text or JSON, and writes its page if that is asked for."""
    if output is not None:
        path = report.to_html(output)
        print(f"report: {path.resolve()}", file=sys.stderr)
    if json:
        print(report.to_json())
    else:
        from evengrad.report.text import render

        render(report, console_of())
