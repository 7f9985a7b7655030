"""`evengrad fix FILE.py:NAME`: the changes tried as they come, then the report, and the file changed where asked."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evengrad.cli.options import (
    AsJson,
    Device,
    Ignore,
    Output,
    Rule,
    Seconds,
    Select,
    Target,
    chosen,
    console_of,
    folder_of,
    progress,
    shown_as,
    writable,
)
from evengrad.cli.report import show
from evengrad.errors import InputError

if TYPE_CHECKING:
    from evengrad.report import Report

_REFRESHES = 8  # a second


def fix(
    target: Target,
    *,
    json: AsJson = False,
    output: Output = None,
    device: Device = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds that a change is proved on.")] = 3,
    select: Select = None,
    ignore: Ignore = None,
    rule: Rule = None,
    max_seconds: Seconds = None,
    max_remedies: Annotated[int, typer.Option(min=1, help="Largest number of changes in a set.")] = 3,
    workers: Annotated[int, typer.Option(min=1, help="Trainings at a time, each in a process of its own.")] = 1,
    keep: Annotated[Path | None, typer.Option(metavar="FILE", help="Keep finished trainings there, and go on from them.")] = None,
    write: Annotated[bool, typer.Option("--write", help="Change FILE.py; the file as it was stays beside it as FILE.py.orig.")] = False,
) -> None:
    """Find the smallest change that provably works, by trials over seeds, and show it as code."""
    settings = chosen(folder_of(target), select=select, ignore=ignore, rules=rule or ())
    writable(output)
    from evengrad.cli.load import load_experiment
    from evengrad.patching import write as write_patch
    from evengrad.repair import fix as run

    experiment = load_experiment(target, device)
    file, _, name = target.partition(":")
    with _shown_live(json) as (say, live):
        result = run(
            experiment,
            seeds=seeds,
            max_seconds=max_seconds,
            max_remedies=max_remedies,
            rules=settings.rules(),
            select=settings.select,
            ignore=settings.ignore,
            progress=say,
            live=live,
            keep=keep,
            workers=workers,
            name=shown_as(target),
            source=(Path(file), name or "experiment"),
        )
    show(result.report, json, output)
    if write and result.changes.files:
        for path in result.changes.files:
            kept = path.with_name(f"{path.name}.orig")
            if kept.exists():
                raise InputError(f"{kept} is there already: {path.name} was not changed. Move it away, and fix again")
            kept.write_bytes(path.read_bytes())
        write_patch(result.changes)
        print(f"changed: {', '.join(str(p) for p in result.changes.files)} (as it was: .orig)", file=sys.stderr)
    raise typer.Exit(0 if result.verdict in {"fixed", "nothing_wrong"} else 1)


@contextmanager
def _shown_live(quiet: bool) -> Iterator[tuple[Callable[[str], None], Callable[[Report], None]]]:
    """On a terminal the table of trials as it grows, and what is being done; lines on stderr otherwise."""
    console = console_of(stderr=True)
    if quiet or not console.is_terminal or console.options.ascii_only:
        with progress(quiet) as say:
            yield say, lambda _report: None
        return
    from rich.console import Group
    from rich.live import Live
    from rich.spinner import Spinner
    from rich.table import Table
    from rich.text import Text

    from evengrad.report.text import trials_table
    from evengrad.report.trials import trials

    spinner = Spinner("dots", Text("starting"))
    tables: list[Table] = []
    with Live(spinner, console=console, transient=True, refresh_per_second=_REFRESHES) as shown:

        def say(line: str) -> None:
            spinner.update(text=Text(line, overflow="ellipsis", no_wrap=True))

        def live(report: Report) -> None:
            found = trials(report)
            tables[:] = [] if found is None else [trials_table(found, console.width)]
            shown.update(Group(*tables, spinner))

        yield say, live
