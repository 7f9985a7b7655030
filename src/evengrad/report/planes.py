"""Trace -> what is drawn for each layer and step: values, zeros, values that are not finite, gaps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from evengrad.report.pyramid import Grid, Index, Pooled, grid, joined, pool, worst
from evengrad.signals import update_ratio
from evengrad.types import Floats, Series, Steps, Trace

Bools = npt.NDArray[np.bool_]
MAX_ROWS = 240  # bars and lines of a table that one looks through; beyond it neighbours are taken together
_WINDOW = 2_000_000  # layers by steps that are worked on at a time: a run of any length fits


@dataclass(frozen=True)
class Whole:
    """What a part of a signal has to know of the rest of the run.

    Attributes:
        ever: Rows with a finite value at some step (L,).
        blown: Sampled steps at which something was not finite (S,).
        recorded: Sampled steps that were looked at (S,).
        base: What the values of a step are relative to (S,); 1 where the signal is absolute.
        shown: Number of the sampled step whose values stand at each (S,): the last one that was looked at.
    """

    ever: Bools
    blown: Bools
    recorded: Bools
    base: Series
    shown: Index


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
        whole: What `exactly` needs to work out a part of it.
    """

    key: str
    title: str
    unit: str
    scale: str
    pooled: Pooled
    values: Floats
    whole: Whole
    centre: float = 0.0
    reach: float = 2.0
    low: str = "weaker"
    high: str = "stronger"


@dataclass(frozen=True, kw_only=True)
class _Signal:
    """How one plane is made: `raw` takes columns to values, each by itself; `last` names the row that they are relative to, if any."""

    key: str
    title: str
    unit: str
    scale: str
    needs: tuple[str, ...]
    raw: Callable[[Trace], Floats]
    last: bool | None = None
    hidden: Callable[[Trace], Bools] | None = None
    centre: float = 0.0
    low: str = "weaker"
    high: str = "stronger"
    holds: bool = True


def _column(name: str) -> Callable[[Trace], Floats]:
    return lambda trace: trace.column(name)


