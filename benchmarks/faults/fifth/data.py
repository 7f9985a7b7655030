"""name -> small data, most of them synthetic, that the fifth set's programs are trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import torch
from sklearn import datasets
from torch import Tensor

from evengrad.lab.data import Split, standardized

Array = np.ndarray
GLYPHS = {  # 6 x 6, a row a line
    "T": "###### ###### ..##.. ..##.. ..##.. ..##..",
    "L": "##.... ##.... ##.... ##.... ###### ######",
    "U": "##..## ##..## ##..## ##..## ###### .####.",
    "H": "##..## ##..## ###### ###### ##..## ##..##",
    "X": "##..## .####. ..##.. ..##.. .####. ##..##",
    "O": ".####. ##..## ##..## ##..## ##..## .####.",
}


def glyphs(shape: str = "image") -> Callable[[], Split]:
    """Returns six letters at any place in images of 10 x 10 with noise; as `flat` features or 10 `rows` too."""
    return lambda: _glyphs(shape)


def motions(shape: str = "signal") -> Callable[[], Split]:
    """Returns five ways to move, three channels of 36 steps; as `flat` features, 12 `steps` of 9 or 6 `parts` of 18 too."""
    return lambda: _motions(shape)


def _drawn(n: int, seed: int, noise: float) -> tuple[Array, Array, Array]:
    """Images (n, 10, 10), which letter, and its place (n, 2)."""
    random = np.random.RandomState(seed)
    shapes = np.array([[[c == "#" for c in line] for line in text.split()] for text in GLYPHS.values()], float)
    y, at = random.randint(6, size=n), random.randint(5, size=(n, 2))
    x = random.normal(scale=noise, size=(n, 10, 10))
    for i in range(n):
        x[i, at[i, 0] : at[i, 0] + 6, at[i, 1] : at[i, 1] + 6] += shapes[y[i]] * random.uniform(0.7, 1.3)
    return x, y, at


@cache
def _glyphs(shape: str) -> Split:
    x, y, _ = _drawn(2300, 211, 0.2)
    x = (x - x.mean()) / x.std()
    shaped = {"image": x[:, None], "flat": x.reshape(-1, 100), "rows": x}[shape]
    return split_of("glyphs", tuple(GLYPHS), shaped, y, 500)


@cache
def places() -> Split:
    """A letter, and how far down it is: two targets for two tasks, the second standardized."""
    x, y, at = _drawn(2300, 223, 0.2)
    down = (at[:, 0] - 2) / at[:, 0].std()
    return split_of("places", (), ((x - x.mean()) / x.std())[:, None], np.stack([y, down], 1), 500)


@cache
def pairs() -> Split:
    """Two images of letters, one behind the other, and whether they show the same letter; some are the same image."""
    random = np.random.RandomState(227)
    x, y, _ = _drawn(1500, 229, 0.1)
    x = ((x - x.mean()) / x.std()).reshape(len(x), -1)
    same = [random.choice(np.flatnonzero(y == y[i])) for i in range(1500)]
    other = random.randint(1500, size=1500)
    first, second = np.tile(np.arange(1500), 2), np.concatenate([same, other])
    second[:200] = first[:200]
    order = random.permutation(3000)
    first, second = first[order], second[order]
    return split_of("pairs", ("different", "same"), np.stack([x[first], x[second]], 1), (y[first] == y[second]).astype(int), 500)


@cache
def letters() -> Split:
    """Images of letters that stay at one place, as 100 numbers: to be told again."""
    x, _, at = _drawn(6000, 233, 0.15)
    x = x[(at[:, 0] % 2 == 0) & (at[:, 1] == 2)][:1400].reshape(-1, 100)
    x = (x - x.mean()) / x.std()
    return split_of("letters", (), x, x.astype(np.float32), 300)


@cache
def _motions(shape: str) -> Split:
    random = np.random.RandomState(239)
    n, t = 2300, np.arange(36.0)[None]
    y = random.randint(5, size=n)
    phase, pace = random.uniform(0, 2 * np.pi, (n, 1)), random.uniform(0.9, 1.15, (n, 1))
    walk, run, turn = np.sin(0.7 * pace * t + phase), np.sin(1.5 * pace * t + phase), np.sin(0.25 * pace * t + phase)
    jump = np.maximum(0, np.sin(0.9 * pace * t + phase)) ** 4
    kinds = [
        np.stack([0.9 * walk, 0.4 * np.roll(walk, 3, 1), 0 * walk], 1),
        np.stack([1.2 * run, 0.4 * run, 0.2 * turn], 1),
        np.stack([0.2 * walk, 0.9 * turn, 0.9 * np.roll(turn, 6, 1)], 1),
        np.stack([0.3 * jump, 0 * walk, 1.6 * jump], 1),
        np.stack([0.1 * walk, 0.1 * turn, 0.1 * run], 1),
    ]
    x = np.choose(y[:, None, None], kinds) + random.normal(scale=0.35, size=(n, 3, 36))
    x = (x - x.mean((0, 2), keepdims=True)) / x.std((0, 2), keepdims=True)
    if shape == "flat":
        x = x.reshape(n, 108)
    if shape == "steps":
        x = x.reshape(n, 3, 12, 3).transpose(0, 2, 1, 3).reshape(n, 12, 9)
    if shape == "parts":
        x = x.reshape(n, 3, 6, 6).transpose(0, 2, 1, 3).reshape(n, 6, 18)
    return split_of("motions", ("walk", "run", "turn", "jump", "rest"), x, y, 500)


@cache
def soil() -> Split:
    """Four kinds of soil by fourteen measures, nine of which tell something."""
    x, y = datasets.make_classification(
        2600, 14, n_informative=9, n_redundant=2, n_classes=4, n_clusters_per_class=2, class_sep=2.0, flip_y=0.01, random_state=12
    )
    return standardized(split_of("soil", tuple("abcd"), x, y, 500))


@cache
def credit() -> Split:
    """Whether a loan is paid back, by nine numbers that work together in pairs."""
    random = np.random.RandomState(241)
    x = random.normal(size=(2500, 9))
    y = 1.2 * x[:, 0] * x[:, 1] + np.sin(2 * x[:, 2]) + x[:, 3] - 0.7 * x[:, 4] ** 2 + 0.6 + 0.2 * random.normal(size=2500)
    return split_of("credit", ("lost", "paid"), x, (y > 0).astype(int), 500)


@cache
def yinyang() -> Split:
    """Two bent halves of a disc and the dots in them (Kriener 2021)."""
    random = np.random.RandomState(251)
    x = random.uniform(-1, 1, (5200, 2))
    x = x[np.hypot(*x.T) < 1]
    upper, lower = np.hypot(x[:, 0], x[:, 1] - 0.5), np.hypot(x[:, 0], x[:, 1] + 0.5)
    dot = (upper < 0.2) | (lower < 0.2)
    right = (x[:, 0] > 0) & (lower > 0.5) | (upper < 0.5)
    y = np.where(dot, 2, right.astype(int))
    keep = np.sort(np.concatenate([np.flatnonzero(y == k)[:700] for k in range(3)]))
    return standardized(split_of("yinyang", ("yin", "yang", "dot"), x[keep], y[keep], 400))


@cache
def bands() -> Split:
    """Three kinds of wavy bands across the plane."""
    x = np.random.RandomState(257).uniform(-1.7, 1.7, (2300, 2))
    y = np.floor(1.1 * (x[:, 0] + 0.5 * np.sin(2.5 * x[:, 1])) + 10).astype(int) % 3
    return split_of("bands", tuple("abc"), x, y, 400)


@cache
def scurve() -> Split:
    """Where on a curve bent like an S a point lies."""
    x, t = datasets.make_s_curve(n_samples=1900, noise=0.05, random_state=14)
    return numbers("scurve", (x - x.mean(0)) / x.std(0), t[:, None], 400, 0.0)


@cache
def phase() -> Split:
    """Friedman's third function (1991) of four numbers."""
    x, y = datasets.make_friedman3(n_samples=2200, noise=0.02, random_state=16)
    return numbers("phase", (x - x.mean(0)) / x.std(0), y[:, None], 400, 0.0)


