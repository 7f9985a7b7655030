"""name -> small synthetic sequences and tokens that the fifth set's programs are trained on."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from benchmarks.faults.fifth.data import numbers, split_of
from evengrad.lab.data import Split


@cache
def order() -> Split:
    """12 words of a vocabulary of 20: whether 1 comes before 2, and 3 before 4."""
    random = np.random.RandomState(271)
    n = 2800
    x = random.randint(5, 20, size=(n, 12))
    at = np.argsort(random.rand(n, 12), 1)[:, :4]
    np.put_along_axis(x, at, np.broadcast_to([1, 2, 3, 4], (n, 4)), 1)
    y = 2 * (at[:, 0] < at[:, 1]) + (at[:, 2] < at[:, 3])
    return split_of("order", ("neither", "second", "first", "both"), x, y, 500)


def thermostat(length: int = 14, off: int = 0) -> Callable[[], Split]:
    """Returns how warm a room is in the end, by heater and window at each step; it is `off`, and keeps warm, for steps behind."""
    return lambda: _thermostat(length, off)


@cache
def _thermostat(length: int, off: int) -> Split:
    random = np.random.RandomState(277)
    n = 2200
    heater, window = random.uniform(-1, 1, (n, length)), (random.rand(n, length) < 0.25).astype(float)
    warm = np.zeros(n)
    for t in range(length):
        warm = (warm + heater[:, t]) * (1 - 0.5 * window[:, t])
    x = np.concatenate([np.stack([heater, window], 2), np.zeros((n, off, 2))], 1)
    return numbers("thermostat", x, warm[:, None], 400, 0.03)


@cache
def flag(wait: int = 14) -> Split:
    """Which of four flags the first step shows; noise for `wait` steps comes behind it."""
    random = np.random.RandomState(281)
    n = 1900
    y = random.randint(4, size=n)
    x = 0.4 * random.normal(size=(n, 1 + wait, 4))
    x[:, 0] += 2 * np.eye(4)[y]
    return split_of("flag", tuple("abcd"), x, y, 400)


@cache
def flashcards() -> Split:
    """Six cards of a key (10 numbers) and one of four values, and a last one with a noisy copy of a key: its value is asked for."""
    random = np.random.RandomState(283)
    n = 3300
    keys = random.normal(size=(n, 6, 10))
    keys /= np.linalg.norm(keys, axis=2, keepdims=True) / 10**0.5
    values, asked = random.randint(4, size=(n, 6)), random.randint(6, size=n)
    x = np.zeros((n, 7, 14))
    x[:, :6, :10], x[:, :6, 10:] = keys, 2 * np.eye(4)[values]
    x[:, 6, :10] = keys[np.arange(n), asked] + 0.1 * random.normal(size=(n, 10))
    return split_of("flashcards", tuple("abcd"), x, values[np.arange(n), asked], 500)
