"""`evengrad report`: a run that is kept -> its report, without torch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evengrad.cli.options import AsJson, Output, console_of, writable
from evengrad.cli.study import Folder

if TYPE_CHECKING:
    from evengrad.report import Report

Kept = Annotated[str, typer.Argument(metavar="RUN", help="Name or path of a stored run; a trace saved as .npz; a report's JSON.")]
Select = Annotated[list[str] | None, typer.Option(help="Codes, or beginnings of codes, to look for; may be repeated.")]
Ignore = Annotated[list[str] | None, typer.Option(help="Codes, or beginnings of codes, to leave out; may be repeated.")]


def report(
    run: Kept,
    *,
    json: AsJson = False,
    output: Output = None,
    store: Folder = None,
    select: Select = None,
    ignore: Ignore = None,
    salvage: Annotated[bool, typer.Option("--salvage", help="Leave out what is damaged in a stored run.")] = False,
) -> None:
    """Judge a run that is kept once more, and show its report."""
    writable(output)
    from evengrad.judge import chosen_rules, recall

    rules = chosen_rules(None, select, ignore) if select or ignore else None
    show(recall(run, directory=store, rules=rules, salvage=salvage), json, output)


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
