"""Trace -> what is drawn for each layer and step: values, zeros, values that are not finite, gaps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from evengrad.report.pyramid import Grid, Pooled, grid, joined, pool, worst
from evengrad.signals import update_ratio
from evengrad.types import Floats, Series, Steps, Trace

Bools = npt.NDArray[np.bool_]
MAX_ROWS = 240  # bars and lines of a table that one looks through; beyond it neighbours are taken together
_WINDOW = 2_000_000  # layers by steps that are worked on at a time: a run of any length fits


@dataclass(frozen=True, kw_only=True)
class Plane:
    """One signal for every layer and sampled step, ready to draw; beyond 500 layers or 1,000 steps, neighbours are one cell.

    Attributes:
        key: Short name, also the name of its tab.
        title: What it is, in words.
        unit: What follows a value: ` of the last layer`.
        scale: `log` (diverging around `centre`, in decades) or `fraction` (0 to 1).
        centre: log10 of the value drawn in the neutral colour.
        reach: Decades on each side that the colours span.
        low: What the cold side means.
        high: What the warm side means.
        pooled: Smallest and largest value of each cell, and counts by layer.
        values: float32 (steps, rows), the worst of each cell; 0 is exactly zero, infinite is not finite, NaN was not seen.
    """

    key: str
    title: str
    unit: str
    scale: str
    pooled: Pooled
    values: Floats
    centre: float = 0.0
    reach: float = 2.0
    low: str = "weaker"
    high: str = "stronger"


@dataclass(frozen=True, kw_only=True)
class _Signal:
    """How one plane is made: `of` takes a part of the trace, and which layers were finite at some step of the whole."""

    key: str
    title: str
    unit: str
    scale: str
    needs: tuple[str, ...]
    of: Callable[[Trace, Bools], Floats]
    centre: float = 0.0
    low: str = "weaker"
    high: str = "stronger"
    holds: bool = True


def _updates(trace: Trace, ever: Bools) -> Floats:
    out = marked(trace, _float32(update_ratio(trace)), ever=ever)
    out[trace.column("weight_norm") == 0] = np.nan  # a ratio to nothing says nothing
    return out


SIGNALS = (
    _Signal(
        key="gradient",
        title="gradient that reaches each layer, relative to the last",
        unit=" of the last layer",
        scale="log",
        needs=("grad_out_norm",),
        of=lambda trace, ever: relative(trace, "grad_out_norm", last=True, ever=ever),
        low="weaker than the last layer",
    ),
    _Signal(
        key="spread",
        title="signal across samples, relative to the first layer",
        unit=" of the first layer",
        scale="log",
        needs=("out_spread",),
        of=lambda trace, ever: relative(trace, "out_spread", last=False, ever=ever),
        low="weaker than the first layer",
    ),
    _Signal(
        key="update / weight",
        title="size of a step relative to the weight",
        unit=" of the weight",
        scale="log",
        needs=("update_norm", "weight_norm"),
        of=_updates,
        centre=-3.0,  # the usual target of a healthy update, 1e-3 of the weight
        low="smaller than 0.001",
        high="larger",
        holds=False,
    ),
    *(
        _Signal(
            key=key,
            title=title,
            unit=unit,
            scale="fraction",
            needs=(column,),
            of=lambda trace, ever, column=column: marked(trace, trace.column(column), ever=ever),  # type: ignore[misc]
            low="none",
            high="all",
        )
        for key, column, title, unit in (
            ("dead", "dead_fraction", "units that are off for every sample", " of the units"),
            ("saturated", "saturated_fraction", "activations that are flat where they stand", " of the activations"),
        )
    ),
)


def planes(trace: Trace) -> tuple[Plane, ...]:
    """Builds the planes that the trace has data for, the gradient first."""
    size = grid(len(trace.steps), len(trace.layers))
    made = (_plane(trace, size, s) for s in SIGNALS if all(n in trace.columns for n in s.needs))
    return tuple(_stretched(p) for p in made if p is not None)


def _plane(trace: Trace, size: Grid, signal: _Signal) -> Plane | None:
    if not len(trace.steps) or not trace.layers:
        return None
    pooled = joined([pool(values, size.within(start, stop), size.rows) for start, stop, values in _windows(trace, size, signal)])
    if np.isnan(pooled.least).all():
        return None
    names = ("key", "title", "unit", "scale", "centre", "low", "high")
    fields = {name: getattr(signal, name) for name in names}
    return Plane(**fields, pooled=pooled, values=worst(pooled, None if signal.scale == "fraction" else signal.centre))


def _windows(trace: Trace, size: Grid, signal: _Signal) -> Iterator[tuple[int, int, Floats]]:
    """Yields the signal of some steps after the other, so that what is in between never has the size of the run."""
    ever = _ever(trace, signal.needs)
    before: Floats | None = None
    for start, stop in size.windows(max(1, _WINDOW // max(1, len(trace.layers)))):
        values = signal.of(between(trace, start, stop), ever)
        if signal.holds:
            values = held(values, before)
            before = values[-1]
        yield start, stop, values


def between(trace: Trace, start: int, stop: int) -> Trace:
    """Returns sampled steps number `start` up to `stop` without copying them."""
    part = slice(start, stop)
    return replace(trace, steps=trace.steps[part], columns={k: v[part] for k, v in trace.columns.items()}, planes={})


def _ever(trace: Trace, names: tuple[str, ...]) -> Bools:
    """Returns (L,) True for layers with a finite value at some step in each of the columns."""
    out: Bools = np.logical_and.reduce([np.isfinite(trace.column(name)).any(0) for name in names])
    return out


def at_step(trace: Trace, column: str, index: int, *, last: bool) -> Floats:
    """Returns (L,) what `relative` gives at one sampled step, without the others."""
    out: Floats = relative(between(trace, index, index + 1), column, last=last, ever=_ever(trace, (column,)))[0]
    return out


def deep_mask(trace: Trace) -> Bools:
    """Returns (L,) True for rows that enter a slope; every row if none does."""
    mask = np.array([layer.depth is not None for layer in trace.layers], bool)
    return mask if mask.any() else np.ones(len(trace.layers), bool)


def relative(trace: Trace, column: str, *, last: bool, ever: Bools | None = None) -> Floats:
    """Returns (S, L) values relative to the last (or first) deep row of the same step that is finite and above zero."""
    values = marked(trace, trace.column(column), ever=ever).astype(np.float64)
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


def held(values: Floats, before: Floats | None = None) -> Floats:
    """Returns the values (S, L), where nothing was looked at those seen last: a watch looks into layers now and then.

    Args:
        values: A window of the run.
        before: What was held at the end of the window before (L,).
    """
    if before is not None:
        return held(np.concatenate([before[None], values]))[1:]
    seen = ~np.isnan(values).all(1)
    last = np.maximum.accumulate(np.where(seen, np.arange(len(values)), 0))  # before the first look: the first step, unseen as well
    out: Floats = values[last]
    return out


def marked(trace: Trace, column: Floats, *, ever: Bools | None = None) -> Floats:
    """Returns the column with every value that is not finite as infinity, and NaN only where nothing was seen.

    A NaN is a value where the row was finite at another step, or where the step itself blew up; otherwise the row was not seen.
    A step without any value was not looked at. `ever` tells which rows (L,) were finite at some step of the whole run, for a part of it.
    """
    finite, infinite = np.isfinite(column), np.isinf(column)
    blown = _blown(trace) | infinite.any(1)  # (S,)
    recorded = blown | finite.any(1)
    value = ((finite.any(0) if ever is None else ever) & recorded[:, None]) | (blown[:, None] & deep_mask(trace))
    out: Floats = np.where((np.isnan(column) & value) | infinite, np.float32(np.inf), column)
    return out


def middles(values: Floats, groups: list[npt.NDArray[np.int64]]) -> Floats:
    """Returns the middle of each group of values (L,), or its worst state: not finite before exactly zero."""
    return np.array([_middle(values[g]) for g in groups], np.float32)


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
    ends = np.concatenate([plane.pooled.least.ravel(), plane.pooled.greatest.ravel()])
    usable = ends[np.isfinite(ends) & (ends > 0)]
    if plane.scale != "log" or not len(usable):
        return plane
    span = np.log10([usable.min(), usable.max()], dtype=np.float64) - plane.centre
    return replace(plane, reach=float(np.clip(np.ceil(np.abs(span).max()), 2, 20)))


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
