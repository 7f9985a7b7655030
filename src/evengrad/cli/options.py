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

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Device = Annotated[str | None, typer.Option(help="Device to use, such as cpu or cuda.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE.html", help="Write the HTML report there, too.")]


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
