"""values -> SVG that needs no script and no inline style: strips, bars in a cell, boxes of a distribution."""

from __future__ import annotations

import math

from evengrad.report.markup import Markup, el
from evengrad.report.numbers import factor
from evengrad.report.profile import Bar, Profile, Strip
from evengrad.report.trials import Trial

LEVELS = 8  # shades on each side of the neutral colour


def shade(decades: float, reach: float = 8.0) -> str:
    """Returns the class of a colour: `c1` … `c8` below the reference, `w1` … `w8` above it, `c0` at it."""
    level = int(LEVELS * math.sqrt(min(1.0, abs(decades) / reach)))
    return f"{'c' if decades < 0 or level == 0 else 'w'}{level}"


def strip(profile: Profile, row: Strip) -> Markup:
    """Draws one bar a layer on the profile's log axis, with its grid."""
    grid = [(100 * (1 - (d - profile.low) / (profile.high - profile.low)), text) for d, text in profile.ticks]
    lines = [el("line", x1="0", x2="100%", y1=_percent(y), y2=_percent(y), class_="one" if text == "1" else "grid") for y, text in grid]
    labels = [el("text", text, x="44", y=_percent(y), dy="0.32em", text_anchor="end") for y, text in grid]
    width = 100 / len(row.bars)
    bars = [_bar(bar, i * width + 0.07 * width, 0.86 * width) for i, bar in enumerate(row.bars)]
    name = f"gradient that reaches each layer {row.label}: {row.slope or 'no slope'}; {_extremes(row)}"
    axis = el("svg", *labels, class_="ticks", aria_hidden="true")
    return el("div", axis, el("svg", *lines, *bars, class_="bars", role="img", aria_label=name), class_="strip")


def gains(row: Strip) -> Markup:
    """Draws the network as a strip: a cell a layer, coloured by its gradient as a multiple of the next layer's; numbers where they fit."""
    width, few = 100 / len(row.bars), len(row.bars) <= 24
    parts = []
    for i, bar in enumerate(row.bars):
        title = el("title", f"{bar.label}, {bar.kind}: gain {bar.gain_text}")
        parts.append(
            el(
                "g",
                title,
                el("rect", x=_percent((i + 0.04) * width), width=_percent(0.92 * width), y="0", height="12", rx="2", class_=_of_gain(bar)),
            )
        )
        if few and not math.isnan(bar.gain):
            parts.append(el("text", bar.gain_text, x=_percent((i + 0.5) * width), y="25", text_anchor="middle"))
    known = [b.gain for b in row.bars if math.isfinite(b.gain)]
    name = (
        f"gain of each layer {row.label}: from {factor(min(known))} to {factor(max(known))}"
        if known
        else f"gain of each layer {row.label}: none"
    )
    axis = el("svg", el("text", "gain", x="44", y="10", text_anchor="end"), class_="ticks", aria_hidden="true")
    return el(
        "div", axis, el("svg", *parts, class_="cells", role="img", aria_label=name), class_="strip gains" if few else "strip gains bare"
    )


def _of_gain(bar: Bar) -> str:
    if math.isnan(bar.gain):
        return "unseen"
    return "nan" if math.isinf(bar.gain) else shade(math.log10(bar.gain), 2.0) if bar.gain else "zero"


def cell(state: str, length: float, colour: str) -> Markup:
    """Draws a small horizontal bar for a table cell; zeros and values that are not finite have their own look."""
    if state in {"zero", "nan"}:
        return el(
            "svg",
            el("rect", x="0", y="0", width="100%" if state == "nan" else "6", height="8", class_=state),
            class_="cell",
            aria_hidden="true",
        )
    bar = el("rect", x="0", y="0", rx="2", width=_percent(100 * min(1.0, max(0.01, length))), height="8", class_=colour)
    return el("svg", bar, class_="cell", aria_hidden="true")


def box(row: Trial) -> Markup:
    """Draws a distribution over seeds: line from smallest to largest, box of the middle half, a dot a seed, a bar for the median."""
    parts = []
    if row.box:
        low, lower, median, upper, high = (2 + 96 * x for x in row.box)
        parts.append(el("line", x1=_percent(low), x2=_percent(high), y1="10", y2="10", class_="whisker"))
        if len(row.dots) >= 4:
            parts.append(el("rect", x=_percent(lower), width=_percent(max(0.4, upper - lower)), y="4", height="12", rx="2", class_="half"))
        parts += [el("circle", cx=_percent(2 + 96 * x), cy="10", r="2.5", class_="dot") for x in row.dots]
        parts.append(el("line", x1=_percent(median), x2=_percent(median), y1="2", y2="18", class_="median"))
    return el("svg", *parts, class_="box", aria_hidden="true")


def _bar(bar: Bar, x: float, width: float) -> Markup:
    where = {"x": _percent(x), "width": _percent(width)}
    title = el("title", f"{bar.label}: {bar.text}")
    if bar.state == "value":
        height = max(1.2, 100 * bar.height)
        shape = el("rect", **where, y=_percent(100 - height), height=_percent(height), rx="2", class_=shade(bar.decades))
    elif bar.state == "unseen":
        shape = el("rect", **where, y="98%", height="2%", class_="unseen")
    else:
        tall = 100.0 if bar.state == "nan" else 7.0
        shape = el("rect", **where, y=_percent(100 - tall), height=_percent(tall), class_=bar.state)
    target = el("rect", **where, y="0", height="100%", class_="target")
    return el("g", title, target, shape)


def _extremes(row: Strip) -> str:
    words = {"zero": "exactly zero", "nan": "not finite", "unseen": "not seen"}
    counts = [f"{sum(b.state == s for b in row.bars)} {word}" for s, word in words.items() if any(b.state == s for b in row.bars)]
    return "; ".join([f"{row.bars[0].label} {row.bars[0].text}", *counts])


def _percent(value: float) -> str:
    return f"{value:.2f}%"
