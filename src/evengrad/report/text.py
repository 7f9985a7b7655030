"""Report -> text for a terminal: the same words as the page, a strip of blocks for the gradient, a dot a seed."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Iterator, Sequence

import numpy as np
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from evengrad.report.events import Happenings
from evengrad.report.numbers import number
from evengrad.report.planes import Plane
from evengrad.report.profile import Bar, Profile
from evengrad.report.report import Report
from evengrad.report.strips import ends, is_odd, range_of, strips
from evengrad.report.trials import Trial, Trials, score, spread
from evengrad.report.troubles import FindingView
from evengrad.report.view import PatchLine, View, view
from evengrad.types import Curve, Trace

BLOCKS = "▁▂▃▄▅▆▇█"
ZERO, NAN, UNSEEN = "○", "✕", "·"
STYLES = {
    "error": "bold red",
    "warning": "bold yellow",
    "note": "bold blue",
    "good": "bold green",
    "warn": "bold yellow",
    "bad": "bold red",
}
_MARKS = {"zero": (ZERO, "bold"), "nan": (NAN, "bold magenta"), "unseen": (UNSEEN, "dim")}
_STATES = (("zero", "exactly zero"), ("nan", "not finite"), ("unseen", "not seen"))
_SPARKLINES = ("loss", "val_loss", "accuracy", "val_accuracy", "grad_norm")
_COLD, _WARM, _MIDDLE = (33, 102, 172), (217, 95, 14), (150, 155, 165)
ASCII: dict[int, str] = str.maketrans(
    {
        "×": "x",
        "−": "-",
        "→": ">",
        "·": ".",
        "○": "0",
        "✕": "!",
        "✓": "*",
        "•": "o",
        "┃": "|",
        "─": "-",
        "–": "-",
        "²": "2",
        "≤": "<=",
        "≥": ">=",
        "…": "..",
    }
)
ASCII |= dict(zip(map(ord, BLOCKS), "_.:-=+*#", strict=True))
_INDENT, MIN_ROOM = 14, 12  # columns before a cause; the narrowest picture worth its place


def plain(report: Report, width: int = 100) -> str:
    """Returns the report as text without colours, wrapped at `width` columns."""
    out = io.StringIO()
    _print(report, Console(file=out, width=width, color_system=None, force_terminal=False, legacy_windows=False, _environ={}))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def render(report: Report, console: Console) -> None:
    """Prints the report on `console`, in colour where it has some; in ASCII where it has nothing else."""
    if console.options.ascii_only:
        text = plain(report, console.width).translate(ASCII).encode("ascii", "replace").decode()
        console.print(Text(text), soft_wrap=True, highlight=False, end="")
    else:
        _print(report, console)


def _print(report: Report, console: Console) -> None:
    for part in _parts(view(report), report.trace, console.width):
        console.print(part, soft_wrap=isinstance(part, Text), highlight=False)


def _parts(shown: View, trace: Trace | None, width: int) -> Iterator[RenderableType]:
    yield from _wrapped("", shown.header, width, indent=0)
    if shown.trials is not None or not any(f.severity != "note" for f in shown.findings):
        yield Text()
        yield from _wrapped("", shown.verdict.headline, width, indent=0, style=STYLES[shown.verdict.tone])
        yield from _wrapped("", shown.verdict.detail, width, indent=0)
    if shown.profile is not None:
        yield Text()
        yield from _strips(shown.profile, width)
    curves = list(_curves(shown))
    column = max(10, *(len(name) + 2 for name, _ in curves)) if curves else 10
    for name, curve in curves:
        yield from _sparkline(name.ljust(column), curve, width)
    yield from _over_the_run(shown, trace, width)
    for finding in shown.findings:
        yield Text()
        yield from _finding(finding, width)
    if shown.happened:
        yield Text("\nwhat happened on the way:", style="dim")
        for group in shown.happened:
            yield from _happened(group, width)
    if shown.trials is not None:
        yield Text()
        yield trials_table(shown.trials, width)
    if shown.patch:
        yield Text("\nin your code:", style="dim")
        yield from (_patch(line) for line in shown.patch)
    yield from _foot(shown, width)


def _strips(profile: Profile, width: int) -> Iterator[Text]:
    labels = [f"gradient {s.label}".strip() for s in profile.strips]
    column = max(map(len, labels)) + 2
    for strip, label in zip(profile.strips, labels, strict=True):
        beside = width - column - len(strip.slope) - 3 >= 20
        room = max(10, width - column - (len(strip.slope) + 3 if beside else 0))
        bars = _fitted(strip.bars, room)
        times = 2 if 2 * len(bars) <= room else 1
        blocks = [(mark * times, style) for mark, style in map(block, bars)]
        yield Text.assemble((label.ljust(column), "dim"), *blocks, f"  {strip.slope}" if beside else "")
        if not beside and strip.slope:
            yield Text(" " * column + strip.slope)
    ends = f"{profile.first} … {profile.last}, relative to the last, axis from {number(10.0**profile.low)} to {number(10.0**profile.high)}"
    states = {b.state for s in profile.strips for b in s.bars}
    marks = [f"{_MARKS[s][0]} {word}" for s, word in _STATES if s in states]
    yield from _wrapped(" " * column, "; ".join([ends, *marks]), width, indent=column, style="dim")


def _fitted(bars: Sequence[Bar], room: int) -> list[Bar]:
    """At most `room` bars: of neighbours the worst is shown (not finite, zero, then the lowest)."""
    if len(bars) <= room:
        return list(bars)
    order = {"nan": 0, "zero": 1, "value": 2, "unseen": 3}
    parts = np.array_split(np.arange(len(bars)), room)
    return [min((bars[i] for i in part), key=lambda b: (order[b.state], b.height)) for part in parts]


def block(bar: Bar) -> tuple[str, str]:
    """Returns the mark of a bar and its style."""
    if bar.state != "value":
        return _MARKS[bar.state]
    share = min(1.0, abs(bar.decades) / 8) ** 0.5
    red, green, blue = (round(m + (c - m) * share) for m, c in zip(_MIDDLE, _COLD if bar.decades < 0 else _WARM, strict=True))
    return BLOCKS[min(7, int(bar.height * 8))], f"rgb({red},{green},{blue})"


def _over_the_run(shown: View, trace: Trace | None, width: int) -> Iterator[Text]:
    """Rows of blocks for every signal that has several steps: the gradient in full, of the others what is odd in them."""
    if trace is None or len(trace.steps) < 2:
        return
    yield Text()
    if shown.after is None:
        yield from _planes(shown.planes, trace, "", width)
        return
    yield from _planes(shown.planes, trace, "before", width)
    yield Text()
    yield from _planes(shown.planes_after, shown.after, "after", width)


def _planes(planes: Sequence[Plane], trace: Trace, label: str, width: int) -> Iterator[Text]:
    column = 16 if not label else 17 + len(label)
    for plane in sorted(planes, key=is_odd):
        if not is_odd(plane):
            head = f"{plane.key} {label}".strip().ljust(column)
            yield from _wrapped(Text(f"{head}  ", "dim"), f"{range_of(plane)}, all layers and steps", width, indent=column + 2)
            continue
        yield from _plane(plane, trace, label, width)


def _plane(plane: Plane, trace: Trace, label: str, width: int) -> Iterator[Text]:
    rows = list(strips(plane, trace, max(10, width - 16)))
    column = max(len(name) for name, _ in rows) + 2
    yield Text()
    head = f"{plane.key} {label}".strip()
    yield from _wrapped(
        "", f"{head}: {plane.title}, step {int(trace.steps[0]):,} to {int(trace.steps[-1]):,}", width, indent=2, style="dim"
    )
    for name, bars in rows:
        yield Text.assemble((name.ljust(column), "dim"), *map(block, bars))
    low, high = ends(plane)
    states = {b.state for _, bars in rows for b in bars}
    said = [f"{BLOCKS[0]} {low} {plane.low}", f"{BLOCKS[-1]} {high} {plane.high}"]
    said += [f"{_MARKS[s][0]} {word}" for s, word in _STATES if s in states]
    yield from _wrapped(" " * column, ", ".join(said), width, indent=column, style="dim")


def _curves(shown: View) -> Iterator[tuple[str, Curve]]:
    """Yields the curves that have more than a point; the loss before and after a change."""
    for name in _SPARKLINES:
        both = {"": shown.curves} if name not in shown.curves_after else {" before": shown.curves, " after": shown.curves_after}
        for label, curves in both.items():
            if name in curves and len(curves[name].steps) > 1:
                yield f"{name.replace('_', ' ')}{label}", curves[name]


def _sparkline(name: str, curve: Curve, width: int) -> Iterator[Text]:
    values = np.asarray(curve.values, np.float64)
    finite = values[np.isfinite(values)]
    if not len(finite):
        yield Text(f"{name}not finite at every step", style="bold magenta")
        return
    low, high = float(finite.min()), float(finite.max())
    last = f"  {_number(values[0])} → {_number(values[-1])} over {int(curve.steps[-1]) + 1:,} steps"
    room = min(len(values), 40, max(8, width - len(name) - len(last)))
    parts = [values[part] for part in np.array_split(np.arange(len(values)), room)]
    marks = [(NAN, "bold magenta") if not np.isfinite(p).all() else (_level(float(p.mean()), low, high), "") for p in parts]
    yield Text.assemble((name, "dim"), *marks, last)


def _level(value: float, low: float, high: float) -> str:
    return BLOCKS[min(7, int(8 * (value - low) / (high - low)))] if high > low else BLOCKS[3]


def _number(value: float) -> str:
    return number(value) if math.isfinite(value) else "not finite"


def _finding(finding: FindingView, width: int) -> Iterator[Text]:
    head = Text.assemble((finding.severity.upper(), STYLES.get(finding.severity, "bold")), f" {clean(finding.code)}  ")
    yield from _wrapped(head, finding.message, width, indent=max(6, min(len(head), _INDENT + 2)))
    why = ": ".join(x for x in (finding.word, finding.proof or finding.cause) if x)
    if why:
        yield from _wrapped("      cause   ", why, width, indent=_INDENT, label="dim")
    also = f"also works: {'; '.join(finding.also)}" if finding.also else ""
    attempt = " | ".join(x for x in (finding.attempt, also) if x)
    if attempt:
        yield from _wrapped(f"      {'try' if finding.attempt else '':<8}", attempt, width, indent=_INDENT, label="dim")
    for k, effect in enumerate(finding.brings):
        yield from _wrapped(f"      {'' if k else 'brings':<8}", effect, width, indent=_INDENT, label="dim")


def _happened(group: Happenings, width: int) -> Iterator[Text]:
    kind = clean(group.kind)
    if group.summary:
        yield from _wrapped(f"  {kind}: ", group.summary, width, indent=6)
    for step, message in group.told:
        first = f"    {step}: " if group.summary else f"  {kind}, {step}: "
        yield from _wrapped(first, message, width, indent=6)


def trials_table(trials: Trials, width: int) -> Table:
    """Draws the table of changes that were tried: a line a change, a dot a seed."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    numbers = max(8, len(trials.metric)) + max(len(spread(trials.metric, r)) for r in trials.rows) + len("errors left") + 8
    first = min(34, max(len(r.label) + 2 for r in trials.rows), max(14, width - numbers))
    room = min(32, width - first - numbers - 3 * any(r.failed for r in trials.rows))
    low, high = score(trials.metric, trials.low), score(trials.metric, trials.high)
    table.add_column("tried on 1 seed" if trials.seeds == 1 else f"tried on {trials.seeds} seeds", min_width=first)
    table.add_column(trials.metric, justify="right", no_wrap=True)
    table.add_column("min – max", justify="right", no_wrap=True)
    if room >= MIN_ROOM:
        table.add_column(f"{low}{' ' * max(1, room - len(low) - len(high))}{high}", no_wrap=True)
    table.add_column("errors left", overflow="fold")
    for row in trials.rows:
        style = "bold green" if row.chosen else ""
        cells = (("✓ " if row.chosen else "  ") + row.label, score(trials.metric, row.median), spread(trials.metric, row))
        dots = [_dots(row, room)] if room >= MIN_ROOM else []
        table.add_row(*(Text(clean(c), style=style) for c in cells), *dots, Text(clean(row.findings)))
    return table


