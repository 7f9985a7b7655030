"""layers by steps -> at most 500 by 1,000 cells that keep the smallest, the largest and the worst of what they stand for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evengrad.types import Floats

Index = npt.NDArray[np.int64]
MAX_STEPS, MAX_LAYERS = 1000, 500  # cells of a side: as many as a screen has points for; twice the layers would double the file


@dataclass(frozen=True)
class Grid:
    """Where each cell begins: sampled steps (numbers into the trace's own) and rows; the last entry is the end."""

    steps: Index
    rows: Index

    @property
    def whole(self) -> bool:
        """True if every cell is one layer at one step."""
        return bool(len(self.steps) - 1 == self.steps[-1] and len(self.rows) - 1 == self.rows[-1])

    def windows(self, most: int) -> Iterator[tuple[int, int]]:
        """Yields (first, end) sampled steps of windows of whole cells, of about `most` steps each."""
        start = int(self.steps[0])
        for end in self.steps[1:]:
            if end - start >= most or end == self.steps[-1]:
                yield start, int(end)
                start = int(end)

    def within(self, start: int, stop: int) -> Index:
        """Returns where the cells of a window begin and end, counted from its start."""
        return self.steps[(self.steps >= start) & (self.steps <= stop)] - start


@dataclass(frozen=True)
class Pooled:
    """A signal on a grid.

    Attributes:
        least: Smallest value of each cell (s, r); NaN where nothing was seen.
        greatest: Largest value of each cell (s, r); infinite where one of them is not finite.
        zeros: Exact zeros of each row of cells, over all its layers and steps (r,).
        infinite: Values that are not finite, likewise (r,).
        seen: Values that were seen, likewise (r,).
    """

    least: Floats
    greatest: Floats
    zeros: Index
    infinite: Index
    seen: Index


def grid(steps: int, rows: int) -> Grid:
    """Returns the grid for a run of so many sampled steps and layers; the cells of one grid differ by one step or layer at most."""
    return Grid(_bounds(steps, MAX_STEPS), _bounds(rows, MAX_LAYERS))


def window(steps: slice, rows: slice) -> Grid:
    """Returns the grid for a part of a run; its bounds count from the start of the run."""
    return Grid(steps.start + _bounds(steps.stop - steps.start, MAX_STEPS), rows.start + _bounds(rows.stop - rows.start, MAX_LAYERS))


def pool(values: Floats, steps: Index, rows: Index) -> Pooled:
    """Takes values (S, L) together by cell; `steps` and `rows` are bounds as a `Grid` has them."""
    counts = [np.add.reduceat(found.sum(0), rows[:-1]) for found in (values == 0, np.isinf(values), ~np.isnan(values))]
    least, greatest = values, values
    if len(steps) - 1 < len(values):
        least, greatest = np.fmin.reduceat(least, steps[:-1], 0), np.fmax.reduceat(greatest, steps[:-1], 0)
    if len(rows) - 1 < values.shape[1]:
        least, greatest = np.fmin.reduceat(least, rows[:-1], 1), np.fmax.reduceat(greatest, rows[:-1], 1)
    return Pooled(least, greatest, *counts)


def joined(parts: Sequence[Pooled]) -> Pooled:
    """Puts windows one after the other."""
    least, greatest = (np.concatenate([getattr(p, side) for p in parts]) for side in ("least", "greatest"))
    return Pooled(least, greatest, *(np.sum([getattr(p, name) for p in parts], 0) for name in ("zeros", "infinite", "seen")))


def worst(pooled: Pooled, centre: float | None) -> Floats:
    """Returns what a cell is drawn as (s, r): not finite, then exactly zero, then what lies furthest from the centre.

    Args:
        pooled: The cells.
        centre: log10 of the neutral value; None for a share, of which the largest is the worst.
    """
    least, greatest = pooled.least, pooled.greatest
    if centre is None or least is greatest:
        return greatest
    with np.errstate(divide="ignore", invalid="ignore"):
        below = centre - np.log10(least) > np.log10(greatest) - centre
    out: Floats = np.where(np.isinf(greatest) | ~below, greatest, least)
    return out


def _bounds(count: int, most: int) -> Index:
    cells = max(1, min(count, most))
    return (np.arange(cells + 1, dtype=np.int64) * count) // cells
