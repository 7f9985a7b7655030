"""`evengrad study list | run | show | compare`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evengrad.cli.options import AsJson, Device, Output, console_of, writable

if TYPE_CHECKING:
    from evengrad.lab.result import StudyResult
    from evengrad.lab.running import Plan, Progress

commands = typer.Typer(
    help="Compare models, activations, initialisers, depths … over seeds: declared, resumable, run once.", no_args_is_help=True
)

Folder = Annotated[
    Path | None, typer.Option("--store", metavar="DIR", help="Folder of the store; else EVENGRAD_STORE, else your data folder.")
]
Reference = Annotated[str, typer.Argument(metavar="NAME[@N]", help="Last run of a study; its N-th run; DIR:NAME for another store's.")]
_SECONDS_BETWEEN_LINES = 5.0


@commands.command("list")
def list_studies(*, json: AsJson = False, store: Folder = None) -> None:
    """List the studies: what each asks, its full size, when it last ran."""
    from evengrad.lab.recall import number_of
    from evengrad.lab.rows import Store
    from evengrad.lab.studies import discovered

    lines = []
    with Store(store, create=False) as kept:
        for kind in sorted(discovered().values(), key=number_of):
            runs = kept.runs(kind.name)
            last = f"{runs[-1].finished[:10]}{', quick' if runs[-1].quick else ''}" if runs else ""
            lines.append((kind.number, kind.name, kind.question, len(kind().cells()), last))
    if json:
        import json as encoder

        print(
            encoder.dumps([dict(zip(("number", "name", "question", "cells", "last_run"), line, strict=True)) for line in lines], indent=2)
        )
    else:
        _table(["", "name", "question", "cells", "last run"], [[str(cell) for cell in line] for line in lines])


@commands.command()
def run(
    name: Annotated[str, typer.Argument(metavar="NAME|FILE.py", help="Name of a study, or the file of your own.")],
    *,
    quick: Annotated[bool, typer.Option("--quick", help="A small size, done in seconds.")] = False,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUES", help="Change a factor, such as depth=1,2,5; may be repeated.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Number of seeds an arm.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; else one a core, or one for --quick or on a GPU.")] = None,
    chunk: Annotated[int | None, typer.Option(min=1, help="Networks trained as one, where the study does that.")] = None,
    device: Device = None,
    store: Folder = None,
    resume: Annotated[bool, typer.Option("--resume/--no-resume", help="Use what is stored, or compute it all again.")] = True,
    json: AsJson = False,
    output: Output = None,
) -> None:
    """Run a study: what is stored is not computed again; Ctrl-C stops, the same command goes on."""
    _pages(output)
    from evengrad.lab.factors import parse
    from evengrad.lab.running import Plan, find

    kind = find(name)
    given = {"seeds": seeds, "chunk": chunk, "device": device}
    plan = Plan(kind, parse(kind, set_ or []) | {k: v for k, v in given.items() if v is not None})
    with _told(quiet=json) as tell:
        result = plan.run(quick=quick, resume=resume, workers=workers or _workers(plan, quick), store=store, progress=tell)
    _show(result, json, output)


@commands.command()
def show(
    name: Reference,
    *,
    store: Folder = None,
    json: AsJson = False,
    output: Output = None,
    figures: Annotated[Path | None, typer.Option(metavar="DIR", help="Write each picture there as a file of its own.")] = None,
) -> None:
    """Show a finished run again, without running it."""
    _pages(output)
    from evengrad.lab.recall import recall

    result = recall(name, store)
    if figures is not None:
        from evengrad.lab.page import write_pictures

        for path in write_pictures(result, figures):
            print(f"picture: {path.resolve()}", file=sys.stderr)
    _show(result, json, output)


@commands.command()
def compare(first: Reference, second: Reference, *, store: Folder = None, json: AsJson = False) -> None:
    """Put two finished runs side by side: the arms that both have, medians, and how far the seeds overlap."""
    from evengrad.lab.comparison import compared
    from evengrad.lab.recall import recall

    found = compared(recall(first, store), recall(second, store), (first, second))
    if json:
        print(found.to_json())
        return
    for factor, (one, other) in found.factors.items():
        print(f"{factor}: {one} in {first}, {other} in {second}")
    _table(found.header(), found.texts())


def _show(result: StudyResult, json: bool, output: Path | None) -> None:
    if output is not None:
        print(f"page: {result.to_html(output).resolve()}", file=sys.stderr)
    if json:
        print(result.to_json())
        return
    print(f"{result.study.question}\n\n{result.answer}\n")
    _table(result.table.header, result.table.texts())
    from evengrad.lab.page import facts

    print(f"median [10%, 90%] over seeds; {facts(result)['time']}, finished {result.run.finished}")


def _table(header: Sequence[str], lines: Sequence[Sequence[str]] | Iterator[list[str]]) -> None:
    from rich import box
    from rich.table import Column, Table
    from rich.text import Text

    table = Table(*(Column(Text(name, style="dim")) for name in header), box=box.SIMPLE, pad_edge=False)
    for line in lines:
        table.add_row(*map(Text, line))
    console = console_of()
    if not console.is_terminal:  # a file has no edge
        console = console_of(width=console_of(width=10_000).measure(table).maximum)
    console.print(table)


def _pages(output: Path | None) -> None:
    """Looks whether the page can be drawn and written, before any work is done for it."""
    writable(output)
    if output is not None:
        from evengrad.lab.figures import panels

        panels()


def _workers(plan: Plan, quick: bool) -> int:
    if quick or not getattr(plan.study(quick=quick), "device", "cpu").startswith("cpu"):
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _told(quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """A bar with the time left on a terminal; elsewhere a line every few seconds; with `quiet`, notes alone."""
    console = console_of(stderr=True)
    if console.is_terminal and not quiet:
        with _bar(console) as tell:
            yield tell
    else:
        yield _Lines(quiet)


@contextmanager
def _bar(console: Any) -> Iterator[Callable[[Progress], None]]:
    from rich.progress import BarColumn, Progress, TextColumn

    with Progress(
        BarColumn(), TextColumn("{task.completed} of {task.total} cells{task.fields[left]}"), console=console, transient=True
    ) as bar:
        task = bar.add_task("", total=None, left="")

        def tell(now: Any) -> None:
            if now.note:
                console.print(now.note, markup=False, highlight=False)
            bar.update(task, completed=now.done, total=now.total, left=_left(now))

        yield tell


class _Lines:
    def __init__(self, quiet: bool) -> None:
        self._quiet, self._last = quiet, time.monotonic()

    def __call__(self, now: Progress) -> None:
        due = not self._quiet and now.done < now.total and time.monotonic() - self._last >= _SECONDS_BETWEEN_LINES
        if due and now.left is not None:
            self._last = time.monotonic()
            print(f"{now.done} of {now.total} cells{_left(now)}", file=sys.stderr, flush=True)
        if now.note:
            print(now.note, file=sys.stderr, flush=True)


def _left(now: Progress) -> str:
    from evengrad.report.numbers import seconds

    return "" if now.left is None else f", about {seconds(now.left)} left"
