"""View of many steps -> the picture of the run: layers by steps on a canvas, its numbers as a table, curves beside it."""

from __future__ import annotations

import base64
import math
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from evengrad.report.layers import value_text
from evengrad.report.markup import Markup, data_block, el
from evengrad.report.numbers import number
from evengrad.report.planes import MAX_ROWS, Plane, blocks, thin
from evengrad.report.profile import layer_label, span_label
from evengrad.report.pyramid import grid
from evengrad.report.view import View
from evengrad.types import Curve, Floats, Trace

EXACT_CELLS = 60_000  # up to here values are kept to the last bit; beyond, to about a thousandth, and compressed
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
    label = (
        f"{len(trace.layers):,} layers by {len(trace.steps):,} sampled steps; arrow keys move, Enter shows the layer's history "
        "and the step's profile, plus and minus zoom, Escape shows all"
    )
    canvas = el("canvas", class_="heat", tabindex="0", role="application", aria_label=label, aria_roledescription="map of layers by steps")
    first, last = int(trace.steps[0]), int(trace.steps[-1])
    ends = el(
        "div",
        el("span", f"step {first:,}"),
        el("span", "input at the bottom, output at the top", class_="where"),
        el("span", f"step {last:,}"),
        class_="ends run",
    )
    hint = "hover or arrow keys: step and layer · click or Enter: the layer's history, the step's profile · drag: zoom"
    read = el("p", hint, class_="read", aria_live="polite")
    size = grid(len(trace.steps), len(trace.layers))
    shape = f"{len(size.rows) - 1:,} × {len(size.steps) - 1:,} cells stand for {len(trace.layers):,} layers × {len(trace.steps):,} steps; "
    note = None if size.whole else el("p", f"{shape}each keeps its smallest and largest value, and shows its worst", class_="note")
    return el("div", tabs, canvas, ends, read, el("div", class_="legend key"), note, _tables(shown, trace), class_="card")


def _side(shown: View, *, with_layer: bool) -> Markup | None:
    present = [name for name, keys in CURVES if any(k in shown.curves for k in keys)]
    if not present and not with_layer:
        return None
    tabs = [_tab(name, i == 0, name) for i, name in enumerate(present)]
    tabs += [_tab("layer and step", not present, "history of a layer, profile of a step")] if with_layer else []
    names = el("div", *tabs, class_="tabs curves", role="tablist", aria_label="curve")
    ends = [_ends(k, shown.curves[k]) for _, keys in CURVES for k in keys if k in shown.curves]
    table = el(
        "table",
        el("thead", el("tr", *(el("th", t, scope="col") for t in ("curve", "first", "lowest", "highest", "last")))),
        el("tbody", *ends),
    )
    details = el("details", el("summary", "As a table"), el("div", table, class_="scroll")) if ends else None
    said = el("p", "", class_="said", aria_live="polite")
    depth = [el("div", class_="plot along"), el("p", "", class_="said along", aria_live="polite")] if with_layer else []
    return el("div", names, el("div", class_="plot time"), said, *depth, details, class_="card side")


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
    bounds = grid(len(trace.steps), len(trace.layers)).rows
    groups = blocks(len(bounds) - 1, MAX_ROWS)
    spans = [(int(bounds[g[0]]), int(bounds[g[-1] + 1]) - 1) for g in groups]
    return el("details", el("summary", "As a table"), *(_table(p, trace, groups, spans) for p in shown.planes))


def _table(plane: Plane, trace: Trace, groups: list[npt.NDArray[np.int64]], spans: list[tuple[int, int]]) -> Markup:
    titles = ("layer", f"step {int(trace.steps[0]):,}", "lowest", "highest", f"step {int(trace.steps[-1]):,}", "zero", "not finite")
    head = el("tr", *(el("th", t, scope="col", class_="n" if i else None) for i, t in enumerate(titles)))
    body = []
    for rows, (first, last) in zip(groups, spans, strict=True):
        least, greatest = plane.pooled.least[:, rows], plane.pooled.greatest[:, rows]
        known = np.concatenate([side[np.isfinite(side)] for side in (least, greatest)])
        ends = [float(plane.values[0, rows[0]]), float(plane.values[-1, rows[0]])]
        span = [float(known.min()), float(known.max())] if len(known) else [math.nan, math.nan]
        counts = [int(count[rows].sum()) for count in (plane.pooled.zeros, plane.pooled.infinite)]
        word = "steps" if last == first else "values"
        cells = [*(value_text(plane, v) for v in (ends[0], *span, ends[1])), *(f"{c:,} {word}" if c else "–" for c in counts)]
        body.append(el("tr", el("th", span_label(trace, first, last), scope="row"), *(el("td", c, class_="n") for c in cells)))
    table = el("table", el("caption", plane.title), el("thead", head), el("tbody", *body))
    return el("div", table, class_="scroll tall")


def _data(shown: View, trace: Trace | None) -> dict[str, Any]:
    curves = [{"name": name, "lines": [_line(k, shown.curves[k]) for k in keys if k in shown.curves]} for name, keys in CURVES]
    out: dict[str, Any] = {"curves": [c for c in curves if c["lines"]]}
    if trace is None:
        return out
    size = grid(len(trace.steps), len(trace.layers))
    names = [span_label(trace, int(a), int(b) - 1) for a, b in zip(size.rows, size.rows[1:], strict=False)]
    ends = [[int(trace.steps[a]), int(trace.steps[b - 1])] for a, b in zip(size.steps, size.steps[1:], strict=False)]
    short = [layer_label(trace, int(a), name=False) for a in size.rows[:-1]]
    short[-1] = layer_label(trace, len(trace.layers) - 1, name=False)
    return {**out, "steps": ends, "layers": names, "short": short, "planes": [_plane(p) for p in shown.planes]}


def _plane(plane: Plane) -> dict[str, Any]:
    fields = {k: getattr(plane, k) for k in ("key", "title", "unit", "scale", "centre", "reach", "low", "high")}
    least, greatest = plane.pooled.least, plane.pooled.greatest
    states = {"zero": bool(plane.pooled.zeros.any()), "infinite": bool(plane.pooled.infinite.any())}
    if least.size <= EXACT_CELLS and np.array_equal(least, greatest, equal_nan=True):
        return {**fields, **states, "values": base64.b64encode(greatest.astype("<f4").tobytes()).decode()}
    sides = {"greatest": packed(greatest)} | ({} if least is greatest else {"least": packed(least)})
    return {**fields, **states, **sides}


def packed(values: Floats) -> str:
    """Returns float32 values rounded to 9 bits, their bytes sorted by place, deflated, as text.

    Zero, infinity and NaN stay what they are; what is above zero, or finite, stays so.
    """
    bits = np.ascontiguousarray(values, "<f4").view("<u4")
    rounded = np.where(np.isfinite(values), (bits + 0x2000) & 0xFFFFC000, bits).astype("<u4")
    rounded = np.where(np.isinf(rounded.view("<f4")) & np.isfinite(values), bits, rounded)  # the largest numbers stay finite
    planes = rounded.reshape(-1).view(np.uint8).reshape(-1, 4).T
    squeezed = zlib.compressobj(6, zlib.DEFLATED, -15)
    return base64.b64encode(squeezed.compress(np.ascontiguousarray(planes).tobytes()) + squeezed.flush()).decode()


def _line(name: str, curve: Curve) -> dict[str, Any]:
    steps, values = thin(curve.steps, curve.values)
    return {
        "name": name.replace("_", " "),
        "steps": [int(s) for s in steps],
        "values": [float(f"{v:.6g}") if np.isfinite(v) else None for v in values],
    }
