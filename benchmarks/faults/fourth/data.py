"""name -> small synthetic data (and iris) that the fourth set's programs are trained on."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from sklearn import datasets
from torch import Tensor

from evengrad.lab.data import Split, standardized

Array = np.ndarray


def textures(shape: str = "image") -> Callable[[], Split]:
    """Returns noisy stripes in five directions as images of 12 x 12, as `flat` features, or as `rows`."""
    return lambda: _reshaped(_textures(), shape)


def figures(shape: str = "image") -> Callable[[], Split]:
    """Returns squares, discs, crosses, triangles and rings at any place in images of 14 x 14, with noise."""
    return lambda: _reshaped(_figures(), shape)


def pulses(shape: str = "image", repeat: int = 1) -> Callable[[], Split]:
    """Returns one pulse of five shapes somewhere in 48 steps of one channel; as `steps` it is a sequence of 12 rows of 4."""
    return lambda: _pulses(shape, repeat)


@cache
def _textures() -> Split:
    random = np.random.RandomState(41)
    n = 2000
    y = random.randint(5, size=n)
    angle = np.pi * y / 5 + random.normal(scale=0.12, size=n)
    u, v = np.meshgrid(np.arange(12), np.arange(12))
    along = u[None] * np.cos(angle)[:, None, None] + v[None] * np.sin(angle)[:, None, None]
    phase, pace = random.uniform(0, 2 * np.pi, (n, 1, 1)), random.uniform(0.9, 1.3, (n, 1, 1))
    x = np.sin(pace * along + phase) + random.normal(scale=0.35, size=(n, 12, 12))
    return standardized(split_of("textures", tuple("abcde"), x[:, None], y, 500))


@cache
def _figures() -> Split:
    random = np.random.RandomState(43)
    n = 2000
    y = random.randint(5, size=n)
    r = random.uniform(2.4, 4.2, size=(n, 1, 1))
    cu, cv = random.uniform(4.5, 8.5, size=(2, n, 1, 1))
    u, v = np.meshgrid(np.arange(14.0), np.arange(14.0))
    du, dv = u[None] - cu, v[None] - cv
    far = np.hypot(du, dv)
    kinds = [
        np.maximum(abs(du), abs(dv)) < r * 0.85,
        far < r,
        (np.minimum(abs(du), abs(dv)) < 0.9) & (np.maximum(abs(du), abs(dv)) < r),
        (dv > -r * 0.8) & (abs(du) < (r * 0.8 - dv) * 0.55) & (dv < r * 0.8),
        abs(far - r) < 0.8,
    ]
    x = np.choose(y[:, None, None], kinds).astype(float) + random.normal(scale=0.15, size=(n, 14, 14))
    return standardized(split_of("figures", ("square", "disc", "cross", "triangle", "ring"), x[:, None], y, 500))


@cache
def _pulses(shape: str, repeat: int) -> Split:
    random = np.random.RandomState(47)
    n, t = 2000, np.arange(48.0)[None]
    y = random.randint(5, size=n)
    d = (t - random.uniform(12, 36, (n, 1))) / random.uniform(3.0, 5.0, (n, 1))
    kinds = [
        1.6 * np.exp(-(d**2)),
        1.4 * (abs(d) < 1),
        (1 - d) * (abs(d) < 1),
        1.6 * np.exp(-((d - 1.2) ** 2) * 4) + 1.6 * np.exp(-((d + 1.2) ** 2) * 4),
        2.0 * np.sin(3 * d) * np.exp(-abs(d)),
    ]
    x = np.choose(y[:, None], kinds) + random.normal(scale=0.1, size=(n, 48))
    x = (x - x.mean()) / x.std()
    made = split_of("pulses", ("bell", "box", "saw", "twin", "ring"), x[:, None], y, 500)
    if shape != "steps":
        return _reshaped(made, shape)
    parts = [part.reshape(len(part), 12, 4).repeat_interleave(repeat, 1) for part in (made.x_train, made.x_test)]
    return Split(name="pulses", classes=made.classes, x_train=parts[0], y_train=made.y_train, x_test=parts[1], y_test=made.y_test)


@cache
def iris() -> Split:
    """150 flowers, standardized."""
    found = datasets.load_iris()
    order = np.random.RandomState(3).permutation(150)
    return standardized(split_of("iris", ("setosa", "versicolor", "virginica"), found.data[order], found.target[order], 45))


@cache
def shells() -> Split:
    """Three shells of equal counts around the middle of five dimensions."""
    x, y = datasets.make_gaussian_quantiles(n_samples=2400, n_features=5, n_classes=3, random_state=2)
    return split_of("shells", ("inner", "middle", "outer"), x, y, 500)


@cache
def hastie() -> Split:
    """Whether ten normal numbers have a sum of squares above the median."""
    x, y = datasets.make_hastie_10_2(n_samples=2600, random_state=4)
    return split_of("hastie", ("below", "above"), x, (y > 0).astype(int), 500)


@cache
def pinwheel() -> Split:
    """Five bent arms in the plane."""
    random = np.random.RandomState(53)
    y = random.randint(5, size=2000)
    r, w = random.normal(1.0, 0.3, 2000), random.normal(0.0, 0.07, 2000)
    turn = 2 * np.pi * y / 5 + 0.9 * np.exp(0.35 * r)
    x = np.stack([r * np.cos(turn) - w * np.sin(turn), r * np.sin(turn) + w * np.cos(turn)], 1)
    return standardized(split_of("pinwheel", tuple("abcde"), x, y, 500))


@cache
def flower() -> Split:
    """Inside or outside of a flower of five petals."""
    random = np.random.RandomState(59)
    x = random.uniform(-1.7, 1.7, (2200, 2))
    inside = np.hypot(x[:, 0], x[:, 1]) < 1.05 + 0.45 * np.cos(5 * np.arctan2(x[:, 1], x[:, 0]))
    return split_of("flower", ("outside", "inside"), x, inside.astype(int), 500)


@cache
def churn() -> Split:
    """Six numbers and two columns of categories (8 and 5 kinds): who leaves."""
    random = np.random.RandomState(61)
    n = 2300
    x, a, b = random.normal(size=(n, 6)), random.randint(8, size=n), random.randint(5, size=n)
    lean, slope = random.normal(size=8) * 1.2, random.normal(size=5) * 1.5
    y = lean[a] + slope[b] * x[:, 0] + x[:, 1] * x[:, 2] - 0.8 * abs(x[:, 3]) + 0.4 + 0.2 * random.normal(size=n)
    return split_of("churn", ("stays", "leaves"), np.column_stack([x, a, b]).astype(np.float32), (y > 0).astype(int), 500)


@cache
def arm() -> Split:
    """Where the hand of an arm of three joints is, by their angles; two targets, standardized."""
    random = np.random.RandomState(67)
    x = random.uniform(-(3**0.5), 3**0.5, (1900, 3))
    turn = np.cumsum(0.7 * x, axis=1)
    y = np.stack([(np.cos(turn) * [1.0, 0.8, 0.5]).sum(1), (np.sin(turn) * [1.0, 0.8, 0.5]).sum(1)], 1)
    return numbers("arm", x, y, 400, 0.03)


@cache
def impedance() -> Split:
    """Friedman's second function (1991) of four numbers; inputs and targets are standardized."""
    x, y = datasets.make_friedman2(n_samples=1900, noise=15.0, random_state=6)
    return numbers("impedance", (x - x.mean(0)) / x.std(0), y[:, None], 400, 0.0)


