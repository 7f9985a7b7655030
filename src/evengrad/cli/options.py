"""What commands share: options, a look at where output goes, progress."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evengrad.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from evengrad.report import Report
    from evengrad.settings import Settings

Target = Annotated[str, typer.Argument(metavar="FILE.py:NAME", help="File and the name of the Experiment in it.")]
Seed = Annotated[int, typer.Option(help="Seed of weights, data order and dropout.")]
FailOn = Annotated[str | None, typer.Option(help="Exit with 1 from this severity on: error, warning (usual) or note.")]
Seconds = Annotated[float | None, typer.Option(help="Wall-clock budget in seconds.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Device = Annotated[str | None, typer.Option(help="Device to use, such as cpu or cuda.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE.html", help="Write the HTML report there, too.")]
Select = Annotated[list[str] | None, typer.Option(help="Codes, or beginnings of codes, to look for; may be repeated.")]
Ignore = Annotated[list[str] | None, typer.Option(help="Codes, or beginnings of codes, to leave out; may be repeated.")]
Rule = Annotated[list[str] | None, typer.Option(metavar="CODE.NAME=VALUE", help="A threshold of a rule; may be repeated.")]
Baseline = Annotated[Path | None, typer.Option(metavar="FILE", help="Findings in this file are accepted: not told, not counted.")]
WriteBaseline = Annotated[Path | None, typer.Option(metavar="FILE", help="Accept what is found now: write it there.")]


def chosen(place: Path, **given: Any) -> Settings:
    """Returns the settings near a file or folder, with what the command line says in their place."""
    from evengrad.settings import overridden, settings_near

    return overridden(settings_near(place), **given)


def folder_of(target: str) -> Path:
    """The file of FILE.py:NAME, near which settings are looked for."""
    return Path(target.partition(":")[0])


def shown_as(target: str) -> str:
    """What a report calls FILE.py:NAME."""
    file, _, name = target.partition(":")
    return f"{Path(file).name}:{name or 'experiment'}"


def accepted(settings: Settings, write_to: Path | None = None) -> Callable[[Report], Report]:
    """Reads the baseline before any work is done; what comes back takes accepted findings out of a report.

    Args:
        settings: Those of the command.
        write_to: File into which all that is found is written as accepted, in the place of the baseline's findings.
    """
    from evengrad.baseline import read_baseline, without, write_baseline

    path = write_to or settings.baseline
    if path is None:
        return lambda report: report
    if write_to is None:
        held = read_baseline(path)
        return lambda report: without(report, held, path.name)
    writable(path)

    def write(report: Report) -> Report:
        count = write_baseline(path, report.findings)
        print(f"baseline: {path.resolve()} ({count} finding{'s' * (count != 1)} accepted)", file=sys.stderr)
        return without(report, read_baseline(path), path.name)

    return write


def writable(path: Path | None) -> None:
    """Looks whether the report can be written, before any work is done for it."""
    if path is None:
        return
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {str(path.parent)!r} to write {path.name} into. Make it, or give another place")
    if path.is_dir():
        raise InputError(f"{str(path)!r} cannot be written: it is a folder. Give a file, such as report.html")
    existed = path.exists()
    try:
        path.open("ab").close()  # permissions alone do not tell: the disk may be full, the file system read-only
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be written: {error.strerror}. Give another place") from error
    if not existed:
        path.unlink()


def console_of(**options: Any) -> Console:
    """A console of rich, imported late: `--help` does without."""
    from rich.console import Console

    return Console(**options)


@contextmanager
def progress(quiet: bool) -> Iterator[Callable[[str], None]]:
    """A spinner with the current step on a terminal, plain lines on stderr otherwise."""
    console = console_of(stderr=True)
    if quiet:
        yield lambda line: None
    elif console.is_terminal:
        from rich.markup import escape

        with console.status("starting") as status:
            yield lambda line: status.update(escape(line))
    else:
        yield lambda line: print(line, file=sys.stderr, flush=True)