SIGNALS = (
    _Signal(
        key="gradient",
        title="gradient that reaches each layer, relative to the last",
        unit=" of the last layer",
        scale="log",
        needs=("grad_out_norm",),
        raw=_column("grad_out_norm"),
        last=True,
        low="weaker than the last layer",
    ),
    _Signal(
        key="spread",
        title="signal across samples, relative to the first layer",
        unit=" of the first layer",
        scale="log",
        needs=("out_spread",),
        raw=_column("out_spread"),
        last=False,
        low="weaker than the first layer",
    ),
    _Signal(
        key="update / weight",
        title="size of a step relative to the weight",
        unit=" of the weight",
        scale="log",
        needs=("update_norm", "weight_norm"),
        raw=lambda trace: _float32(update_ratio(trace)),
        hidden=lambda trace: trace.column("weight_norm") == 0,  # a ratio to nothing says nothing
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
            raw=_column(column),
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


def alike(before: tuple[Plane, ...], after: tuple[Plane, ...]) -> tuple[tuple[Plane, ...], tuple[Plane, ...]]:
    """Gives the planes of two runs one scale of colours each."""
    reach = {key: max(p.reach for p in (*before, *after) if p.key == key) for key in {p.key for p in (*before, *after)}}
    one, other = (tuple(replace(p, reach=reach[p.key]) for p in side) for side in (before, after))
    return one, other


def _plane(trace: Trace, size: Grid, signal: _Signal) -> Plane | None:
    if not len(trace.steps) or not trace.layers:
        return None
    wholes, parts = [], []
    for start, stop, values, whole in _windows(trace, size, signal):
        parts.append(pool(values, size.within(start, stop), size.rows))
        wholes.append(whole)
    pooled = joined(parts)
    if np.isnan(pooled.least).all():
        return None
    own = (np.concatenate([getattr(w, name) for w in wholes]) for name in ("blown", "recorded", "base", "shown"))
    names = ("key", "title", "unit", "scale", "centre", "low", "high")
    fields = {name: getattr(signal, name) for name in names}
    values = worst(pooled, None if signal.scale == "fraction" else signal.centre)
    return Plane(**fields, pooled=pooled, values=values, whole=Whole(wholes[0].ever, *own))


def _windows(trace: Trace, size: Grid, signal: _Signal) -> Iterator[tuple[int, int, Floats, Whole]]:
    """Yields the signal of some steps after the other, so that what is in between never has the size of the run."""
    ever = _ever(trace, signal.needs)
    before, seen_last = None, 0
    for start, stop in size.windows(max(1, _WINDOW // max(1, len(trace.layers)))):
        values, whole = _worked_out(between(trace, start, stop), signal, ever)
        shown = np.arange(start, stop)
        if signal.holds:
            shown = np.maximum.accumulate(np.where(np.isnan(values).all(1), seen_last, shown))
            seen_last = int(shown[-1])
            values = held(values, before)
            before = values[-1]
        yield start, stop, values, replace(whole, shown=shown)


def _worked_out(trace: Trace, signal: _Signal, ever: Bools) -> tuple[Floats, Whole]:
    """Returns the signal of whole steps (S, L), and what a part of them would have to know."""
    raw = signal.raw(trace)
    blown = _blown(trace) | np.isinf(raw).any(1)
    recorded = blown | np.isfinite(raw).any(1)
    values = _told(raw, ever, blown, recorded, deep_mask(trace))
    base = np.ones(len(raw)) if signal.last is None else _base(values, deep_mask(trace), last=signal.last)
    whole = Whole(ever, blown, recorded, base, np.arange(len(raw)))
    return _finished(values, base, signal, trace), whole


def _finished(values: Floats, base: Series, signal: _Signal, trace: Trace) -> Floats:
    out = values if signal.last is None else _ratios(values, base)
    if signal.hidden is not None:
        out[signal.hidden(trace)] = np.nan
    return out


def exactly(trace: Trace, plane: Plane, steps: slice, rows: slice) -> Floats:
    """Returns the signal of a part of the run (s, r), every number as it is; of sampled steps, by their numbers, and rows."""
    signal, whole = next(s for s in SIGNALS if s.key == plane.key), plane.whole
    index = whole.shown[steps]  # what stands there was seen there or before
    part = replace(
        trace,
        layers=trace.layers[rows],
        steps=trace.steps[index],
        columns={name: trace.column(name)[:, rows][index] for name in signal.needs},
        planes={},
    )
    values = _told(signal.raw(part), whole.ever[rows], whole.blown[index], whole.recorded[index], deep_mask(trace)[rows])
    return _finished(values, whole.base[index], signal, part)


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
    values = marked(trace, trace.column(column), ever=ever)
    return _ratios(values, _base(values, deep_mask(trace), last=last))


def _base(values: Floats, deep: Bools, *, last: bool) -> Series:
    """Returns the last (or first) value of each step (S,) that is finite and above zero, of the deep rows; NaN where there is none."""
    usable = np.isfinite(values) & (values > 0) & deep
    if not usable.shape[1]:
        return np.ones(len(values))
    order = usable[:, ::-1] if last else usable
    index = np.argmax(order, 1)
    index = usable.shape[1] - 1 - index if last else index
    return np.where(usable.any(1), values[np.arange(len(values)), index].astype(np.float64), np.nan)


def _ratios(values: Floats, base: Series) -> Floats:
    with np.errstate(over="ignore", invalid="ignore"):
        ratio = values.astype(np.float64) / base[:, None]
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
    finite: Bools = np.isfinite(column)
    blown = _blown(trace) | np.isinf(column).any(1)  # (S,)
    known: Bools = np.asarray(finite.any(0)) if ever is None else ever
    return _told(column, known, blown, blown | finite.any(1), deep_mask(trace))


def _told(column: Floats, ever: Bools, blown: Bools, recorded: Bools, deep: Bools) -> Floats:
    value = (ever & recorded[:, None]) | (blown[:, None] & deep)
    out: Floats = np.where((np.isnan(column) & value) | np.isinf(column), np.float32(np.inf), column)
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
