"""View of one step -> a table of the layers in which every number has its bar: the profile and its data are one."""

from __future__ import annotations

import math

import numpy as np

from evengrad.report import pictures
from evengrad.report.markup import Markup, el, join
from evengrad.report.numbers import number, percent
from evengrad.report.planes import MAX_ROWS, Plane
from evengrad.report.pyramid import grid
from evengrad.report.view import View
from evengrad.types import Layer, Trace


def layer_table(shown: View, trace: Trace) -> Markup:
    """Builds the table, the input first; a long network is thinned evenly, and the note says so."""
    cells = grid(len(trace.steps), len(trace.layers)).rows[:-1]  # the planes' rows
    every = max(1, math.ceil(len(cells) / MAX_ROWS))
    reaches = {p.key: _reach(p) for p in shown.planes}
    titles = ["layer", "kind", "then", *(p.key for p in shown.planes)]
    head = el("tr", *(el("th", t, scope="col", class_="p" if i > 2 else None) for i, t in enumerate(titles)))
    body = [_row(trace.layers[cells[i]], [_cell(p, i, reaches[p.key]) for p in shown.planes]) for i in range(0, len(cells), every)]
    caption = "; ".join(f"{p.key}: {p.title}" for p in shown.planes)
    note = f"{len(body)} of {len(trace.layers):,} layers; " if len(body) < len(trace.layers) else ""
    table = el("table", el("thead", head), el("tbody", *body), class_="layers")
    return el(
        "div",
        el("div", table, class_="scroll tall", tabindex="0", aria_label="layer by layer"),
        el("p", note + caption, class_="note"),
        class_="card",
    )


def value_text(plane: Plane, value: float) -> str:
    """Returns a plane's value in words, without its unit."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "not finite"
    if plane.scale == "fraction":
        return percent(value)
    return number(value) if value else "exactly 0"


def shape_text(layer: Layer) -> str:
    """Returns `linear 64 → 64`."""
    return f"{layer.kind.replace('_', ' ')} {layer.fan_in} → {layer.fan_out}" if layer.fan_in else layer.kind.replace("_", " ")


def _row(layer: Layer, cells: list[Markup]) -> Markup:
    depth = el("span", "" if layer.depth is None else str(layer.depth), class_="depth")
    norm = "" if layer.norm == "none" else f"{layer.norm.replace('_', ' ')}, "
    skip = ", skip" if layer.residual else ""
    then = f"{norm}{layer.activation.replace('_', ' ')}{skip}"
    return el("tr", el("th", depth, layer.name or "model", scope="row"), el("td", shape_text(layer)), el("td", then), *cells)


def _cell(plane: Plane, row: int, reach: tuple[float, float]) -> Markup:
    value = float(plane.values[0, row])
    text = value_text(plane, value)
    if math.isnan(value):
        return el("td", text, class_="p")
    if math.isinf(value):
        picture = pictures.cell("nan", 1.0, "nan")
    elif plane.scale == "fraction":
        picture = pictures.cell("value", value, "share" if value else "none")
    elif value == 0:
        picture = pictures.cell("zero", 0.0, "zero")
    else:
        decades = math.log10(value)
        picture = pictures.cell(
            "value", (decades - reach[0]) / (reach[1] - reach[0]), pictures.shade(decades - plane.centre, max(8.0, plane.reach))
        )
    return el("td", el("div", join(picture), el("span", text), class_="pair"), class_="p")


def _reach(plane: Plane) -> tuple[float, float]:
    usable = plane.values[np.isfinite(plane.values) & (plane.values > 0)]
    seen = np.log10(usable) if len(usable) else np.zeros(1)
    return min(plane.centre - 2.0, math.floor(float(seen.min())) - 0.2), max(plane.centre, math.ceil(float(seen.max()) - 0.05))
