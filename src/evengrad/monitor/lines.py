"""A trace and its findings -> the lines that a terminal shows while the training runs: the report's blocks, colours and words."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from rich.text import Text

from evengrad.report.numbers import number, percent
from evengrad.report.planes import blocks, deep_mask, relative
from evengrad.report.profile import Bar, layer_label, slope_text
from evengrad.report.text import BLOCKS, NAN, STYLES, ZERO, block
from evengrad.signals import update_ratio
from evengrad.sinks.base import clean
from evengrad.types import Event, Finding, Series, Trace

_SMALLEST = 20  # columns
_LABEL, _WIDEST, _NARROWEST = 11, 48, 6  # columns before a picture, of a curve at most, and the fewest worth their place
_FINDINGS, _EVENTS = 5, 3
_FLAT, _FLAT_DECADES = 0.02, 0.1  # a curve that moves less fills less than the height of a line
_WIDE, _BESIDE = 60, 36  # columns for whole sentences, and those that a message needs beside its head
_UPDATE = -3.0  # log10 of a usual update over its weight (Karpathy 2022)
_GRADIENTS = (("grad_out_norm", "gradient"), ("grad_norm", "weight gradient"))
_LOUD = {"rollback", "stop", "bad_operation", "fault"}


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Where a training stands.

    Attributes:
        trace: What was seen so far.
        findings: What is wrong.
        step: The last step.
        loss: Its loss, or None where nobody told.
        rate: Steps a second, NaN before it is known.
    """

    trace: Trace
    findings: Sequence[Finding] = ()
    step: int = 0
    loss: float | None = None
    rate: float = math.nan


def lines(moment: Moment, title: str, width: int) -> list[Text]:
    """Returns the panel's lines, none wider than `width` (or 20, if that is more)."""
    width = max(width, _SMALLEST)
    told = [*_findings(moment.findings, width), *_events(moment.trace.events, width)]
    return [*_head(moment, title, width), *_curves(moment, width), *_strips(moment.trace, width), *([Text()] if told else []), *told]


def _head(moment: Moment, title: str, width: int) -> Iterator[Text]:
    right = " · ".join(x for x in (f"step {moment.step:,}", _rate(moment.rate)) if x)
    left = _cut(clean(title), max(0, width - len(right) - 4))
    yield Text.assemble((left, "bold"), (f" {'─' * max(1, width - len(left) - len(right) - 2)} ", "dim"), _cut(right, width - 3))


def _rate(rate: float) -> str:
    if not math.isfinite(rate) or rate <= 0:
        return ""
    return f"{number(rate)} steps/s" if rate >= 1 else f"{number(1 / rate)} s a step"


def _curves(moment: Moment, width: int) -> Iterator[Text]:
    curves = moment.trace.curves
    rows: list[tuple[str, Series, Text]] = []
    loss = curves["loss"].values if "loss" in curves else np.zeros(0)
    now = moment.loss if moment.loss is not None else float(loss[-1]) if len(loss) else None
    if now is not None:
        rows.append(("loss", loss, _value(now)))
    norms = curves["grad_norm"].values if "grad_norm" in curves else np.zeros(0)
    clipped = curves["clipped"].values if "clipped" in curves else np.zeros(0)
    often = float(np.mean(clipped > 0)) if len(clipped) else 0.0
    share = f"{percent(often)}{' of steps' if width >= _WIDE else ''} clipped" if often else ""
    if len(norms) or share:
        value = _value(float(norms[-1])) if len(norms) else Text("")
        rows.append(("grad norm", norms, Text("  ").join(x for x in (value, Text(share)) if x.plain)))
    beside = max((len(value) for *_, value in rows), default=0)
    room = min(_WIDEST, width - _LABEL - beside - 2)
    for name, values, value in rows:
        picture = _spark(values, room, log=name == "grad norm") if room >= _NARROWEST and len(values) > 1 else Text("")
        yield Text.assemble((name.ljust(_LABEL), "dim"), picture, "  " if picture.plain else "", value)


def _value(value: float) -> Text:
    return Text(number(value)) if math.isfinite(value) else Text("not finite", style="bold magenta")


def _spark(values: Series, room: int, *, log: bool) -> Text:
    """A block for each run of neighbours; a run in which anything was not finite is marked. Noise of a few percent stays flat."""
    parts = [values[p] for p in np.array_split(np.arange(len(values)), min(room, len(values)))]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        means = np.array([float(np.mean(p)) for p in parts])
        halves = (np.log10(means) if log else means) / 2  # of which no difference overflows
    seen = halves[np.isfinite(halves)]
    low, high = (float(seen.min()), float(seen.max())) if len(seen) else (0.0, 0.0)
    span = max(high - low, _FLAT_DECADES / 2 if log else _FLAT * max(abs(low), abs(high)))
    heights = (halves - low / 2 - high / 2) / (span or 1.0) + 0.5
    return Text.assemble(*map(_mark, means, heights))


def _mark(mean: float, height: float) -> tuple[str, str]:
    if not math.isfinite(mean):
        return NAN, "bold magenta"
    if not math.isfinite(height):  # the logarithm of zero
        return ZERO, "bold"
    return BLOCKS[min(7, max(0, int(8 * height)))], ""