@cache
def spring() -> Split:
    """Where a damped spring is at two times, by stiffness, damping, start and push."""
    x = np.random.RandomState(263).uniform(-(3**0.5), 3**0.5, (1900, 4))
    w, fade = 1.2 + 0.3 * x[:, 0], 0.25 + 0.1 * x[:, 1]
    at = [np.exp(-fade * t) * (x[:, 2] * np.cos(w * t) + x[:, 3] * np.sin(w * t)) for t in (0.8, 2.0)]
    return numbers("spring", x, np.stack(at, 1), 400, 0.03)


@cache
def trips() -> Split:
    """How long a trip takes, by zone (12), hour (24) and day (7), which are the first three columns, and by distance and rain."""
    random = np.random.RandomState(269)
    n = 2500
    zone, hour, day, x = random.randint(12, size=n), random.randint(24, size=n), random.randint(7, size=n), random.normal(size=(n, 2))
    slow = random.normal(size=12) + 0.2
    rush = np.exp(-((hour - 8) ** 2) / 6) + np.exp(-((hour - 17) ** 2) / 8)
    y = (1 + 0.4 * slow[zone]) * x[:, 0] + 1.5 * rush * (day < 5) + 0.5 * slow[zone] + 0.5 * np.maximum(0, x[:, 1])
    return numbers("trips", np.column_stack([zone, hour, day, x]).astype(np.float32), y[:, None], 500, 0.05)


def numbers(name: str, x: Array, y: Array, test: int, noise: float) -> Split:
    """Returns a split whose targets are standardized numbers; the last `test` samples are to test on."""
    y = (y - y.mean(0)) / y.std(0)
    return split_of(name, (), x, y + np.random.RandomState(31).normal(scale=noise, size=y.shape), test)


def split_of(name: str, classes: tuple[str, ...], x: Array, y: Array, test: int) -> Split:
    """Returns a split; the last `test` samples are to test on."""
    xt = torch.from_numpy(x) if x.dtype.kind == "i" else torch.from_numpy(np.ascontiguousarray(x)).float()
    yt = torch.from_numpy(y).long() if classes else torch.from_numpy(y).float()
    return Split(name=name, classes=classes, x_train=xt[:-test], y_train=yt[:-test], x_test=xt[-test:], y_test=yt[-test:])


def with_inputs(split: Split, change: Callable[[Tensor], Tensor]) -> Split:
    """Returns the split with all inputs changed."""
    return replace(split, x_train=change(split.x_train), x_test=change(split.x_test))
