"""planes of a run -> rows of coloured blocks for a terminal: layers by steps, in as many characters as there is room for."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from evengrad.report.numbers import number, percent
from evengrad.report.planes import Plane, blocks
from evengrad.report.profile import Bar, layer_label
from evengrad.report.pyramid import grid
from evengrad.types import Trace

ROWS, COLUMNS = 8, 60  # characters of a strip


def strips(plane: Plane, trace: Trace, room: int) -> Iterator[tuple[str, list[Bar]]]:
    """Yields (label, bars) from the output down to the input: a bar is the worst of the layers and steps that it stands for.

    Args:
        plane: The signal.
        trace: The run it is of.
        room: Characters that a row has.
    """
    steps, rows = blocks(plane.values.shape[0], min(room, COLUMNS)), blocks(plane.values.shape[1], ROWS)
    bounds = grid(len(trace.steps), len(trace.layers)).rows
    for group in reversed(rows):
        yield (
            _label(trace, int(bounds[group[0]]), int(bounds[group[-1] + 1]) - 1),
            [_bar(plane, plane.values[np.ix_(part, group)]) for part in steps],
        )


def is_odd(plane: Plane) -> bool:
    """Tells whether a picture would show more than a line says: more than half of something flat or dead, or a decade off."""
    least, greatest = plane.pooled.least, plane.pooled.greatest
    if plane.scale == "fraction":
        return bool((greatest > 0.5).any())
    known = np.concatenate([side[np.isfinite(side) & (side > 0)] for side in (least, greatest)])
    lost = bool(plane.pooled.zeros.any() or plane.pooled.infinite.any())
    return lost or bool(len(known) and np.abs(np.log10(known) - plane.centre).max() > 1)


def range_of(plane: Plane) -> str:
    """Returns `0.33 to 1.2 of the first layer`, or `0% of the units`, over all layers and steps."""
    known = np.concatenate([side[np.isfinite(side)] for side in (plane.pooled.least, plane.pooled.greatest)])
    if not len(known):
        return "nothing finite"
    said = percent if plane.scale == "fraction" else number
    low, high = said(float(known.min())), said(float(known.max()))
    return f"{low}{plane.unit}" if low == high else f"{low} to {high}{plane.unit}"


def _label(trace: Trace, first: int, last: int) -> str:
    names = [layer_label(trace, row, name=False) for row in (first, last)]
    if first == last:
        return names[0]
    depths = [trace.layers[row].depth for row in (first, last)]
    return f"layer {depths[0]:,}–{depths[1]:,}" if None not in depths else f"{names[0]} – {names[1]}"


def ends(plane: Plane) -> tuple[str, str]:
    """Returns what the lowest and the highest block mean."""
    if plane.scale == "fraction":
        return percent(0.0), percent(1.0)
    return number(10 ** (plane.centre - plane.reach)), number(10 ** (plane.centre + plane.reach))


def _bar(plane: Plane, block: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Bar:
    seen = block[~np.isnan(block)].astype(np.float64)
    if not len(seen):
        return _state("unseen")
    if np.isinf(seen).any():
        return _state("nan")
    if plane.scale == "fraction":
        share = float(seen.max())
        return Bar(label="", state="value", value=share, height=share, decades=8 * share, text="")
    if (seen == 0).any():
        return _state("zero")
    away = np.log10(seen) - plane.centre
    worst = float(away[np.abs(away).argmax()])
    height = min(1.0, max(0.0, (worst / plane.reach + 1) / 2))
    return Bar(label="", state="value", value=10 ** (worst + plane.centre), height=height, decades=8 * worst / plane.reach, text="")


def _state(state: str) -> Bar:
    return Bar(label="", state=state, value=math.nan, height=0.0, decades=0.0, text="")
