"""Where a watched training is written to, one file each: `evengrad.sinks.TensorBoard("runs/a")`; `discovered()` finds them all."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from evengrad.errors import InputError, unknown
from evengrad.registry import by_class_name, members
from evengrad.sinks.base import Sink

__all__ = ["Sink", "discovered", "resolved"]


def discovered() -> dict[str, type[Sink]]:
    """Returns every sink by its name: the files of this package and entry points of the group `evengrad.sinks`."""
    return members("evengrad.sinks", Sink, "name")


def resolved(sinks: Sequence[str | Sink], directory: Path | None = None) -> list[Sink]:
    """Makes the sinks that are given by name; the others are taken as they are.

    Args:
        sinks: Names such as `"tensorboard"`, and sinks.
        directory: Folder for those given by name; `runs/<date>_<time>` without.

    Raises:
        UnknownNameError: if no sink has that name.
        InputError: if something else was given, or a sink needs a package that is not installed.
    """
    if isinstance(sinks, str | Sink):
        given = repr(sinks) if isinstance(sinks, str) else f"{type(sinks).__name__}(…)"
        raise InputError(f"sinks are given as a tuple; got {given}. Write sinks=({given},)")
    folder = directory or Path("runs") / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    return [_made(sink, folder) for sink in sinks]


def _made(sink: object, directory: Path) -> Sink:
    if isinstance(sink, Sink):
        return sink
    if not isinstance(sink, str):
        name = sink.__name__ if isinstance(sink, type) else type(sink).__name__
        raise InputError(f'a sink is a name such as "csv" or an object such as CSV("runs/a"); got {name}')
    if sink not in discovered():
        raise unknown("sink", sink, discovered())
    return discovered()[sink](directory)


def __getattr__(name: str) -> type[Sink]:
    return by_class_name(__name__, name, discovered)
