"""name -> small data that the held-out programs are trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from evengrad.lab import data
from evengrad.lab.data import Split

Array = np.ndarray
SHOES = (5, 7, 8, 9)  # sandal, sneaker, bag, boot


@cache
def garments() -> Split:
    """2,400 images of clothes of 7 x 7, standardized, as 49 features, and 600 to test on."""
    full = data.fashion_mnist(flat=False)
    order = torch.randperm(len(full.x_train), generator=torch.Generator().manual_seed(11))[:2400]
    return data.standardized(
        replace(
            full,
            name="garments",
            x_train=F.avg_pool2d(full.x_train[order], 4).flatten(1),
            y_train=full.y_train[order],
            x_test=F.avg_pool2d(full.x_test[-600:], 4).flatten(1),
            y_test=full.y_test[-600:],
        )
    )


@cache
def shoes() -> Split:
    """1,600 images of sandals, sneakers, bags and boots of 14 x 14, standardized."""
    full = data.fashion_mnist(flat=False)
    x_train, y_train = _of_classes(full.x_train[-5000:], full.y_train[-5000:], 1600)
    x_test, y_test = _of_classes(full.x_test[:2500], full.y_test[:2500], 500)
    names = tuple(full.classes[c] for c in SHOES)
    return data.standardized(Split(name="shoes", classes=names, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test))


def _of_classes(x: Tensor, y: Tensor, n: int) -> tuple[Tensor, Tensor]:
    keep = torch.isin(y, torch.tensor(SHOES)).nonzero()[:n, 0]
    return F.avg_pool2d(x[keep], 2), torch.searchsorted(torch.tensor(SHOES), y[keep])


@cache
def digits() -> Split:
    """1,200 digits as 64 standardized features."""
    return _first(data.digits(standardize=True), 1200, "digits_1200")


@cache
def digit_images() -> Split:
    """1,200 digits as standardized images of 8 x 8."""
    return _first(data.digits(flat=False, standardize=True), 1200, "digits_1200")


@cache
def digit_rows() -> Split:
    """1,200 digits as sequences of 8 rows."""
    images = digit_images()
    return replace(images, x_train=images.x_train[:, 0], x_test=images.x_test[:, 0])


@cache
def digit_pixels() -> Split:
    """1,200 digits as sequences of 64 pixels."""
    images = digit_images()
    return replace(images, x_train=images.x_train.reshape(-1, 64, 1), x_test=images.x_test.reshape(-1, 64, 1))


@cache
def even_digits() -> Split:
    """Whether a digit is even."""
    found = digits()
    return replace(found, name="even_digits", classes=("even", "odd"), y_train=found.y_train % 2, y_test=found.y_test % 2)


@cache
def tumours() -> Split:
    """569 tumours by the means of their ten measures, standardized."""
    found = data.breast_cancer()
    return replace(found, name="tumours", x_train=found.x_train[:, :10], x_test=found.x_test[:, :10])


@cache
def wines() -> Split:
    """178 wines by eight of their features, standardized."""
    found = data.wine()
    return replace(found, name="wines", x_train=found.x_train[:, 5:], x_test=found.x_test[:, 5:])


@cache
def rings() -> Split:
    """Three rings around one centre."""
    return _points("rings", 3, lambda x: np.digitize(np.hypot(x[:, 0], x[:, 1]), [0.6, 0.95]), 1500)


@cache
def checkers() -> Split:
    """A board of 3 x 3 fields in two colours."""
    return _points("checkers", 2, lambda x: ((x + 1) * 1.5).astype(int).clip(0, 2).sum(1) % 2, 1800)


@cache
def clouds() -> Split:
    """Eight clouds in the plane, standardized."""
    return replace(data.standardized(data.blobs(n=2000, classes=8, spread=0.8, seed=13)), name="clouds")


@cache
def crescents() -> Split:
    """Two moons that keep apart."""
    return replace(data.moons(n=2000, noise=0.1, seed=9), name="crescents")


@cache
def ripples() -> Split:
    """Rings of waves in the plane, with noise; targets are standardized."""
    return _numbers("ripples", 2, lambda x: np.cos(2.2 * np.hypot(x[:, 0], x[:, 1])) + 0.5 * x[:, 1], 1400, 0.1)


@cache
def flight() -> Split:
    """How far a ball flies, by angle, speed, height, wind and one thing that has no part in it; targets are standardized."""
    return _numbers("flight", 5, _flight, 1500, 0.1)


@cache
def chirp() -> Split:
    """A wave of one variable that grows faster; targets are standardized."""
    return _numbers("chirp", 1, lambda x: np.sin(1.2 * (x[:, 0] + 2) ** 1.5), 1000, 0.08)


@cache
def shapes(padding: int = 4) -> Split:
    """Waves of four shapes and 8 to 16 steps, with blanks behind them; the second channel tells which steps are of the wave."""
    random = np.random.RandomState(21)
    n, longest = 2400, 16
    t = np.arange(longest)[None]
    y = random.randint(4, size=n)
    phase, pace = random.uniform(0, 2 * np.pi, (n, 1)), random.uniform(0.8, 1.2, (n, 1))
    turns = np.where(y[:, None] % 2 == 0, 0.6, 1.5) * pace * t + phase
    x = np.where(y[:, None] < 2, np.sin(turns), np.sign(np.sin(turns)) * 1.6) + random.normal(scale=0.15, size=(n, longest))
    lengths = random.randint(8, longest + 1, size=(n, 1))
    mask = np.arange(longest + padding)[None] < lengths
    values = np.concatenate([x, np.zeros((n, padding))], 1) * mask
    return _split("shapes", ("slow", "fast", "slow edges", "fast edges"), np.stack([values, mask], 2), y, 500)


def signal(length: int) -> Callable[[], Split]:
    """Returns sequences whose first step shows one of four signs; noise comes after it."""
    return lambda: _signal(length)


@cache
def _signal(length: int) -> Split:
    random = np.random.RandomState(5)
    y = random.randint(4, size=2400)
    x = random.normal(scale=0.5, size=(2400, length, 5))
    x[:, 0, :4] += 2 * np.eye(4)[y]
    return _split("signal", ("a", "b", "c", "d"), x, y, 500)


@cache
def discounted() -> Split:
    """A sum of signed numbers, older ones count less; targets are standardized."""
    random = np.random.RandomState(31)
    x = np.stack([random.uniform(-1, 1, (2200, 14)), random.choice([-1.0, 1.0], (2200, 14))], 2)
    y = (x[..., 0] * x[..., 1] * 0.8 ** np.arange(13, -1, -1)).sum(1)
    return _split("discounted", (), x, ((y - y.mean()) / y.std())[:, None], 400)


@cache
def votes() -> Split:
    """12 tokens of a vocabulary of 9: which of the first five comes most often."""
    random = np.random.RandomState(8)
    y = random.randint(5, size=2400)
    x = random.randint(9, size=(2400, 12))
    for row, label in zip(x, y, strict=True):
        row[random.permutation(12)[:5]] = label
    y = np.stack([(x == c).sum(1) for c in range(5)], 1).argmax(1)
    return _split("votes", tuple("abcde"), x, y, 500)


def _flight(x: Array) -> Array:
    angle, speed, height, wind = 0.75 + 0.35 * x[:, 0], 2 + 0.6 * x[:, 1], 1 + 0.4 * x[:, 2], 0.4 * x[:, 3]
    up = speed * np.sin(angle)
    time = up + np.sqrt(np.maximum(up**2 + 2 * height, 0))
    return np.asarray(time * (speed * np.cos(angle) + wind))


def _points(name: str, classes: int, label: Callable[[Array], Array], n: int) -> Split:
    random = np.random.RandomState(17)
    x = random.uniform(-1, 1, size=(n + 500, 2))
    return _split(name, tuple(str(c) for c in range(classes)), x * 3**0.5, label(x), 500)


def _numbers(name: str, features: int, f: Callable[[Array], Array], n: int, noise: float) -> Split:
    random = np.random.RandomState(23)
    x = random.uniform(-(3**0.5), 3**0.5, size=(n + 400, features))
    y = f(x)
    y = (y - y.mean()) / y.std() + random.normal(scale=noise, size=len(y))
    return _split(name, (), x, y[:, None], 400)


def _split(name: str, classes: tuple[str, ...], x: Array, y: Array, test: int) -> Split:
    xt = torch.from_numpy(x) if x.dtype.kind == "i" else torch.from_numpy(x).float()
    yt = torch.from_numpy(y).long() if classes else torch.from_numpy(y).float()
    return Split(name=name, classes=classes, x_train=xt[:-test], y_train=yt[:-test], x_test=xt[-test:], y_test=yt[-test:])


def _first(split: Split, n: int, name: str) -> Split:
    return replace(split, name=name, x_train=split.x_train[:n], y_train=split.y_train[:n])
