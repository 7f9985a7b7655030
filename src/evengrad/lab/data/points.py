"""seed -> points in the plane, in classes that no straight line parts."""

from __future__ import annotations

import numpy as np

from evengrad.errors import InputError
from evengrad.lab.data.split import Split, split


def two_circles(n: int = 1000, noise: float = 0.1, seed: int = 1) -> Split:
    """Returns two concentric circles in the plane, each feature scaled to [-1, 1], the first half to train on.

    Number for number `make_circles(n, noise=noise, random_state=seed)` of scikit-learn followed by `MinMaxScaler((-1, 1))` over all
    points, so that published results on it can be repeated without scikit-learn. Class 0 is the outer circle (radius 1), class 1 the inner
    one (radius 0.8).

    Args:
        n: Number of points, at least 4.
        noise: Standard deviation of the normal noise on each coordinate, before scaling.
        seed: Seed of the legacy generator that scikit-learn uses.
    """
    if n < 4:
        raise InputError(f"two circles need at least 4 points; got n={n}")
    random = np.random.RandomState(seed)  # the legacy generator: its stream is frozen, and is the one that is published
    outer = np.linspace(0, 2 * np.pi, n // 2, endpoint=False)
    inner = np.linspace(0, 2 * np.pi, n - n // 2, endpoint=False)
    x = np.stack((np.append(np.cos(outer), np.cos(inner) * 0.8), np.append(np.sin(outer), np.sin(inner) * 0.8)), axis=1)
    y = np.repeat([0, 1], [len(outer), len(inner)])
    order = np.arange(n)
    random.shuffle(order)
    x, y = x[order], y[order]
    x += random.normal(scale=noise, size=x.shape)
    low, high = x.min(axis=0), x.max(axis=0)
    scale = 2 / (high - low)
    x = x * scale + (-1 - low * scale)
    half = n // 2
    return split("two_circles", ("outer", "inner"), (x[:half], y[:half]), (x[half:], y[half:]))
