"""What was measured, step by step -> a Trace of bounded size."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from evengrad.store.thinning import thinned
from evengrad.types import Curve, Event, Facts, Floats, Layer, Run, Trace

_LAST = 20  # points of a curve that are never thinned out
_FRAMES = 160  # sampled steps held, of about 25 columns of 4 bytes: 16 KB a layer
_POINTS = 2**16  # of a curve
_EVENTS = 1000
_LOOSE = 256  # steps

Value = Tensor | float


@dataclass
class Fresh:
    """What was added to a log since it was last asked: frames and planes by step, points (steps, values) by curve, events."""

    frames: dict[int, dict[str, Floats]] = field(default_factory=dict)
    planes: dict[int, dict[str, Floats]] = field(default_factory=dict)
    points: dict[str, tuple[list[int], list[float]]] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)


class Log:
    """Sampled columns, curves and events of a run. Where it grows too long, every second sampled step of the middle is left out.

    Args:
        fresh: True to keep what is added until `taken` is called.
    """

    def __init__(self, *, fresh: bool = False) -> None:
        self._fresh = Fresh() if fresh else None
        self.layers: tuple[Layer, ...] = ()
        self.facts = Facts()
        self.events: list[Event] = []
        self._frames: dict[int, dict[str, Floats]] = {}
        self._planes: dict[int, dict[str, Floats]] = {}
        self._curves: dict[str, tuple[list[int], list[float]]] = {}
        self._loose: list[tuple[int, Sequence[tuple[str, Value]]]] = []  # points that are in no curve yet

    def add(self, step: int, columns: Mapping[str, Floats]) -> None:
        """Adds columns (L,) of a step to those that it has."""
        self._frames.setdefault(step, {}).update(columns)
        if self._fresh is not None:
            self._fresh.frames.setdefault(step, {}).update(columns)
        if len(self._frames) > _FRAMES:
            kept = set(thinned(sorted(self._frames)))
            self._frames = {step: frame for step, frame in self._frames.items() if step in kept}
            self._planes = {k: v for k, v in self._planes.items() if k in self._frames}

    def add_plane(self, step: int, name: str, values: Floats) -> None:
        """Adds a plane (L, K) of a step."""
        self._planes.setdefault(step, {})[name] = values
        if self._fresh is not None:
            self._fresh.planes.setdefault(step, {})[name] = values

    def point(self, name: str, step: int, value: float) -> None:
        """Adds a point to a curve."""
        self.points(step, ((name, value),))

    def points(self, step: int, values: Sequence[tuple[str, Value]]) -> None:
        """Adds points of a step to curves; several of one name are averaged, and a tensor is read when it has to be."""
        self._loose.append((step, values))  # nothing more: this runs at every step
        if len(self._loose) >= _LOOSE:
            self._sort()

    def _sort(self) -> None:
        for step, told in self._loose:
            found: dict[str, list[float]] = {}
            for name, value in told:
                found.setdefault(name, []).append(float(value))
            for name, seen in found.items():
                mean = statistics.fmean(seen) if len(seen) > 1 else seen[0]
                for curves in (self._curves, self._fresh.points) if self._fresh is not None else (self._curves,):
                    steps, values = curves.setdefault(name, ([], []))
                    steps.append(step)
                    values.append(mean)
        for steps, values in self._curves.values():
            if len(steps) > _POINTS:
                del steps[1:-_LAST:2], values[1:-_LAST:2]
        self._loose.clear()

    def event(self, event: Event) -> None:
        """Adds an event; after 1,000 only curves tell how many there were."""
        if len(self.events) < _EVENTS:
            self.events.append(event)
            if self._fresh is not None:
                self._fresh.events.append(event)

    def taken(self) -> Fresh:
        """Returns what was added since the last call; nothing where the log was not made to keep it."""
        self._sort()
        found = self._fresh or Fresh()
        if self._fresh is not None:
            self._fresh = Fresh()
        return found

    @property
    def names(self) -> frozenset[str]:
        """Names of the curves."""
        self._sort()
        return frozenset(self._curves)

    def trace(self, run: Run) -> Trace:
        """Returns all that is held."""
        self._sort()
        steps = sorted(self._frames)
        names = sorted({name for frame in self._frames.values() for name in frame})
        planes = sorted({name for frame in self._planes.values() for name in frame})
        return Trace(
            run=run,
            layers=self.layers,
            facts=self.facts,
            steps=np.array(steps, np.int64),
            columns={name: _stacked(self._frames.get(s, {}).get(name) for s in steps) for name in names},
            curves={name: Curve(np.array(s, np.int64), np.array(v, np.float64)) for name, (s, v) in self._curves.items()},
            planes={name: _stacked(self._planes.get(s, {}).get(name) for s in steps) for name in planes},
            events=tuple(self.events),
        )


def _stacked(values: Iterable[Floats | None]) -> Floats:
    found = list(values)
    shape = next(v.shape for v in found if v is not None)
    return np.stack([np.full(shape, np.nan, np.float32) if v is None else v.astype(np.float32, copy=False) for v in found])