@cache
def roll() -> Split:
    """Where on a Swiss roll a point lies."""
    x, t = datasets.make_swiss_roll(n_samples=1900, noise=0.2, random_state=8)
    return numbers("roll", (x - x.mean(0)) / x.std(0), t[:, None], 400, 0.0)


@cache
def spectra(target: str = "itself") -> Split:
    """40 channels of five lines of any strength, with noise; the targets are the spectra, or which line is strongest."""
    if target == "strongest in rows":
        flat = spectra("strongest")
        parts = [part.reshape(len(part), 10, 4) for part in (flat.x_train, flat.x_test)]
        return Split(name=flat.name, classes=flat.classes, x_train=parts[0], y_train=flat.y_train, x_test=parts[1], y_test=flat.y_test)
    random = np.random.RandomState(101)
    lines = np.exp(-(((np.arange(40)[None] - np.array([[5], [11], [20], [27], [34]])) / 2.5) ** 2))
    strength = random.gamma(1.5, size=(2000, 5))
    x = strength @ lines + random.normal(scale=0.1, size=(2000, 40))
    x = (x - x.mean(0)) / x.std(0)
    if target == "strongest":
        return split_of("spectra-lines", tuple("abcde"), x, strength.argmax(1), 500)
    return split_of("spectra", (), x, x.astype(np.float32), 500)


@cache
def digit_codes() -> Split:
    """1,797 digits of 8 x 8, scaled to -1 ... 1 and to be told again."""
    x = datasets.load_digits().data[np.random.RandomState(5).permutation(1797)] / 8 - 1
    return split_of("digit_codes", (), x, x.astype(np.float32), 400)


@cache
def tags() -> Split:
    """Which of six tags, any number of them, twelve features speak for."""
    random = np.random.RandomState(103)
    x, w = random.normal(size=(2000, 12)), random.normal(size=(12, 6))
    y = (np.tanh(x @ w) + 0.5 * x[:, :6] * x[:, 6:] > 0.2).astype(np.float32)
    return split_of("tags", (), x, y, 500)


def _reshaped(split: Split, shape: str) -> Split:
    def change(x: Tensor) -> Tensor:
        return {"image": x, "flat": x.flatten(1), "rows": x[:, 0]}[shape]

    return Split(name=split.name, classes=split.classes, x_train=change(split.x_train), y_train=split.y_train, x_test=change(split.x_test),
                 y_test=split.y_test)  # fmt: skip


def numbers(name: str, x: Array, y: Array, test: int, noise: float) -> Split:
    """Returns a split whose targets are standardized numbers; the last `test` samples are to test on."""
    random = np.random.RandomState(29)
    y = (y - y.mean(0)) / y.std(0)
    return split_of(name, (), x, y + random.normal(scale=noise, size=y.shape), test)


def split_of(name: str, classes: tuple[str, ...], x: Array, y: Array, test: int) -> Split:
    """Returns a split; the last `test` samples are to test on."""
    xt = torch.from_numpy(x) if x.dtype.kind == "i" else torch.from_numpy(x).float()
    yt = torch.from_numpy(y).long() if classes else torch.from_numpy(y).float()
    return Split(name=name, classes=classes, x_train=xt[:-test], y_train=yt[:-test], x_test=xt[-test:], y_test=yt[-test:])
