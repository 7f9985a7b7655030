"""seed -> points in the plane, in classes, the first half to train on."""

from __future__ import annotations

import numpy as np

from evengrad.errors import InputError
from evengrad.lab.data.split import Array, Split, legacy_random, split


def two_circles(n: int = 1000, noise: float = 0.1, seed: int = 1) -> Split:
    """Returns two concentric circles: class 0 is the outer one (radius 1), class 1 the inner one (radius 0.8).

    Number for number `make_circles(n, noise=noise, random_state=seed)` of scikit-learn followed by `MinMaxScaler((-1, 1))` over all
    points, so that published results on it can be repeated without scikit-learn.

    Args:
        n: Number of points, at least 4.
        noise: Standard deviation of the normal noise on each coordinate, before scaling.
        seed: Seed of the legacy generator that scikit-learn uses.
    """
    if n < 4:
        raise InputError(f"two circles need at least 4 points; got n={n}")
    outer = np.linspace(0, 2 * np.pi, n // 2, endpoint=False)
    inner = np.linspace(0, 2 * np.pi, n - n // 2, endpoint=False)
    x = np.stack((np.append(np.cos(outer), np.cos(inner) * 0.8), np.append(np.sin(outer), np.sin(inner) * 0.8)), axis=1)
    return _noisy("two_circles", ("outer", "inner"), x, np.repeat([0, 1], [len(outer), len(inner)]), noise=noise, seed=seed)


def moons(n: int = 1000, noise: float = 0.2, seed: int = 1) -> Split:
    """Returns two half circles that reach into each other: class 0 is the upper one.

    Number for number `make_moons(n, noise=noise, random_state=seed)` of scikit-learn followed by `MinMaxScaler((-1, 1))` over all points.

    Args:
        n: Number of points, at least 4.
        noise: Standard deviation of the normal noise on each coordinate, before scaling.
        seed: Seed of the legacy generator that scikit-learn uses.
    """
    if n < 4:
        raise InputError(f"two moons need at least 4 points; got n={n}")
    upper, lower = np.linspace(0, np.pi, n // 2), np.linspace(0, np.pi, n - n // 2)
    x = np.stack((np.append(np.cos(upper), 1 - np.cos(lower)), np.append(np.sin(upper), 1 - np.sin(lower) - 0.5)), axis=1)
    return _noisy("moons", ("upper", "lower"), x, np.repeat([0, 1], [len(upper), len(lower)]), noise=noise, seed=seed)


def spirals(n: int = 1000, arms: int = 2, turns: float = 1.5, noise: float = 0.02, seed: int = 1) -> Split:
    """Returns `arms` spirals around one centre, each a class; radius and angle grow evenly from the centre to radius 1.

    Args:
        n: Number of points, at least 2 for each arm; counts of arms differ by one at most.
        arms: Number of spirals, at least 2.
        turns: How often each winds around the centre.
        noise: Standard deviation of the normal noise on each coordinate, before scaling; arms are 1 / (arms * turns) apart.
        seed: Seed of order and noise.

    Reference: Lang & Witbrock 1988, Learning to tell two spirals apart (two arms, three turns).
    """
    if arms < 2 or n < 2 * arms:
        raise InputError(f"spirals need at least 2 arms and 2 points for each; got n={n} and arms={arms}")
    counts = [(n + arms - 1 - arm) // arms for arm in range(arms)]
    radius = np.concatenate([np.arange(1, count + 1) / count for count in counts])
    y = np.repeat(np.arange(arms), counts)
    angle = 2 * np.pi * (turns * radius + y / arms)
    x = np.stack((radius * np.cos(angle), radius * np.sin(angle)), axis=1)
    return _noisy("spirals", tuple(f"arm {arm}" for arm in range(arms)), x, y, noise=noise, seed=seed)


def blobs(n: int = 1000, classes: int = 3, spread: float = 2.0, seed: int = 2) -> Split:
    """Returns round clouds of points that overlap, not scaled: centres are drawn evenly from [-10, 10].

    Number for number `make_blobs(n, centers=classes, cluster_std=spread, random_state=seed)` of scikit-learn, so that published results on
    it can be repeated without scikit-learn.

    Args:
        n: Number of points, at least 2 for each class.
        classes: Number of clouds, at least 2.
        spread: Standard deviation of each coordinate around the centre.
        seed: Seed of the legacy generator that scikit-learn uses.
    """
    if classes < 2 or n < 2 * classes or spread < 0:
        raise InputError(f"blobs need 2 classes, 2 points for each and a spread of 0 or more; got {classes}, n={n}, spread={spread}")
    random = legacy_random(seed)
    centres = random.uniform(-10, 10, size=(classes, 2))
    counts = [n // classes + (i < n % classes) for i in range(classes)]
    x = np.concatenate([random.normal(loc=centre, scale=spread, size=(count, 2)) for centre, count in zip(centres, counts, strict=True)])
    y = np.repeat(range(classes), counts)
    order = np.arange(n)
    random.shuffle(order)
    x, y = x[order], y[order]
    names = tuple(f"blob {i}" for i in range(classes))
    return split("blobs", names, (x[: n // 2], y[: n // 2]), (x[n // 2 :], y[n // 2 :]))


def _noisy(name: str, classes: tuple[str, ...], x: Array, y: Array, *, noise: float, seed: int) -> Split:
    """Shuffles, adds noise, scales and halves, in scikit-learn's order of operations."""
    if noise < 0:
        raise InputError(f"noise is a standard deviation, at least 0; got {noise}")
    random = legacy_random(seed)
    order = np.arange(len(y))
    random.shuffle(order)
    x, y = x[order], y[order]
    x += random.normal(scale=noise, size=x.shape)
    low, high = x.min(axis=0), x.max(axis=0)
    scale = 2 / (high - low)
    x = x * scale + (-1 - low * scale)
    half = len(y) // 2
    return split(name, classes, (x[:half], y[:half]), (x[half:], y[half:]))
