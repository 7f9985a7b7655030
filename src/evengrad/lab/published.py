"""a published number, measured values -> where it lies among them, in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from evengrad.report.numbers import percent, plural

_RARE = 0.25  # a result that fewer than one seed in four reaches is called luck
_COUNTED = 20  # from so many seeds on, shares are given in percent


def verdict(
    number: float, values: Sequence[float] | npt.NDArray[np.float64], *, higher_is_better: bool = True, rounding: float = 5e-4
) -> str:
    """Says in words whether a published single run is what most seeds get.

    Args:
        number: The published number.
        values: What was measured here, one a seed; NaN counts as worse than any number.
        higher_is_better: False for a loss, or steps to a target.
        rounding: How far apart two numbers may be and still be the same: half a unit of the last published digit.

    Example:
        >>> verdict(0.816, [0.70, 0.72, 0.75, 0.80])
        'not reached by any of 4 seeds'
        >>> verdict(0.75, [0.70, 0.72, 0.75, 0.80])
        'typical: 2 of 4 seeds get there'
    """
    measured = np.asarray(values, np.float64)
    sign, count = (1.0 if higher_is_better else -1.0), measured.size
    if count == 0:
        return "not measured here"
    reached = int(np.sum(sign * measured >= sign * number - rounding))  # False for NaN
    better = int(np.sum(sign * measured > sign * number + rounding))
    if reached == 0:
        return f"not reached by {_any(count)}"
    if better == count:
        return "every seed does better" if count > 1 else "the one seed does better"
    if reached < _RARE * count:
        return f"luck: only {_share(reached, count)} get there"
    if better > (1 - _RARE) * count:
        return f"bad luck: {_share(better, count)} do better"
    return f"typical: {_share(reached, count)} get there"


def position(number: float, values: Sequence[float] | npt.NDArray[np.float64], *, rounding: float = 5e-4) -> str:
    """Says where a number lies among the measured ones: `97th percentile of 24 seeds`; NaN counts as lowest, a tie as half."""
    measured = np.nan_to_num(np.asarray(values, np.float64), nan=-np.inf)
    if measured.size == 0:
        return "not measured here"
    below, above = float(np.mean(measured < number - rounding)), float(np.mean(measured > number + rounding))
    if 1.0 in {below, above}:
        return f"{'above' if below else 'below'} {'all' if measured.size > 1 else 'the'} {plural(measured.size, 'seed')}"
    return f"{_ordinal(round(100 * (below + (1 - below - above) / 2)))} percentile of {plural(measured.size, 'seed')}"


def _share(part: int, count: int) -> str:
    return f"{part} of {count} seeds" if count < _COUNTED else f"{percent(part / count)} of {count} seeds"


def _any(count: int) -> str:
    return f"any of {count} seeds" if count > 1 else "the one seed"


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in {11, 12, 13} else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
