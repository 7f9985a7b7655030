"""A rule and two traces -> what it looks at in a sick one and in a healthy one: two series on one axis, or words that differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from evengrad.report.numbers import number
from evengrad.types import Series, Trace


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A signal of a sick and of a healthy network.

    Attributes:
        name: The signal.
        along: What it runs along: `by layer, input first`.
        sick: Values (n,).
        healthy: Values (m,).
    """

    name: str
    along: str
    sick: Series
    healthy: Series


def pairs(needs: Sequence[str], sick: Trace, healthy: Sequence[Trace]) -> Iterator[Pair]:
    """Yields what can be drawn of each need, where the two differ."""
    for need in needs:
        for other in healthy:
            (bad, along), (good, _) = _series(sick, need), _series(other, need)
            if bad is not None and good is not None and max(len(bad), len(good)) > 1 and not _alike(bad, good):
                yield Pair(name=need.rpartition(".")[2], along=along, sick=bad, healthy=good)


def differences(sick: Trace, healthy: Sequence[Trace]) -> list[tuple[str, str, str]]:
    """Returns (what, sick, healthy) in words for the healthy trace that differs least, at most four."""
    words = ((_words(sick), _words(other)) for other in healthy)
    found = ([(key, _shown(a.get(key)), _shown(b.get(key))) for key in a | b if a.get(key) != b.get(key)] for a, b in words)
    return min((f for f in found if f), key=len, default=[])[:4]


def axis(rows: Sequence[Series]) -> tuple[float, float, bool]:
    """Returns low, high and whether it is logarithmic: where values span more than a decade and a half, and none is negative."""
    joined = np.concatenate(rows)
    finite = joined[np.isfinite(joined)] if np.isfinite(joined).any() else np.zeros(1)
    positive = finite[finite > 0]
    logarithmic = bool(len(positive) > 0 and finite.min() >= 0 and positive.max() > 30 * positive.min())
    low, high = (positive.min(), positive.max()) if logarithmic else (min(0.0, finite.min()), max(finite.max(), 1e-30))
    if not logarithmic and low >= 0 and 0.3 < high <= 1:
        high = 1.0  # a share
    return float(low), float(high), logarithmic


def _series(trace: Trace, need: str) -> tuple[Series | None, str]:
    """Returns the values behind a need, and along what they run."""
    kind, _, name = need.rpartition(".")
    if kind == "curves":
        return (trace.curves[name].values if name in trace.curves else None), "over the steps"
    if kind == "planes":
        plane = trace.planes.get(name)
        rows = None if plane is None else plane[~np.isnan(plane).all(2)]
        return (None if rows is None or not len(rows) else rows[-1].astype(np.float64)), "from first to last"
    if kind:
        return None, ""
    column = trace.column(name).astype(np.float64)
    if column.shape[1] == 1:
        return column[:, 0], "over the sampled steps"
    seen = column[~np.isnan(column).all(1)]
    return (seen[-1] if len(seen) else None), "by layer, input first"


def _alike(first: Series, second: Series) -> bool:
    return len(first) == len(second) and bool(np.array_equal(first, second, equal_nan=True))


def _words(trace: Trace) -> dict[str, object]:
    """Everything of a trace that is no series, by its path."""
    rows: dict[str, Any] = {f"layer {i + 1}": {**asdict(layer), "name": None} for i, layer in enumerate(trace.layers)}
    return dict(_leaves({"": asdict(trace.facts)} | rows, ""))


def _leaves(value: object, path: str) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{path} {key}".strip())
    elif isinstance(value, (list, tuple)) and any(isinstance(x, dict) for x in value):
        for item in value:
            yield from _leaves(item, path)
    elif value is not None:
        yield path, value


def _shown(value: object) -> str:
    text = "none" if value is None else number(float(value)) if isinstance(value, float) else str(value)
    return text if len(text) <= 30 else f"{text[:27]}..."
