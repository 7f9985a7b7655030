"""Two reports -> what changed from the first to the second."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from evengrad.report.events import happenings
from evengrad.report.numbers import factor, number, percent
from evengrad.report.report import Report
from evengrad.report.view import steps_taken
from evengrad.signals import gradient_gain
from evengrad.types import Curve, Trace

Pair = tuple[float | None, float | None]
_UNKNOWN: Pair = (None, None)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What two reports say differently; a number that one of them does not have is None.

    Attributes:
        gone: Codes of findings that only the first has.
        new: Codes of findings that only the second has.
        kept: Codes of findings that both have.
        gradient_gain: Factor of the gradient from layer to layer, before any step, in the first and the second.
        trainability: Chance to train in the first and the second.
        steps: Steps of each run; None where no step was taken.
        final_loss: Mean of the last tenth of each loss curve; not finite if one of these losses is not.
        largest_grad_norm: Largest norm of the whole gradient, before clipping.
        clipped_fraction: Share of the steps looked into whose gradient was clipped, in [0, 1].
        events: Kind of event, in words -> how many there were in each.
    """

    gone: tuple[str, ...]
    new: tuple[str, ...]
    kept: tuple[str, ...]
    gradient_gain: Pair
    trainability: Pair
    steps: Pair = _UNKNOWN
    final_loss: Pair = _UNKNOWN
    largest_grad_norm: Pair = _UNKNOWN
    clipped_fraction: Pair = _UNKNOWN
    events: dict[str, tuple[int, int]] = field(default_factory=dict)

    def __str__(self) -> str:
        codes = (("gone", self.gone), ("new", self.new), ("kept", self.kept))
        lines = [(word, ", ".join(found) or "none") for word, found in codes]
        lines += [("gradient a layer", _pair(self.gradient_gain, factor)), ("could it train?", _pair(self.trainability, percent))]
        runs: list[tuple[str, Pair, Callable[[float], str]]] = [
            ("steps", self.steps, lambda n: f"{n:,}"),
            ("final loss", self.final_loss, number),
            ("largest grad norm", self.largest_grad_norm, number),
            ("clipped", self.clipped_fraction, percent),
        ]
        lines += [(word, _pair(pair, form)) for word, pair, form in runs if pair != _UNKNOWN]
        lines += [(kind, _pair(counts, lambda n: f"{n:,}") + " times") for kind, counts in self.events.items()]
        column = max(len(word) for word, _ in lines) + 2
        return "\n".join(f"{word:<{column}}{text}" for word, text in lines)

    def to_json(self) -> str:
        """Returns one JSON document; a number that is not finite is `{"$float": "nan"}`, as in a report's."""
        return json.dumps({k: _json(v) for k, v in asdict(self).items()}, indent=2, allow_nan=False)


def compared(before: Report, after: Report) -> Comparison:
    """Compares two reports, such as those of a network before and after a change."""
    codes = [tuple(dict.fromkeys(f.code for f in report.findings)) for report in (before, after)]
    traces = (before.trace, after.trace)
    counts = [{group.kind: group.count for group in happenings(trace)} for trace in traces]
    return Comparison(
        gone=tuple(c for c in codes[0] if c not in codes[1]),
        new=tuple(c for c in codes[1] if c not in codes[0]),
        kept=tuple(c for c in codes[0] if c in codes[1]),
        gradient_gain=_both(traces, lambda t: gradient_gain(t) if len(t.steps) else None),
        trainability=(before.trainability, after.trainability),
        steps=_both(traces, lambda t: steps_taken(t) if t.curves or len(t.steps) > 1 else None),
        final_loss=_both(traces, _of("loss", _final)),
        largest_grad_norm=_both(traces, _of("grad_norm", _largest)),
        clipped_fraction=_both(traces, _of("clipped", lambda values: float((values > 0).mean()))),
        events={kind: (counts[0].get(kind, 0), counts[1].get(kind, 0)) for kind in counts[0] | counts[1]},
    )


def _both(traces: tuple[Trace | None, Trace | None], read: Callable[[Trace], float | None]) -> Pair:
    first, second = (None if trace is None else read(trace) for trace in traces)
    return first, second


def _of(name: str, read: Callable[[Any], float]) -> Callable[[Trace], float | None]:
    def value(trace: Trace) -> float | None:
        curve: Curve | None = trace.curves.get(name)
        return read(curve.values) if curve is not None and len(curve.values) else None

    return value


def _final(values: Any) -> float:
    with np.errstate(invalid="ignore"):  # infinities of both signs
        return float(values[-max(1, len(values) // 10) :].mean())


def _largest(values: Any) -> float:
    seen = values[~np.isnan(values)]
    return float(seen.max()) if len(seen) else math.nan


def _pair(pair: Pair, form: Callable[[Any], str]) -> str:
    return " → ".join("?" if value is None else form(value) for value in pair)


def _json(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": str(value)}
    if isinstance(value, dict):
        return {k: _json(v) for k, v in value.items()}
    return [_json(v) for v in value] if isinstance(value, tuple | list) else value
