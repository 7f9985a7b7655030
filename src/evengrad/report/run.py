"""View of many steps -> the picture of the run: layers by steps on a canvas, its numbers as a table, curves beside it."""

from __future__ import annotations

import base64
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from evengrad.report.layers import value_text
from evengrad.report.markup import Markup, data_block, el
from evengrad.report.numbers import number
from evengrad.report.planes import MAX_ROWS, MAX_STEPS, Plane, blocks, pooled, thin
from evengrad.report.profile import layer_label
from evengrad.report.view import View
from evengrad.types import Curve, Trace

CURVES = (("loss", ("loss", "val_loss")), ("accuracy", ("accuracy", "val_accuracy")), ("grad norm", ("grad_norm",)), ("rate", ("lr",)))


def over_the_run(shown: View, trace: Trace) -> Markup:
    """Builds the two cards: the picture (where there are several steps) and the curves."""
    picture = _picture(shown, trace) if len(trace.steps) > 1 and shown.planes else None
    side = _side(shown, with_layer=picture is not None)
    block = data_block(_data(shown, trace if picture is not None else None))
    return el("div", picture, side, block, class_="two" if picture is not None and side is not None else "one")


def _picture(shown: View, trace: Trace) -> Markup:
    tabs = el(
        "div",
        *(_tab(p.key, i == 0, p.title) for i, p in enumerate(shown.planes)),
        class_="tabs planes",
        role="tablist",
        aria_label="signal",
    )
    label = f"{len(trace.layers)} layers by {len(trace.steps)} sampled steps; arrow keys move, Enter shows the history of a layer"
    canvas = el("canvas", class_="heat", tabindex="0", role="application", aria_label=label, aria_roledescription="map of layers by steps")
    first, last = int(trace.steps[0]), int(trace.steps[-1])
    ends = el(
        "div",
        el("span", f"step {first:,}"),
        el("span", "input at the bottom, output at the top", class_="where"),
        el("span", f"step {last:,}"),
        class_="ends",
    )
    read = el("p", "hover or arrow keys: step and layer · click or Enter: its history", class_="read", aria_live="polite")
    return el("div", tabs, canvas, ends, read, el("div", class_="legend key"), _tables(shown, trace), class_="card")


def _side(shown: View, *, with_layer: bool) -> Markup | None:
    present = [name for name, keys in CURVES if any(k in shown.curves for k in keys)]
    if not present and not with_layer:
        return None
    tabs = [_tab(name, i == 0, name) for i, name in enumerate(present)]
    tabs += [_tab("layer", not present, "history of a layer")] if with_layer else []
    names = el("div", *tabs, class_="tabs curves", role="tablist", aria_label="curve")
    ends = [_ends(k, shown.curves[k]) for _, keys in CURVES for k in keys if k in shown.curves]
    table = el(
        "table",
        el("thead", el("tr", *(el("th", t, scope="col") for t in ("curve", "first", "lowest", "highest", "last")))),
        el("tbody", *ends),
    )
    details = el("details", el("summary", "As a table"), el("div", table, class_="scroll")) if ends else None
    return el("div", names, el("div", class_="plot"), el("p", "", class_="said", aria_live="polite"), details, class_="card side")


def _tab(name: str, on: bool, title: str) -> Markup:
    return el(
        "button",
        name,
        type="button",
        role="tab",
        aria_selected="true" if on else "false",
        tabindex="0" if on else "-1",
        title=title,
        data_key=name,
    )


def _ends(name: str, curve: Curve) -> Markup:
    finite = curve.values[np.isfinite(curve.values)]
    ends = [curve.values[0], finite.min() if len(finite) else math.nan, finite.max() if len(finite) else math.nan, curve.values[-1]]
    cells = [el("td", number(float(v)) if np.isfinite(v) else "not finite") for v in ends]
    return el("tr", el("th", name.replace("_", " "), scope="row"), *cells)


def _tables(shown: View, trace: Trace) -> Markup:
    rows = blocks(len(trace.layers), MAX_ROWS)
    return el("details", el("summary", "As a table"), *(_table(p, trace, rows) for p in shown.planes))


def _table(plane: Plane, trace: Trace, rows: list[npt.NDArray[np.int64]]) -> Markup:
    titles = ("layer", f"step {int(trace.steps[0]):,}", "lowest", "highest", f"step {int(trace.steps[-1]):,}", "zero", "not finite")
    head = el("tr", *(el("th", t, scope="col", class_="n" if i else None) for i, t in enumerate(titles)))
    body = []
    for group in rows:
        row = int(group[0])
        seen = plane.values[:, row]
        finite = seen[np.isfinite(seen)]
        span = [float(finite.min()), float(finite.max())] if len(finite) else [math.nan, math.nan]
        values = [float(seen[0]), *span, float(seen[-1])]
        counts = [int((seen == 0).sum()), int(np.isinf(seen).sum())]
        cells = [*(value_text(plane, v) for v in values), *(f"{c:,} steps" if c else "–" for c in counts)]
        body.append(el("tr", el("th", layer_label(trace, row), scope="row"), *(el("td", c, class_="n") for c in cells)))
    table = el("table", el("caption", plane.title), el("thead", head), el("tbody", *body))
    return el("div", table, class_="scroll tall")


def _data(shown: View, trace: Trace | None) -> dict[str, Any]:
    curves = [{"name": name, "lines": [_line(k, shown.curves[k]) for k in keys if k in shown.curves]} for name, keys in CURVES]
    out: dict[str, Any] = {"curves": [c for c in curves if c["lines"]]}
    if trace is None:
        return out
    rows, steps = blocks(len(trace.layers), MAX_ROWS), blocks(len(trace.steps), MAX_STEPS)
    names = [layer_label(trace, int(g[0])) + (f" to {layer_label(trace, int(g[-1]))}" if len(g) > 1 else "") for g in rows]
    planes = [_plane(p, pooled(p.values, rows, steps)) for p in shown.planes]
    return {**out, "steps": [int(trace.steps[s[0]]) for s in steps], "layers": names, "planes": planes}


def _plane(plane: Plane, values: npt.NDArray[np.float32]) -> dict[str, Any]:
    fields = {k: getattr(plane, k) for k in ("key", "title", "unit", "scale", "centre", "reach", "low", "high")}
    return {**fields, "values": base64.b64encode(values.astype("<f4").tobytes()).decode()}


def _line(name: str, curve: Curve) -> dict[str, Any]:
    steps, values = thin(curve.steps, curve.values)
    return {
        "name": name.replace("_", " "),
        "steps": [int(s) for s in steps],
        "values": [float(f"{v:.6g}") if np.isfinite(v) else None for v in values],
    }
