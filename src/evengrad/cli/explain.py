"""A rule -> its page in words and two pictures, from its docstring, fields and examples."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from evengrad.cli.options import console_of, writable
from evengrad.errors import InputError, unknown
from evengrad.report.explained.series import axis, differences, pairs
from evengrad.report.numbers import number
from evengrad.report.text import ASCII, BLOCKS, NAN, UNSEEN, ZERO
from evengrad.rules import Rule, discovered
from evengrad.types import Series, Trace

_ROOM = 40  # blocks of a picture


def explain(
    code: Annotated[str, typer.Argument(metavar="CODE", help="Code of a rule, such as VAN001; activations; initialisers.")] = "",
    *,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE.html", help="Write the page with its pictures.")] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Write the pages of all findings, activations and initialisers to a folder.")
    ] = False,
) -> None:
    """Tell what a finding means, why it happens and what helps."""
    if every:
        if output is None or code:
            raise InputError("--all writes every page into a folder: give it with -o DIR, and no code")
        _write_all(output)
        return
    pages = {*discovered(), "activations", "initialisers"}
    name = code.upper() if code.upper() in pages else code.lower()
    if name not in pages:
        raise unknown("rule", code, sorted(pages))
    if output is not None:
        from evengrad.report.explained.pages import write

        writable(output)
        print(f"page: {write(name, output).resolve()}", file=sys.stderr)
    if name in discovered():
        text = explanation(discovered()[name])
        print(text.translate(ASCII).encode("ascii", "replace").decode() if console_of().options.ascii_only else text)
    elif output is None:
        raise InputError(f"{name} are pictures: write their page with -o FILE.html")


def _write_all(folder: Path) -> None:
    from evengrad.report.explained.pages import write_all

    if folder.exists() and not folder.is_dir():
        raise InputError(f"{str(folder)!r} is a file; --all needs a folder, which is made where there is none")
    written = write_all(folder)
    print(f"{len(written)} pages: {written[0].resolve()}", file=sys.stderr)


def explanation(rule: type[Rule]) -> str:
    """Returns what the rule means, how a sick and a healthy network look, why it happens, what helps, its thresholds and its source."""
    doc = inspect.getdoc(rule) or ""
    story, _, reference = doc.partition("Reference:")
    story = story.partition("Attributes:")[0].strip()
    made, examples = rule(), rule.examples()
    sick = next(made.check(examples.sick[0]), None)
    example = [] if sick is None else ["", "for example", f"  {sick.message}"]
    drawn = pictures(made, examples.sick[0], examples.healthy)
    thresholds = [f"  {f.name} = {getattr(made, f.name)!r}" for f in fields(made)]
    return "\n".join(
        [
            f"{rule.code}: {rule.title}",
            "",
            story,
            *([""] if drawn else []),
            *drawn,
            *example,
            "",
            f"causes      {', '.join(rule.causes)}",
            f"what helps  {rule.helps}",
            f"decided by  {rule.signal[0]} ({rule.signal[1]})",
            f"needs       {', '.join(rule.needs)}",
            "thresholds",
            *thresholds,
            *(["", f"source      {' '.join(reference.split())}"] if reference else []),
        ]
    )


def pictures(rule: Rule, sick: Trace, healthy: Sequence[Trace]) -> list[str]:
    """Draws what the rule looks at in a sick trace and in a healthy one that differs: by layer, along time, over steps, or in words."""
    for pair in pairs(rule.needs, sick, healthy):
        (first, second), scale = _drawn((pair.sick, pair.healthy))
        if first != second:
            return [f"  sick     {first}", f"  healthy  {second}", f"           {pair.name} {pair.along}, {scale}"]
    found = differences(sick, healthy)
    told = (("sick", [(key, bad) for key, bad, _ in found]), ("healthy", [(key, good) for key, _, good in found]))
    return [f"  {label:<8} {', '.join(f'{key}: {value}' for key, value in values)}" for label, values in told if values]


def _drawn(rows: Sequence[Series]) -> tuple[list[str], str]:
    """Draws rows on one axis."""
    low, high, logarithmic = axis(rows)
    drawn = []
    for row in rows:
        parts = np.array_split(row, min(len(row), _ROOM))
        times = max(1, min(3, _ROOM // max(map(len, rows))))
        drawn.append("".join(_mark(part, low, high, logarithmic) * times for part in parts))
    return drawn, f"axis from {number(low)} to {number(high)}{' (logarithmic)' if logarithmic else ''}"


def _mark(part: Series, low: float, high: float, logarithmic: bool) -> str:
    if np.isinf(part).any():
        return NAN
    known = part[~np.isnan(part)]
    if not len(known):
        return UNSEEN
    value = float(known.mean())
    if logarithmic and value <= 0:
        return ZERO
    share = np.log(value / low) / np.log(high / low) if logarithmic else (value - low) / (high - low) if high > low else 0.5
    return BLOCKS[min(7, max(0, int(8 * share)))]
