"""lines -> an SVG chart that needs no script and no inline style; it reads in print, in the dark and without colour vision."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from evengrad.report.markup import Markup, el
from evengrad.report.numbers import number
from evengrad.types import Series

WIDTH, HEIGHT = 420, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 10, 10, 24
_POINTS = 240  # of a line; beyond, neighbours are averaged
_ROWS = 9  # of a table


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line: `look` is the class that gives it its colour and dashes; NaN is a gap, infinity a mark at the top."""

    name: str
    look: str
    x: Series
    y: Series


@dataclass(frozen=True, kw_only=True)
class Axes:
    """What a chart spans, and the words at its corners.

    Attributes:
        low: Smallest y.
        high: Largest y.
        log: True if y is logarithmic; zero is a mark at the floor.
        left: Word under the left end.
        right: Word under the right end.
        bands: (from, to) stretches of x that are shaded.
    """

    low: float
    high: float
    log: bool = False
    left: str = ""
    right: str = ""
    bands: tuple[tuple[float, float], ...] = ()


def chart(name: str, lines: Sequence[Line], axes: Axes, *, table: bool = True) -> Markup:
    """Draws lines on one pair of axes, with a legend of their names and a table of some of their values under it."""

    def across(x: float) -> float:
        return _LEFT + (x - first) / ((last - first) or 1.0) * (WIDTH - _LEFT - _RIGHT)

    def up(y: float) -> float:
        return _TOP + (1 - _place(y, axes)) * (HEIGHT - _TOP - _BOTTOM)

    spans = [(float(line.x[0]), float(line.x[-1])) for line in lines]
    first, last = min(a for a, _ in spans), max(b for _, b in spans)
    floor = HEIGHT - _BOTTOM
    parts = [
        el("rect", x=_at(across(a)), y=_at(_TOP), width=_at(max(1.0, across(b) - across(a))), height=_at(floor - _TOP), class_="flat")
        for a, b in axes.bands
    ]
    for y in _ticks(axes):
        parts.append(el("line", x1=_at(_LEFT), x2=_at(WIDTH - _RIGHT), y1=_at(up(y)), y2=_at(up(y)), class_="zero" if y == 0 else "grid"))
        parts.append(el("text", _tick(y), x=_at(_LEFT - 7), y=_at(up(y)), dy="0.32em", text_anchor="end"))
    parts.append(el("text", axes.left, x=_at(_LEFT), y=_at(HEIGHT - 6)))
    parts.append(el("text", axes.right, x=_at(WIDTH - _RIGHT), y=_at(HEIGHT - 6), text_anchor="end"))
    for line in lines:
        parts += _drawn(line, axes, across, up)
    drawn = el("svg", *parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=f"{name}: {', '.join(x.name for x in lines)}")
    legend = [el("span", _swatch(line.look), line.name) for line in lines]
    marks = (("mark-zero", "zero", "exactly zero"), ("mark-nan", "nan", "not finite"))
    legend += [el("span", el("i", class_=look), word) for mark, look, word in marks if any(mark in part for part in parts)]
    return el("figure", drawn, el("figcaption", *legend, class_="legend"), _table(lines, axes) if table else None, class_="chart")


def _table(lines: Sequence[Line], axes: Axes) -> Markup:
    """The lines' values at a few places, for who cannot see them."""
    long = max(lines, key=lambda line: len(line.x))
    share = (long.x[0], long.x[-1]) == (0.0, 1.0)
    picks = np.unique(np.linspace(0, len(long.x) - 1, _ROWS).round().astype(int))
    ends = {int(picks[0]): axes.left, int(picks[-1]): axes.right}
    rows = []
    for i in picks:
        where = i / max(1, len(long.x) - 1)
        values = [line.y[round(where * (len(line.y) - 1))] for line in lines]
        head = el("th", ends.get(int(i), f"{long.x[i]:.0%}" if share else number(float(f"{long.x[i]:.3g}"))), scope="row")
        rows.append(el("tr", head, *(el("td", _value(float(v), axes), class_="n") for v in values)))
    titles = el("tr", el("th", "", scope="col"), *(el("th", line.name, scope="col", class_="n") for line in lines))
    return el("details", el("summary", "As a table"), el("table", el("thead", titles), el("tbody", *rows)))


def _value(value: float, axes: Axes) -> str:
    if math.isnan(value):
        return "–"
    return "not finite" if math.isinf(value) else "exactly zero" if axes.log and value == 0 else number(float(f"{value:.3g}"))


def pair_axes(low: float, high: float, log: bool) -> tuple[float, float]:
    """Returns limits with some room, so that no line runs along the frame."""
    if log:
        span = max(1.0, math.log10(high / low))
        return low / 10 ** (0.06 * span), high * 10 ** (0.06 * span)
    pad = 0.06 * (high - low) or 0.5
    return low - pad, high + pad


def _drawn(line: Line, axes: Axes, across: Callable[[float], float], up: Callable[[float], float]) -> list[Markup]:
    groups = np.array_split(np.arange(len(line.x)), min(len(line.x), _POINTS))
    path, pen, zeros, broken = "", False, "", ""
    for group in groups:
        values = line.y[group]
        x, known = across(float(line.x[group].mean())), values[np.isfinite(values)]
        if np.isinf(values).any():
            broken += f"M{_at(x - 2)} {_at(_TOP - 3)}h4v5h-4z"
        elif axes.log and len(known) and (known <= 0).any():
            zeros += f"M{_at(x - 2)} {_at(HEIGHT - _BOTTOM - 5)}h4v5h-4z"
        elif len(known):
            path += f"{'L' if pen else 'M'}{_at(x)} {_at(up(float(known.mean())))}{'' if pen else 'h.1'}"
            pen = True
            continue
        pen = False
    found = (("path", path, f"line {line.look}"), ("path", zeros, "mark-zero"), ("path", broken, "mark-nan"))
    return [el(tag, d=d, class_=look) for tag, d, look in found if d]


def _swatch(look: str) -> Markup:
    return el("svg", el("path", d="M0 5h26", class_=f"line {look}"), viewBox="0 0 26 10", class_="swatch-line", aria_hidden="true")


def _place(y: float, axes: Axes) -> float:
    if axes.log:
        return min(1.0, max(0.0, math.log(max(y, 1e-320) / axes.low) / math.log(axes.high / axes.low)))
    return min(1.0, max(0.0, (y - axes.low) / (axes.high - axes.low)))


def _ticks(axes: Axes) -> list[float]:
    if axes.log:
        low, high = math.log10(axes.low), math.log10(axes.high)
        if high - low < 1.2:
            return [v * 10.0**e for e in range(math.floor(low), math.ceil(high) + 1) for v in (1, 2, 5) if low <= math.log10(v) + e <= high]
        every = max(1, math.ceil((high - low) / 5))
        return [10.0**e for e in range(math.ceil(low), math.floor(high) + 1) if e % every == 0]
    raw = (axes.high - axes.low) / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    return [k * step for k in range(math.ceil(axes.low / step), math.floor(axes.high / step) + 1)]


def _tick(y: float) -> str:
    return number(float(f"{y:.6g}"))


def _at(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