def _dots(row: Trial, room: int) -> Text:
    """A line from the smallest to the largest, a dot a seed, a bar for the median."""
    cells = [" "] * room
    at = [min(room - 1, max(0, round(x * (room - 1)))) for x in row.box]
    for i in range(at[0], at[-1] + 1) if at else ():
        cells[i] = "─"
    for x in row.dots:
        cells[min(room - 1, max(0, round(x * (room - 1))))] = "•"
    if at:
        cells[at[2]] = "┃"
    return Text("".join(cells), style="cyan") + Text(f" {NAN}{row.failed}" if row.failed else "", style="magenta")


def _patch(line: PatchLine) -> Text:
    return Text(f"  {clean(line.text)}", style={"add": "green", "del": "red"}.get(line.kind, ""))


def _foot(shown: View, width: int) -> Iterator[Text]:
    skipped = "; ".join(f"{what} ({why})" for what, why in shown.skipped)
    ideas = "; ".join(i.summary for i in shown.ideas) if not any(f.attempt for f in shown.findings) else ""
    rows = [
        ("worth trying:", ideas),
        ("could it train?", shown.trainability),
        ("looked, clean:", shown.clean),
        ("not looked at:", skipped),
        ("next:", shown.next),
    ]
    if any(body for _, body in rows):
        yield Text()
    for label, body in rows:
        if body:
            yield from _wrapped(f"{label:<17}", body, width, indent=17, label="dim")


def _wrapped(first: str | Text, body: str, width: int, *, indent: int, style: str = "", label: str = "") -> Iterator[Text]:
    """Wraps `body` after `first`; later lines are indented. Nothing is read as markup."""
    head = first if isinstance(first, Text) else Text.assemble((first, label))
    lines = textwrap.wrap(
        clean(body),
        max(width, indent + 20),
        initial_indent="\0" * len(head),
        subsequent_indent=" " * indent,
        break_on_hyphens=False,
        break_long_words=False,
    )
    for n, line in enumerate(lines or [""]):
        yield head + Text(line.lstrip("\0"), style=style) if n == 0 else Text(line, style=style)


def clean(text: str) -> str:
    """Shows control characters, so that a name cannot move the cursor or colour the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in text)
