"""Report -> the gradient that reaches each layer, before and after, on one log axis."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from evengrad.report.numbers import factor, fixed, number
from evengrad.report.planes import MAX_ROWS, at_step, blocks, deep_mask, middles, shown_index
from evengrad.report.report import Report
from evengrad.signals.depth import slope
from evengrad.types import Finding, Floats, Trace

GRADIENT = {"vanishing_gradient", "exploding_gradient"}


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One layer: `state` is `value`, `zero`, `nan` or `unseen`; `height` in [0, 1] on the common axis; `decades` = log10 of the value.

    `gain` is the factor from the layer above to this one: 0 where it loses all, infinite where it is not finite, NaN for the last.
    """

    label: str
    state: str
    value: float
    height: float
    decades: float
    text: str
    gain: float = math.nan
    kind: str = ""

    @property
    def gain_text(self) -> str:
        """The gain in words: `×0.24`."""
        if math.isnan(self.gain):
            return "–"
        return "not finite" if math.isinf(self.gain) else factor(self.gain) if self.gain else "×0"


@dataclass(frozen=True, kw_only=True)
class Strip:
    """The bars of one trace, input first, and its slope in words."""

    label: str
    bars: tuple[Bar, ...]
    slope: str


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One strip (before), or two (before, after), on one axis from `low` to `high` decades; ticks are (decades, text)."""

    strips: tuple[Strip, ...]
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    first: str
    last: str


def profile(report: Report) -> Profile | None:
    """Builds the strips, or None where no gradient was recorded."""
    traces = [(label, t) for label, t in (("before", report.trace), ("after", report.after)) if t is not None and t.layers and len(t.steps)]
    rows = [(label, t, i := _index(report, t), at_step(t, "grad_out_norm", i, last=True)) for label, t in traces]
    rows = [r for r in rows if not np.isnan(r[3]).all()]
    if not rows:
        return None
    low, high = _axis(np.concatenate([np.log10(v[np.isfinite(v) & (v > 0)], dtype=np.float64) for *_, v in rows]))
    strips = tuple(
        Strip(label=label if len(traces) > 1 else _when(t, i), bars=_bars(t, v, low, high), slope=slope_text(t, i))
        for label, t, i, v in rows
    )
    bars = strips[0].bars
    return Profile(strips=strips, low=low, high=high, ticks=_ticks(low, high), first=bars[0].label, last=bars[-1].label)


def slope_text(trace: Trace, index: int = 0) -> str:
    """Returns `×0.24 a layer (−0.62 decades, R² 1.00)`, or nothing where there is no slope."""
    found = slope(trace, index=index)
    return f"{factor(found.gain)} a layer ({fixed(found.decades)} decades, R² {fixed(found.r2)})" if found else ""


def gradient_word(report: Report, finding: Finding | None) -> str:
    """Returns what the gradient does on its way down; nothing where another symptom is the news."""
    trace = report.trace
    if trace is None or not len(trace.steps) or (finding is not None and finding.symptom not in GRADIENT):
        return ""
    index = _index(report, trace)
    text, values = slope_text(trace, index), at_step(trace, "grad_out_norm", index, last=True)
    deep = [int(i) for i in np.flatnonzero(deep_mask(trace)) if np.isfinite(values[i])]
    if not text or len(deep) < 2:
        return ""
    first, last = (layer_label(trace, i, name=False) for i in (deep[0], deep[-1]))
    return f"Gradient on its way down: {text}; {first} receives {number(float(values[deep[0]]))} of what {last} gets."


def layer_count(trace: Trace) -> int:
    """Returns the number of layers that enter a slope; all rows where none does."""
    return int(deep_mask(trace).sum())


def layer_label(trace: Trace, row: int, *, name: bool = True) -> str:
    """Returns `layer 7 (net.12)`; a row outside the count goes by its name."""
    layer = trace.layers[row]
    if layer.depth is None:
        return layer.name or "model"
    return f"layer {layer.depth} ({layer.name})" if name and layer.name else f"layer {layer.depth}"


def span_label(trace: Trace, first: int, last: int) -> str:
    """Returns the label of one row, or `layer 1 (net.0) to layer 10 (net.18)`."""
    return layer_label(trace, first) + (f" to {layer_label(trace, last)}" if last > first else "")


def _index(report: Report, trace: Trace) -> int:
    """The step of the first gradient finding, else the first one: initial signals decide."""
    step = next((f.steps[1] for f in report.findings if f.symptom in GRADIENT), int(trace.steps[0]) if len(trace.steps) else 0)
    return shown_index(trace, step)


def _when(trace: Trace, index: int) -> str:
    return f"at step {int(trace.steps[index]):,}" if len(trace.steps) > 1 else ""


def _bars(trace: Trace, values: Floats, low: float, high: float) -> tuple[Bar, ...]:
    rows = np.flatnonzero(deep_mask(trace))
    groups = blocks(len(rows), MAX_ROWS)
    heights, gains = middles(values[rows], groups), middles(_gains(values[rows]), groups)
    labels = [span_label(trace, int(rows[g[0]]), int(rows[g[-1]])) for g in groups]
    return tuple(
        replace(_bar(label, float(v), low, high), gain=float(g), kind=_kind(trace, int(rows[group[0]])))
        for label, v, g, group in zip(labels, heights, gains, groups, strict=True)
    )


def _gains(values: Floats) -> Floats:
    """Returns by what each layer's gradient is a multiple of the one above it (L,): 0 where it is lost, NaN where nothing can be said."""
    out = np.full(len(values), np.nan, np.float32)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        out[:-1] = values[:-1] / values[1:]  # both relative to the same layer
    out[:-1][np.isinf(values[:-1])] = np.inf
    out[:-1][(values[1:] == 0) | np.isinf(values[1:])] = np.nan
    return out


