"""`evengrad watch train.py --epochs 3`: a training script as it is -> the same script, watched, and a report."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evengrad.cli.options import AsJson, Baseline, Ignore, Output, Rule, Select, accepted, chosen, console_of, writable
from evengrad.cli.study import Folder
from evengrad.errors import InputError

if TYPE_CHECKING:
    from evengrad.report import Report

Command = Annotated[list[str], typer.Argument(metavar="SCRIPT.py [ARGS]...", help="The script, and what it is told.")]
Guard = Annotated[str | None, typer.Option(help="What to do about a bad step: warn, clip, skip, rollback or stop.")]
Every = Annotated[int | None, typer.Option(min=1, help="Steps between looks; spaced and within 1% of the time without it.")]
Sink = Annotated[list[str] | None, typer.Option(help="Another place to write to: tensorboard, csv or parquet; may be repeated.")]
Name = Annotated[str | None, typer.Option(help="What the run is called; the script's name otherwise.")]


def watch(
    command: Command,
    *,
    json: AsJson = False,
    output: Output = None,
    store: Folder = None,
    guard: Guard = None,
    every: Every = None,
    sink: Sink = None,
    name: Name = None,
    select: Select = None,
    ignore: Ignore = None,
    rule: Rule = None,
    baseline: Baseline = None,
    live: Annotated[bool, typer.Option(help="Show a panel while it trains, on a terminal.")] = True,
) -> None:
    """Run a training script as it is, watched; what follows the script's name is the script's."""
    path = Path(command[0])
    if not path.is_file():
        raise InputError(f"there is no script {command[0]!r}; expected a Python file, such as: evengrad watch train.py --epochs 3")
    settings = chosen(path, select=select, ignore=ignore, rules=rule or (), baseline=baseline)
    hide = accepted(settings)
    writable(output)
    from evengrad.monitor.guards import resolved
    from evengrad.monitor.script import Script, run_script
    from evengrad.sinks import resolved as resolved_sinks
    from evengrad.store import default_folder

    resolved(guard)  # wrong names are told before the script runs
    resolved_sinks(sink or ())
    options: dict[str, Any] = {"guard": guard, "every": every, "sinks": tuple(sink or ()), "live": live and not json}
    options |= {"rules": settings.rules(), "select": settings.select, "ignore": settings.ignore}
    script = Script(name=name or path.stem, store=store or default_folder(), **options)
    try:
        run_script(path, command[1:], script)
    except Exception as error:  # the script's own: shown as Python shows it
        traceback.print_exception(error.with_traceback(_of_script(error.__traceback__, path)))
        raise typer.Exit(1) from None
    finally:
        _tell(script, json, output, hide)


def _of_script(frames: TracebackType | None, path: Path) -> TracebackType | None:
    """The traceback from the script's own first line on."""
    found = frames
    while found is not None and Path(found.tb_frame.f_code.co_filename) != path:
        found = found.tb_next
    return found or frames


def _tell(script: object, json: bool, output: Path | None, hide: Callable[[Report], Report]) -> None:
    """Prints the report of every training that was found, also when the script has ended with an error."""
    from evengrad.monitor.script import Script

    assert isinstance(script, Script)
    if not script.monitors:
        print("evengrad: no optimizer with a model of its own took a step: nothing was seen", file=sys.stderr)
        return
    for number, monitor in enumerate(script.monitors):
        report = hide(monitor.report())
        if output is not None:
            place = output if not number else output.with_stem(f"{output.stem}-{number + 1}")
            print(f"report: {report.to_html(place).resolve()}", file=sys.stderr)
        if json:
            print(report.to_json())
        else:
            from evengrad.report.text import render

            render(report, console_of(stderr=True))
        if monitor.path is not None:
            print(f"run: {monitor.path}", file=sys.stderr)
