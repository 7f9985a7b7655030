"""Trace -> what is drawn for each layer and step: values, zeros, values that are not finite, gaps."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from evengrad.signals import update_ratio
from evengrad.types import Floats, Series, Steps, Trace

Bools = npt.NDArray[np.bool_]
MAX_ROWS, MAX_STEPS = 240, 400  # what a picture can show; beyond it neighbours are pooled


@dataclass(frozen=True, kw_only=True)
class Plane:
    """One signal for every layer and sampled step, ready to draw.

    Attributes:
        key: Short name, also the name of its tab.
        title: What it is, in words.
        unit: What follows a value: ` of the last layer`.
        scale: `log` (diverging around `centre`, in decades) or `fraction` (0 to 1).
        centre: log10 of the value drawn in the neutral colour.
        reach: Decades on each side that the colours span.
        low: What the cold side means.
        high: What the warm side means.
        values: float32 (S, L); 0 is exactly zero, infinite is not finite, NaN was not seen.
    """

    key: str
    title: str
    unit: str
    scale: str
    values: Floats
    centre: float = 0.0
    reach: float = 2.0
    low: str = "weaker"
    high: str = "stronger"


def planes(trace: Trace) -> tuple[Plane, ...]:
    """Builds the planes that the trace has data for, the gradient first."""
    gradient = Plane(
        key="gradient",
        title="gradient that reaches each layer, relative to the last",
        unit=" of the last layer",
        scale="log",
        values=held(relative(trace, "grad_out_norm", last=True)),
        low="weaker than the last layer",
    )
    spread = Plane(
        key="spread",
        title="signal across samples, relative to the first layer",
        unit=" of the first layer",
        scale="log",
        values=held(relative(trace, "out_spread", last=False)),
        low="weaker than the first layer",
    )
    update = Plane(
        key="update / weight",
        title="size of a step relative to the weight",
        unit=" of the weight",
        scale="log",
        centre=-3.0,  # the usual target of a healthy update, 1e-3 of the weight
        values=marked(trace, _float32(update_ratio(trace))),
        low="smaller than 0.001",
        high="larger",
    )
    fractions = [
        Plane(key=key, title=title, unit=unit, scale="fraction", values=held(marked(trace, trace.column(column))), low="none", high="all")
        for key, column, title, unit in (
            ("dead", "dead_fraction", "units that are off for every sample", " of the units"),
            ("saturated", "saturated_fraction", "activations that are flat where they stand", " of the activations"),
        )
    ]
    return tuple(_stretched(p) for p in (gradient, spread, update, *fractions) if not np.isnan(p.values).all())


def deep_mask(trace: Trace) -> Bools:
    """Returns (L,) True for rows that enter a slope; every row if none does."""
    mask = np.array([layer.depth is not None for layer in trace.layers], bool)
    return mask if mask.any() else np.ones(len(trace.layers), bool)


def relative(trace: Trace, column: str, *, last: bool) -> Floats:
    """Returns (S, L) values relative to the last (or first) deep row of the same step that is finite and above zero."""
    values = marked(trace, trace.column(column)).astype(np.float64)
    usable = np.isfinite(values) & (values > 0) & deep_mask(trace)
    order = usable[:, ::-1] if last else usable
    index = np.argmax(order, 1) if usable.shape[1] else np.zeros(len(values), np.int64)
    index = usable.shape[1] - 1 - index if last else index
    base = np.where(usable.any(1), values[np.arange(len(values)), index], np.nan) if usable.shape[1] else np.ones(len(values))
    with np.errstate(over="ignore", invalid="ignore"):
        ratio = values / base[:, None]
    ratio[np.isinf(values)] = np.inf
    ratio[values == 0] = 0.0
    return _float32(ratio)


def held(values: Floats) -> Floats:
    """Returns the values (S, L), where nothing was looked at those seen last: a watch looks into layers now and then."""
    seen = ~np.isnan(values).all(1)
    last = np.maximum.accumulate(np.where(seen, np.arange(len(values)), 0))  # before the first look: the first step, unseen as well
    out: Floats = values[last]
    return out


def marked(trace: Trace, column: Floats) -> Floats:
    """Returns the column with every value that is not finite as infinity, and NaN only where nothing was seen.

    A NaN is a value where the row was finite at another step, or where the step itself blew up; otherwise the row was not seen.
    A step without any value was not looked at.
    """
    finite, infinite = np.isfinite(column), np.isinf(column)
    blown = _blown(trace) | infinite.any(1)  # (S,)
    recorded = blown | finite.any(1)
    value = (finite.any(0) & recorded[:, None]) | (blown[:, None] & deep_mask(trace))
    out: Floats = np.where((np.isnan(column) & value) | infinite, np.float32(np.inf), column)
    return out


def pooled(values: Floats, rows: list[npt.NDArray[np.int64]], steps: list[npt.NDArray[np.int64]]) -> Floats:
    """Returns (len(steps), len(rows)): the middle of each block, or its worst state (not finite before exactly zero)."""
    if all(len(r) == 1 for r in rows) and all(len(s) == 1 for s in steps):
        return values
    out = np.empty((len(steps), len(rows)), np.float32)
    for i, s in enumerate(steps):
        for j, r in enumerate(rows):
            out[i, j] = _middle(values[np.ix_(s, r)].ravel())
    return out


def blocks(count: int, most: int) -> list[npt.NDArray[np.int64]]:
    """Splits 0 … count-1 into at most `most` runs of neighbours."""
    return [np.asarray(part, np.int64) for part in np.array_split(np.arange(count), min(count, most))] if count else []


def shown_index(trace: Trace, step: int) -> int:
    """Returns the index of the sampled step nearest to `step`."""
    return int(np.argmin(np.abs(trace.steps - step))) if len(trace.steps) else 0


def thin(steps: Steps, values: Series, most: int = 600) -> tuple[Steps, Series]:
    """Returns at most about `most` points that keep every block's smallest, largest and non-finite value."""
    if len(steps) <= most:
        return steps, values
    keep: set[int] = {0, len(steps) - 1}
    for part in blocks(len(steps), most // 2):
        chunk = values[part]
        finite = np.isfinite(chunk)
        keep |= {int(part[k]) for k in np.flatnonzero(~finite)[:1]}
        if finite.any():
            keep |= {int(part[np.where(finite, chunk, np.inf).argmin()]), int(part[np.where(finite, chunk, -np.inf).argmax()])}
    index = np.array(sorted(keep), np.int64)
    return steps[index], values[index]


def _stretched(plane: Plane) -> Plane:
    """The colours reach as far as the data, between two decades (noise stays pale) and twenty."""
    usable = plane.values[np.isfinite(plane.values) & (plane.values > 0)]
    if plane.scale != "log" or not len(usable):
        return plane
    return replace(plane, reach=float(np.clip(np.ceil(np.abs(np.log10(usable) - plane.centre).max()), 2, 20)))


def _middle(block: Floats) -> np.float32:
    if np.isinf(block).any():
        return np.float32(np.inf)
    seen = block[~np.isnan(block)]
    if not len(seen):
        return np.float32(np.nan)
    return np.float32(0.0) if (seen == 0).any() else np.float32(np.median(seen))


def _blown(trace: Trace) -> Bools:
    """Returns (S,) True where the loss at a sampled step was not finite."""
    loss = trace.curves.get("loss")
    if loss is None:
        value = (trace.facts.loss or {}).get("value", 0.0)
        return np.full(len(trace.steps), isinstance(value, float) and not np.isfinite(value))
    return np.isin(trace.steps, loss.steps[~np.isfinite(loss.values)])


def _float32(values: npt.NDArray[np.float64]) -> Floats:
    """Casts ratios so that a ratio above zero stays above zero and a finite one stays finite."""
    tiny, huge = np.finfo(np.float32).tiny, np.finfo(np.float32).max
    out = np.where((values > 0) & np.isfinite(values), np.clip(values, tiny, huge), values)
    return out.astype(np.float32)
