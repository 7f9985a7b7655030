"""A rule -> its page in words and two pictures, from its docstring, fields and examples."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields

import numpy as np

from evengrad.report.numbers import number
from evengrad.report.text import BLOCKS, NAN, UNSEEN, ZERO
from evengrad.rules import Rule
from evengrad.types import Series, Trace

_ROOM = 40  # blocks of a picture


def explanation(rule: type[Rule]) -> str:
    """Returns what the rule means, how a sick and a healthy network look, why it happens, what helps, its thresholds and its source."""
    doc = inspect.getdoc(rule) or ""
    story, _, reference = doc.partition("Reference:")
    story = story.partition("Attributes:")[0].strip()
    made, examples = rule(), rule.examples()
    sick = next(made.check(examples.sick[0]), None)
    example = [] if sick is None else ["", "for example", f"  {sick.message}"]
    drawn = pictures(made, examples.sick[0], examples.healthy)
    thresholds = [f"  {f.name} = {getattr(made, f.name)!r}" for f in fields(made)]
    return "\n".join(
        [
            f"{rule.code}: {rule.title}",
            "",
            story,
            *([""] if drawn else []),
            *drawn,
            *example,
            "",
            f"causes      {', '.join(rule.causes)}",
            f"what helps  {rule.helps}",
            f"decided by  {rule.signal[0]} ({rule.signal[1]})",
            f"needs       {', '.join(rule.needs)}",
            "thresholds",
            *thresholds,
            *(["", f"source      {' '.join(reference.split())}"] if reference else []),
        ]
    )


def pictures(rule: Rule, sick: Trace, healthy: Sequence[Trace]) -> list[str]:
    """Draws what the rule looks at in a sick trace and in a healthy one that differs: by layer, along time, over steps, or in words."""
    for need in rule.needs:
        for other in healthy:
            (bad, unit), (good, _) = _series(sick, need), _series(other, need)
            if bad is not None and good is not None and max(len(bad), len(good)) > 1 and not _alike(bad, good):
                (first, second), axis = _drawn((bad, good))
                if first == second:
                    continue
                return [f"  sick     {first}", f"  healthy  {second}", f"           {need.rpartition('.')[2]} {unit}, {axis}"]
    pairs = ((_words(sick), _words(other)) for other in healthy)
    differences = ([(key, a.get(key), b.get(key)) for key in a | b if a.get(key) != b.get(key)] for a, b in pairs)
    found = min((d for d in differences if d), key=len, default=[])[:4]
    told = (("sick", [(key, bad) for key, bad, _ in found]), ("healthy", [(key, good) for key, _, good in found]))
    return [f"  {label:<8} {', '.join(f'{key}: {_shown(value)}' for key, value in values)}" for label, values in told if values]


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


def _drawn(rows: Sequence[Series]) -> tuple[list[str], str]:
    """Draws rows on one axis: logarithmic where they span more than a decade and a half, and none is negative."""
    joined = np.concatenate(rows)
    finite = joined[np.isfinite(joined)] if np.isfinite(joined).any() else np.zeros(1)
    positive = finite[finite > 0]
    logarithmic = len(positive) > 0 and finite.min() >= 0 and positive.max() > 30 * positive.min()
    low, high = (positive.min(), positive.max()) if logarithmic else (min(0.0, finite.min()), max(finite.max(), 1e-30))
    if not logarithmic and low >= 0 and 0.3 < high <= 1:
        high = 1.0  # a share
    drawn = []
    for row in rows:
        parts = np.array_split(row, min(len(row), _ROOM))
        times = max(1, min(3, _ROOM // max(map(len, rows))))
        drawn.append("".join(_mark(part, low, high, logarithmic) * times for part in parts))
    return drawn, f"axis from {number(float(low))} to {number(float(high))}{' (logarithmic)' if logarithmic else ''}"


def _mark(part: Series, low: float, high: float, logarithmic: bool) -> str:
    if np.isinf(part).any():
        return NAN
    known = part[~np.isnan(part)]
    if not len(known):
        return UNSEEN
    value = float(known.mean())
    if logarithmic and value <= 0:
        return ZERO
    share = np.log(value / low) / np.log(high / low) if logarithmic else (value - low) / (high - low) if high > low else 0.5
    return BLOCKS[min(7, max(0, int(8 * share)))]


def _words(trace: Trace) -> dict[str, object]:
    """Everything of a trace that is no series, by its path."""
    rows = {f"layer {i + 1}": {**asdict(layer), "name": None} for i, layer in enumerate(trace.layers)}
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
