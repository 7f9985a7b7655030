"""name -> small synthetic sequences and tokens that the fourth set's programs are trained on."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from benchmarks.faults.fourth.data import numbers, split_of
from evengrad.lab.data import Split


@cache
def ratings() -> Split:
    """What 60 people think of 40 films (three hidden tastes): pairs of numbers of a person and of a film; targets are standardized."""
    random = np.random.RandomState(71)
    people, films = random.normal(size=(60, 3)), random.normal(size=(40, 3))
    pairs = np.stack(np.meshgrid(np.arange(60), np.arange(40)), -1).reshape(-1, 2)[random.permutation(2400)]
    y = (people[pairs[:, 0]] * films[pairs[:, 1]]).sum(1) + 0.5 * films[pairs[:, 1], 0]
    return numbers("ratings", pairs, y[:, None], 400, 0.1)


@cache
def reviews(padding: int = 0) -> Split:
    """14 words of a vocabulary of 40: eight speak for, eight against; word 1 turns the one behind it around; word 0 is blank."""
    random = np.random.RandomState(73)
    x = random.randint(2, 40, size=(2600, 14))
    x[random.rand(2600, 14) < 0.12] = 1
    value = np.zeros(40)
    value[4:12], value[12:20] = 1.0, -1.0
    turned = np.concatenate([np.zeros((2600, 1), bool), x[:, :-1] == 1], 1)
    total = (value[x] * np.where(turned, -1, 1)).sum(1)
    keep = abs(total) > 0.5
    x, y = x[keep], (total[keep] > 0).astype(int)
    x = np.concatenate([x, np.zeros((len(x), padding), int)], 1)
    return split_of("reviews", ("against", "for"), x, y, 450)


@cache
def topics() -> Split:
    """20 words of a vocabulary of 80, drawn by six topics."""
    random = np.random.RandomState(79)
    share = random.dirichlet(np.full(80, 0.25), size=6)
    y = random.randint(6, size=2000)
    x = np.stack([random.choice(80, 20, p=share[label] * 0.6 + 0.4 / 80) for label in y])
    return split_of("topics", tuple("abcdef"), x, y, 500)


@cache
def tides() -> Split:
    """The next height of two tides of any phase, by 20 before it; targets are standardized."""
    random = np.random.RandomState(83)
    t, n = np.arange(23)[None], 1900
    heights = np.sin(0.55 * t + random.uniform(0, 6.3, (n, 1))) + 0.6 * np.sin(0.21 * t + random.uniform(0, 6.3, (n, 1)))
    heights += random.normal(scale=0.05, size=heights.shape)
    return numbers("tides", heights[:, :20, None], heights[:, 22:], 400, 0.0)


def ledger(length: int = 10, quiet: int = 0) -> Callable[[], Split]:
    """Returns sums of what came in since the account was emptied; `quiet` steps without entries come behind."""
    return lambda: _ledger(length, quiet)


@cache
def _ledger(length: int, quiet: int) -> Split:
    random = np.random.RandomState(89)
    n = 2300
    amounts, emptied = random.uniform(-1, 1, (n, length)), random.randint(length - 2, size=n)
    marks = (np.arange(length)[None] == emptied[:, None]).astype(float)
    y = (amounts * (np.arange(length)[None] > emptied[:, None])).sum(1)
    x = np.concatenate([np.stack([amounts, marks], 2), np.zeros((n, quiet, 2))], 1)
    return numbers("ledger", x, y[:, None], 400, 0.0)


@cache
def lookup() -> Split:
    """Six rows of a key of eight and a value of five, and a last row with one of the keys: its value is asked for."""
    random = np.random.RandomState(97)
    n = 3000
    keys = np.stack([random.permutation(8)[:6] for _ in range(n)])
    values, asked = random.randint(5, size=(n, 6)), random.randint(6, size=n)
    x = np.zeros((n, 7, 13))
    x[:, :6, :8], x[:, :6, 8:] = np.eye(8)[keys], np.eye(5)[values]
    x[:, 6, :8] = np.eye(8)[keys[np.arange(n), asked]]
    return split_of("lookup", tuple("abcde"), 1.5 * x, values[np.arange(n), asked], 500)