def _strips(trace: Trace, width: int) -> Iterator[Text]:
    rows = np.flatnonzero(deep_mask(trace))
    room = width - _LABEL
    if not len(rows) or room < _NARROWEST:
        return
    states: set[str] = set()
    caption = []
    for column, word in _GRADIENTS:
        index = _last_seen(trace, column)
        if index is not None:
            one = _at(trace, index, column)
            values = relative(one, column, last=True)[0][rows]
            low, high = _axis(values)
            bars = _bars(values, room, low, high, centre=0.0)
            slope = slope_text(one) if column == "grad_out_norm" else ""
            yield _strip("gradient", bars, slope, width)
            states |= {bar.state for bar in bars}
            caption.append(f"{word} relative to the last, {number(10**low)} to {number(10**high)}")
            break
    index = _last_seen(trace, "update_norm")
    if index is not None:
        ratios = update_ratio(_at(trace, index, "update_norm", "weight_norm"))[0][rows]
        bars = _bars(np.where(np.isinf(ratios), np.inf, ratios), room, -6.0, 0.0, centre=_UPDATE)
        finite = ratios[np.isfinite(ratios)]
        yield _strip("update", bars, f"median {number(float(np.median(finite)))} (of the weight)" if len(finite) else "", width)
        states |= {bar.state for bar in bars}
    if states:
        ends = f"{layer_label(trace, rows[0], name=False)} … {layer_label(trace, rows[-1], name=False)}"
        marks = [f"{mark}\0{word}" for state, mark, word in (("zero", ZERO, "exactly zero"), ("nan", NAN, "not finite")) if state in states]
        words = "; ".join([clean(ends), *caption, *marks])
        for line in textwrap.wrap(words, width - _LABEL, max_lines=2, placeholder=" …"):
            yield Text(" " * _LABEL + line.replace("\0", " "), style="dim")


def _last_seen(trace: Trace, column: str) -> int | None:
    """The last sampled step at which the column was seen, or at which the loss was not finite; None if it never was seen."""
    if column not in trace.columns or np.isnan(trace.columns[column]).all():
        return None
    seen = ~np.isnan(trace.columns[column]).all(1)
    loss = trace.curves.get("loss")
    if loss is not None:
        seen |= np.isin(trace.steps, loss.steps[~np.isfinite(loss.values)])
    return int(np.flatnonzero(seen)[-1])


def _at(trace: Trace, index: int, *columns: str) -> Trace:
    """One sampled step with a few columns: a panel looks at no more, so that it costs the same however long the run."""
    return replace(
        trace,
        steps=trace.steps[index : index + 1],
        columns={name: trace.column(name)[index : index + 1] if name in trace.columns else trace.column(name)[:1] for name in columns},
        planes={},
    )


def _axis(values: Series) -> tuple[float, float]:
    """Whole decades, at least from a hundredth to ten, so that noise does not look like a trend."""
    seen = np.log10(values[np.isfinite(values) & (values > 0)], dtype=np.float64)
    if not len(seen):
        return -2.0, 1.0
    return min(-2.0, math.floor(seen.min())), max(1.0, math.ceil(seen.max()))


def _bars(values: Series, room: int, low: float, high: float, *, centre: float) -> list[Bar]:
    """At most `room` bars. Of neighbours the worst is kept: not finite, then exactly zero, then what lies farthest from the centre."""
    return [_bar(values[part], low, high, centre) for part in blocks(len(values), room)]


def _bar(values: Series, low: float, high: float, centre: float) -> Bar:
    seen = values[~np.isnan(values)]
    if not len(seen):
        return Bar(label="", state="unseen", value=math.nan, height=0.0, decades=0.0, text="")
    if np.isinf(seen).any() or (seen == 0).any():
        return Bar(label="", state="nan" if np.isinf(seen).any() else "zero", value=0.0, height=0.0, decades=0.0, text="")
    decades = np.log10(seen, dtype=np.float64)
    worst = float(decades[np.argmax(np.abs(decades - centre))])
    height = min(1.0, max(0.0, (worst - low) / (high - low)))
    return Bar(label="", state="value", value=10.0**worst, height=height, decades=worst - centre, text="")


def _strip(name: str, bars: Sequence[Bar], words: str, width: int) -> Text:
    times = 2 if 2 * len(bars) <= min(_WIDEST, width - _LABEL) else 1
    room = width - _LABEL - times * len(bars) - 2
    beside = next((x for x in (words, words.partition(" (")[0]) if len(x) <= room), "")
    marks = [(mark * times, style) for mark, style in map(block, bars)]
    return Text.assemble((name.ljust(_LABEL), "dim"), *marks, f"  {beside}" if beside else "")


def _findings(findings: Sequence[Finding], width: int) -> Iterator[Text]:
    newest = sorted(findings, key=lambda f: -f.steps[0])
    shown = newest[:_FINDINGS]
    steps = max((len(f"{f.steps[0]:,}") for f in shown), default=0)
    for finding in shown:
        step = f"step {finding.steps[0]:>{steps if width >= _WIDE else 0},}"
        head = Text.assemble(
            (f"{finding.severity.upper():<8}", STYLES.get(finding.severity, "bold")), f"{clean(finding.code)}  ", (step, "dim"), "  "
        )
        yield from _finding(head, clean(finding.message), width)
    if len(newest) > len(shown):
        yield Text(f"and {len(newest) - len(shown)} more", style="dim")


def _finding(head: Text, message: str, width: int) -> Iterator[Text]:
    """Head and message side by side where there is room; two lines of the message at most."""
    beside = width - len(head) >= _BESIDE
    indent = len(head) if beside else 2
    told = textwrap.wrap(message, width - indent, max_lines=2, placeholder=" …", break_on_hyphens=False)
    if not beside:
        head.truncate(width, overflow="ellipsis")
        yield head
    for i, line in enumerate(told):
        yield Text.assemble(head if beside and i == 0 else " " * indent, line)


def _events(events: Sequence[Event], width: int) -> Iterator[Text]:
    for event in events[: -_EVENTS - 1 : -1]:
        line = _cut(f"step {event.step:,}  {clean(event.kind)}  {clean(event.message)}", width)
        yield Text(line, style="magenta" if event.kind in _LOUD else "dim")


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: max(0, width - 1)]}…"
