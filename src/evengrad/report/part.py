"""A part of a run -> its picture with exact numbers, as many as there are cells for: what a page asks a server for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from evengrad.report.cells import picture
from evengrad.report.planes import Plane, exactly
from evengrad.report.pyramid import MAX_LAYERS, MAX_STEPS, joined, pool, window, worst
from evengrad.types import Trace

_AT_ONCE = 4_000_000  # layers by steps that are worked on at a time


def part(trace: Trace, plane: Plane, steps: tuple[int, int], rows: tuple[int, int]) -> dict[str, Any]:
    """Returns what the page's script draws of some sampled steps and rows; one cell a number where there are at most 500 by 1,000.

    Args:
        trace: The run.
        plane: A signal of the whole run.
        steps: Numbers of the first sampled step and of the one past the last; what lies outside the run is left out.
        rows: First row and the one past the last, likewise.
    """
    along, down = (_within(ends, count) for ends, count in ((steps, len(trace.steps)), (rows, len(trace.layers))))
    size = window(along, down)
    most, parts = max(1, _AT_ONCE // (down.stop - down.start)), []
    for start, stop in size.windows(most):
        values = exactly(trace, plane, slice(start, stop), down)
        parts.append(pool(values, size.within(start, stop), size.rows - down.start))
    pooled = joined(parts)
    own = replace(plane, pooled=pooled, values=worst(pooled, None if plane.scale == "fraction" else plane.centre))
    return {"label": "", **picture(trace, size, [own], exact=MAX_LAYERS * MAX_STEPS)}


def _within(ends: tuple[int, int], count: int) -> slice:
    first = min(max(0, ends[0]), count - 1)
    return slice(first, min(max(first + 1, ends[1]), count))
