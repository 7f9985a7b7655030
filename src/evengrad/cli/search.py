"""`evengrad search FILE.py:experiment --trials N`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evengrad.cli.options import AsJson, Device, Output, console_of, progress, writable
from evengrad.errors import InputError, unknown

if TYPE_CHECKING:
    from evengrad.lab.search import SearchResult
    from evengrad.lab.search.run import Progress

_PRUNE = ("both", "health", "loss", "none")
_FORM = "NAME=LOW:HIGH, NAME=LOW:HIGH:log or NAME=A,B,C"


def search(
    target: Annotated[str, typer.Argument(metavar="FILE.py:NAME", help="File and the name of the Experiment in it.")],
    *,
    trials: Annotated[int, typer.Option(min=1, help="Trials in all, with those that an earlier run has kept.")] = 64,
    space: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=RANGE",
            help="What to search, such as lr=1e-4:1:log, momentum=0:0.99 or width=16,32,64; may be repeated. "
            "Without: around the experiment's own numbers.",
        ),
    ] = None,
    prune: Annotated[str, typer.Option(help="Stop trials by gradient health, by loss, by both or by none.")] = "both",
    batch: Annotated[int, typer.Option(min=1, help="Trials drawn at once and trained as one network.")] = 16,
    sampler: Annotated[str, typer.Option(help="tpe, which learns from earlier trials, or random.")] = "tpe",
    seed: Annotated[int, typer.Option(help="Seed of weights, data order and sampler.")] = 0,
    device: Device = None,
    store: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the store; else EVENGRAD_STORE, else your data folder.")
    ] = None,
    storage: Annotated[
        str | None, typer.Option(metavar="FILE|URL", help="Journal file, or database URL, to keep trials in; else a journal in the store.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume/--no-resume", help="Go on from the trials that are kept, or throw them away.")] = True,
    json: AsJson = False,
    output: Output = None,
    figures: Annotated[Path | None, typer.Option(metavar="DIR", help="Write each picture there as a file of its own.")] = None,
) -> None:
    """Look for better numbers with Optuna: many trials train as one network, sick ones are stopped early.

    Trials that have ended are kept: Ctrl-C stops, the same command goes on, a larger --trials adds to what is there.
    """
    if prune not in _PRUNE:
        raise unknown("way to prune", prune, _PRUNE)
    _drawable(output, figures)
    from evengrad.cli.load import load_experiment
    from evengrad.lab.search import Halving, Health
    from evengrad.lab.search import search as run

    found = parsed(space)
    experiment = load_experiment(target, device)
    file, _, name = target.partition(":")
    with progress(json or not sys.stderr.isatty()) as say:
        say("drawing the first trials")
        result = run(
            experiment,
            found,
            trials,
            batch=batch,
            seed=seed,
            sampler=sampler,
            health=Health() if prune in {"both", "health"} else None,
            halving=Halving() if prune in {"both", "loss"} else None,
            storage=storage,
            store=store,
            resume=resume,
            name=f"{Path(file).name}:{name or 'experiment'}",
            progress=lambda now: say(_told(now)),
        )
    if output is not None:
        print(f"report: {result.to_html(output).resolve()}", file=sys.stderr)
    if figures is not None:
        _draw(result, figures)
    if json:
        print(result.to_json())
    else:
        _show(result)


def parsed(space: list[str] | None) -> dict[str, Any] | None:
    """Reads the options `--space NAME=RANGE`; None if there is none.

    Raises:
        InputError: if one is of another form, or a name comes twice.
    """
    if not space:
        return None
    found: dict[str, Any] = {}
    for text in space:
        name, equals, written = text.partition("=")
        if not equals or not name or not written:
            raise InputError(f"--space takes {_FORM}; got {text!r}")
        if name in found:
            raise InputError(f"--space gives {name!r} twice; give it once")
        ends = written.split(":")
        if len(ends) == 1:
            found[name] = [_value(part) for part in written.split(",")]
        elif len(ends) > 3 or (len(ends) == 3 and ends[2] != "log") or any(isinstance(_value(end), str) for end in ends[:2]):
            raise InputError(f"--space takes {_FORM}, with numbers for LOW and HIGH; got {text!r}")
        else:
            found[name] = (_value(ends[0]), _value(ends[1]), *ends[2:])
    return found


def _value(text: str) -> Any:
    words: dict[str, Any] = {"none": None, "true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    if re.fullmatch(r"[+-]?\d+", text):
        return int(text)
    try:
        return float(text)
    except ValueError:
        return text


def _told(now: Progress) -> str:
    best = "" if now.best is None else f", best {now.best:.4g}"
    return f"{now.done} of {now.total} trials{best}"


def _drawable(output: Path | None, figures: Path | None) -> None:
    """Looks whether pictures can be drawn and written, before any work is done for them."""
    writable(output)
    if output is not None or figures is not None:
        from evengrad.lab.figures import panels

        panels()


def _draw(result: SearchResult, folder: Path) -> None:
    from evengrad.lab.pictures import picture

    folder.mkdir(parents=True, exist_ok=True)
    for caption, draw in result.figures.items():
        one = picture(caption, draw())
        path = folder / one.name
        path.write_bytes(one.data)
        print(f"picture: {path.resolve()}", file=sys.stderr)


def _show(result: SearchResult) -> None:
    from rich import box
    from rich.table import Column, Table
    from rich.text import Text

    from evengrad.lab.search.table import account, table, verdict
    from evengrad.report.numbers import percent, seconds

    console = console_of()
    header, rows = table(result)
    shown = Table(*(Column(Text(name, style="dim")) for name in header), box=box.SIMPLE, pad_edge=False)
    for row in rows:
        shown.add_row(*map(Text, row))
    if not console.is_terminal:  # a file has no edge
        console = console_of(width=max(80, console_of(width=10_000).measure(shown).maximum))

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    say(verdict(result))
    console.print(shown)
    if shares := result.importance():
        say(f"matters:  {', '.join(f'{name} {percent(share)}' for name, share in shares.items())}")
    for line in account(result):
        say(line)
    if result.patch:
        say(f"\nwhat to change:\n{result.patch}\n")
    say(f"trials are kept in {result.storage} ({seconds(result.seconds)})")
