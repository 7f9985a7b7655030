"""name -> small data that the sixth set's programs are trained on, beside those that other sets have."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from sklearn import datasets

from benchmarks.faults.data import fashion_images
from benchmarks.faults.fifth.data import numbers, split_of
from evengrad.lab import data
from evengrad.lab.data import Split


@cache
def pixels() -> Split:
    """Digits as 64 features in [0, 1]."""
    return data.digits()


@cache
def pixels_again() -> Split:
    """Digits as 64 features in [0, 1], which are the targets too."""
    found = data.digits()
    return Split(name="pixels", classes=(), x_train=found.x_train, y_train=found.x_train, x_test=found.x_test, y_test=found.x_test)


@cache
def clothes() -> Split:
    """Clothes as images of 14 x 14 in [0, 1]."""
    found = fashion_images()
    low, high = found.x_train.min(), found.x_train.max()
    x_train, x_test = ((x - low) / (high - low) for x in (found.x_train, found.x_test))
    return Split(name="clothes", classes=found.classes, x_train=x_train, y_train=found.y_train, x_test=x_test, y_test=found.y_test)


@cache
def diabetes(*, raw: bool = False) -> Split:
    """How a disease went on after a year, by ten measures of 442 patients (Efron 2004); `raw` leaves the targets as they were told."""
    x, y = datasets.load_diabetes(return_X_y=True)
    order = np.random.RandomState(3).permutation(len(x))
    x, y = x[order] / x.std(0), y[order, None]
    if not raw:
        return numbers("diabetes", x, y, 100, 0.0)
    return split_of("diabetes", (), x, y, 100)


@cache
def houses() -> Split:
    """A price by eight measures: a sum of products, squares and steps; targets are standardized."""
    x = np.random.RandomState(307).normal(size=(2000, 8))
    y = x[:, 0] * x[:, 1] + x[:, 2] ** 2 + 1.5 * (x[:, 3] > 0) + np.sin(2 * x[:, 4]) - 0.5 * np.abs(x[:, 5]) * x[:, 6]
    return numbers("houses", x, y[:, None], 400, 0.1)


@cache
def rings() -> Split:
    """Three rings, one around the other, in the plane."""
    random = np.random.RandomState(311)
    y, turn = random.randint(3, size=1800), random.uniform(0, 2 * np.pi, 1800)
    far = 0.6 * (y + 1) + random.normal(scale=0.08, size=1800)
    return split_of("rings", ("inner", "middle", "outer"), np.stack([far * np.cos(turn), far * np.sin(turn)], 1), y, 400)


@cache
def demand() -> Split:
    """The next value of a daily and a weekly wave with a trend, by the 24 before it."""
    random = np.random.RandomState(313)
    start, level, tilt = random.uniform(0, 168, (1800, 1)), random.normal(size=(1800, 1)), random.normal(scale=0.05, size=(1800, 1))
    t = np.arange(25.0)[None]
    series = level + tilt * t + np.sin(2 * np.pi * (start + t) / 12) + 0.6 * np.sin(2 * np.pi * (start + t) / 7)
    series = (series + random.normal(scale=0.05, size=series.shape)) / series.std()
    return numbers("demand", series[:, :24, None], series[:, 24:] - series[:, 23:24], 400, 0.0)


@cache
def reviews() -> Split:
    """20 words of a vocabulary of 40: whether more of them praise than not, where the word 1 turns the one behind it around."""
    random = np.random.RandomState(317)
    x = random.randint(1, 40, size=(3200, 20))
    mood = np.where(x < 2, 0.0, np.where(x < 12, 1.0, np.where(x < 22, -1.0, 0.0)))
    turned = np.concatenate([np.zeros((3200, 1)), x[:, :-1] == 1], 1)
    total = (mood * (1 - 2 * turned)).sum(1)
    keep = total != 0
    return split_of("reviews", ("bad", "good"), x[keep], (total[keep] > 0).astype(int), 500)


def as_bytes(x: torch.Tensor) -> torch.Tensor:
    """Pixels in 0 ... 255."""
    return (x - x.min()) / (x.max() - x.min()) * 255