def _kind(trace: Trace, row: int) -> str:
    layer = trace.layers[row]
    shape = f" {layer.fan_in} → {layer.fan_out}" if layer.fan_in else ""
    then = "" if layer.activation in {"none", "unknown"} else f", {layer.activation.replace('_', ' ')}"
    return f"{layer.kind.replace('_', ' ')}{shape}{then}"


def _bar(label: str, value: float, low: float, high: float) -> Bar:
    if math.isnan(value):
        return Bar(label=label, state="unseen", value=value, height=0.0, decades=0.0, text="not seen")
    if math.isinf(value):
        return Bar(label=label, state="nan", value=value, height=1.0, decades=0.0, text="not finite")
    if value == 0:
        return Bar(label=label, state="zero", value=value, height=0.0, decades=low, text="exactly zero")
    decades = math.log10(value)
    height = min(1.0, max(0.0, (decades - low) / (high - low)))
    return Bar(label=label, state="value", value=value, height=height, decades=decades, text=f"{number(value)} of the last layer")


def _axis(seen: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> tuple[float, float]:
    """At least from a hundredth to ten, so that noise does not look like a trend; the smallest bar keeps some height."""
    low = min(-2.0, math.floor(float(seen.min()) - 0.35)) if len(seen) else -2.0
    high = max(1.0 if low == -2.0 else 0.0, math.ceil(float(seen.max()) - 0.15)) if len(seen) else 1.0
    return low, float(high)


def _ticks(low: float, high: float) -> tuple[tuple[float, str], ...]:
    span = high - low
    step = next(s for s in (1, 2, 3, 4, 5, 10, 20, 50, 100) if span / s <= 4.5 or s == 100)
    marks = [d for d in range(math.ceil(low), math.floor(high) + 1) if d % step == 0 and d > low]
    return tuple((float(d), "1" if d == 0 else f"{10.0**d:g}" if -2 <= d <= 2 else f"1e{d}") for d in marks)
