"""View of many steps -> the pictures of the run: layers by steps on canvases, their numbers as tables, curves beside them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from evengrad.report.cells import picture
from evengrad.report.layers import value_text
from evengrad.report.markup import Markup, data_block, el
from evengrad.report.numbers import number
from evengrad.report.planes import MAX_ROWS, Plane, blocks, thin
from evengrad.report.profile import span_label
from evengrad.report.pyramid import grid
from evengrad.report.view import View
from evengrad.types import Curve, Trace

CURVES = (("loss", ("loss", "val_loss")), ("accuracy", ("accuracy", "val_accuracy")), ("grad norm", ("grad_norm",)), ("rate", ("lr",)))
Part = tuple[str, Trace, tuple[Plane, ...]]  # `before`, `after` or "", a run and its signals


def over_the_run(shown: View, trace: Trace) -> Markup:
    """Builds the two cards: the pictures (where there are several steps), before and after side by side, and the curves."""
    parts = _parts(shown, trace)
    picture_card = _picture(shown, parts) if parts else None
    side = _side(shown, with_layer=bool(parts))
    block = data_block(_data(shown, parts))
    wide = len(parts) == 1 and side is not None
    return el("div", picture_card, side, block, class_="two" if wide else "stacked")


def _parts(shown: View, trace: Trace) -> list[Part]:
    if len(trace.steps) < 2 or not shown.planes:
        return []
    if shown.after is None:
        return [("", trace, shown.planes)]
    return [("before", trace, shown.planes), ("after", shown.after, shown.planes_after)]


def _picture(shown: View, parts: list[Part]) -> Markup:
    tabs = el(
        "div",
        *(_tab(p.key, i == 0, p.title) for i, p in enumerate(shown.planes)),
        class_="tabs planes",
        role="tablist",
        aria_label="signal",
    )
    hint = "hover or arrow keys: step and layer · click or Enter: the layer's history, the step's profile · drag: zoom"
    read = el("p", hint, class_="read", aria_live="polite")
    maps = el("div", *(_map(label, trace) for label, trace, _ in parts), class_="maps" if len(parts) > 1 else None)
    tables = (_table(p, trace, label) for label, trace, found in parts for p in found)
    notes = [note for label, trace, _ in parts if (note := _note(label, trace)) is not None]
    details = el("details", el("summary", "As a table"), *tables)
    return el("div", tabs, maps, read, el("div", class_="legend key"), *notes, details, class_="card")


def _map(label: str, trace: Trace) -> Markup:
    does = (
        f"{label}: {len(trace.layers):,} layers by {len(trace.steps):,} sampled steps; arrow keys move, Enter shows the layer's history "
        "and the step's profile, plus and minus zoom, Escape shows all"
    ).removeprefix(": ")
    canvas = el("canvas", class_="heat", tabindex="0", role="application", aria_label=does, aria_roledescription="map of layers by steps")
    first, last = int(trace.steps[0]), int(trace.steps[-1])
    ends = el(
        "div",
        el("span", f"step {first:,}"),
        el("span", "input at the bottom, output at the top", class_="where"),
        el("span", f"step {last:,}"),
        class_="ends run",
    )
    return el("div", el("p", el("b", label), class_="slope") if label else None, canvas, ends, class_="map")


def _note(label: str, trace: Trace) -> Markup | None:
    size = grid(len(trace.steps), len(trace.layers))
    if size.whole:
        return None
    cells = f"{len(size.rows) - 1:,} × {len(size.steps) - 1:,} cells stand for {len(trace.layers):,} layers × {len(trace.steps):,} steps"
    return el("p", f"{label}: {cells}; each keeps its smallest and largest value, and shows its worst".removeprefix(": "), class_="note")


def _side(shown: View, *, with_layer: bool) -> Markup | None:
    present = list(_curves(shown))
    if not present and not with_layer:
        return None
    tabs = [_tab(name, i == 0, name) for i, (name, _) in enumerate(present)]
    tabs += [_tab("layer and step", not present, "history of a layer, profile of a step")] if with_layer else []
    names = el("div", *tabs, class_="tabs curves", role="tablist", aria_label="curve")
    ends = [_ends(label if label not in {"before", "after"} else f"{name} {label}", c) for name, lines in present for label, c in lines]
    table = el(
        "table",
        el("thead", el("tr", *(el("th", t, scope="col") for t in ("curve", "first", "lowest", "highest", "last")))),
        el("tbody", *ends),
    )
    details = el("details", el("summary", "As a table"), el("div", table, class_="scroll")) if ends else None
    said = el("p", "", class_="said", aria_live="polite")
    depth = [el("div", class_="plot along"), el("p", "", class_="said along", aria_live="polite")] if with_layer else []
    exact = el("div", class_="exact", hidden=True) if with_layer else None
    charts = el("div", el("div", el("div", class_="plot time"), said), el("div", *depth) if depth else None, class_="charts")
    return el("div", names, charts, exact, details, class_="card side")


def _curves(shown: View) -> Iterator[tuple[str, list[tuple[str, Curve]]]]:
    """Yields what is drawn on one axis: a curve and its twin of the validation, or one curve before and after."""
    for title, keys in CURVES:
        found = [k for k in keys if k in shown.curves]
        if not shown.curves_after:
            if found:
                yield title, [(k.replace("_", " "), shown.curves[k]) for k in found]
            continue
        for key in found:
            lines = [("before", shown.curves[key])] + ([("after", shown.curves_after[key])] if key in shown.curves_after else [])
            yield title if key == keys[0] else key.replace("_", " "), lines


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
    return el("tr", el("th", name, scope="row"), *cells)


def _table(plane: Plane, trace: Trace, label: str) -> Markup:
    bounds = grid(len(trace.steps), len(trace.layers)).rows
    groups = blocks(len(bounds) - 1, MAX_ROWS)
    spans = [(int(bounds[g[0]]), int(bounds[g[-1] + 1]) - 1) for g in groups]
    titles = ("layer", f"step {int(trace.steps[0]):,}", "lowest", "highest", f"step {int(trace.steps[-1]):,}", "zero", "not finite")
    head = el("tr", *(el("th", t, scope="col", class_="n" if i else None) for i, t in enumerate(titles)))
    body = [_line(plane, trace, rows, *span) for rows, span in zip(groups, spans, strict=True)]
    table = el("table", el("caption", f"{label}: {plane.title}".removeprefix(": ")), el("thead", head), el("tbody", *body))
    return el("div", table, class_="scroll tall")


def _line(plane: Plane, trace: Trace, rows: npt.NDArray[np.int64], first: int, last: int) -> Markup:
    least, greatest = plane.pooled.least[:, rows], plane.pooled.greatest[:, rows]
    known = np.concatenate([side[np.isfinite(side)] for side in (least, greatest)])
    ends = [float(plane.values[0, rows[0]]), float(plane.values[-1, rows[0]])]
    span = [float(known.min()), float(known.max())] if len(known) else [math.nan, math.nan]
    counts = [int(count[rows].sum()) for count in (plane.pooled.zeros, plane.pooled.infinite)]
    word = "steps" if last == first else "values"
    cells = [*(value_text(plane, v) for v in (ends[0], *span, ends[1])), *(f"{c:,} {word}" if c else "–" for c in counts)]
    return el("tr", el("th", span_label(trace, first, last), scope="row"), *(el("td", c, class_="n") for c in cells))


def _data(shown: View, parts: list[Part]) -> dict[str, Any]:
    curves = [{"name": name, "lines": [_points(label, c) for label, c in lines]} for name, lines in _curves(shown)]
    out: dict[str, Any] = {"curves": curves}
    if parts:
        out["pictures"] = [
            {"label": label, **picture(trace, grid(len(trace.steps), len(trace.layers)), found)} for label, trace, found in parts
        ]
    return out


def _points(name: str, curve: Curve) -> dict[str, Any]:
    steps, values = thin(curve.steps, curve.values)
    return {
        "name": name,
        "steps": [int(s) for s in steps],
        "values": [float(f"{v:.6g}") if np.isfinite(v) else None for v in values],
    }
