"""A run's signals by layer and step -> the grid that the page's script draws: names, bounds and packed numbers."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from evengrad.report.planes import Plane
from evengrad.report.profile import layer_label, span_label
from evengrad.report.pyramid import Grid
from evengrad.types import Floats, Trace

EXACT_CELLS = 60_000  # up to here a page keeps values to the last bit; beyond, to about a thousandth, and compressed


def picture(trace: Trace, size: Grid, planes: Sequence[Plane], *, exact: int = EXACT_CELLS) -> dict[str, Any]:
    """Returns one picture as JSON values.

    Args:
        trace: The run.
        size: Where its cells begin: sampled steps and layers of the whole run, also where the picture shows a part.
        planes: Its signals on that grid.
        exact: Cells up to which values are kept to the last bit.
    """
    first, last = int(size.rows[0]), int(size.rows[-1])
    short = [layer_label(trace, int(a), name=False) for a in size.rows[:-1]]
    short[-1] = layer_label(trace, last - 1, name=False)
    return {
        "box": {"s0": int(size.steps[0]), "s1": int(size.steps[-1]), "l0": first, "l1": last},
        "steps": [[int(trace.steps[a]), int(trace.steps[b - 1])] for a, b in zip(size.steps, size.steps[1:], strict=False)],
        "layers": [span_label(trace, int(a), int(b) - 1) for a, b in zip(size.rows, size.rows[1:], strict=False)],
        "short": short,
        "planes": [_plane(p, exact) for p in planes],
    }


def _plane(plane: Plane, exact: int) -> dict[str, Any]:
    fields = {k: getattr(plane, k) for k in ("key", "title", "unit", "scale", "centre", "reach", "low", "high")}
    least, greatest = plane.pooled.least, plane.pooled.greatest
    states = {"zero": bool(plane.pooled.zeros.any()), "infinite": bool(plane.pooled.infinite.any())}
    if least.size <= exact and np.array_equal(least, greatest, equal_nan=True):
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
