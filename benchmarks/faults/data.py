"""name -> small data that programs are trained on: the lab's own, cut down, and points to regress on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import torch
from torch.nn import functional as F

from evengrad.lab import data
from evengrad.lab.data import Split


@cache
def digits() -> Split:
    """Digits as 64 standardized features."""
    return _even(data.digits(standardize=True))


@cache
def digit_images() -> Split:
    """Digits as standardized images of 8 x 8."""
    return _even(data.digits(flat=False, standardize=True))


@cache
def digit_rows() -> Split:
    """Digits as sequences of 8 rows."""
    images = digit_images()
    return replace(images, x_train=images.x_train[:, 0], x_test=images.x_test[:, 0])


@cache
def fashion_images() -> Split:
    """2,000 images of clothes of 14 x 14, standardized, and 600 to test on."""
    full = data.fashion_mnist(flat=False)
    order = torch.randperm(len(full.x_train), generator=torch.Generator().manual_seed(0))[:2000]
    small = replace(
        full,
        x_train=F.avg_pool2d(full.x_train[order], 2),
        y_train=full.y_train[order],
        x_test=F.avg_pool2d(full.x_test[:600], 2),
        y_test=full.y_test[:600],
    )
    return data.standardized(small)


@cache
def fashion() -> Split:
    """The same as 196 features."""
    images = fashion_images()
    return replace(images, x_train=images.x_train.flatten(1), x_test=images.x_test.flatten(1))


@cache
def fashion_rows() -> Split:
    """The same as sequences of 14 rows."""
    images = fashion_images()
    return replace(images, x_train=images.x_train[:, 0], x_test=images.x_test[:, 0])


@cache
def wine() -> Split:
    """178 wines, standardized."""
    return data.wine()


@cache
def cancer() -> Split:
    """569 tumours, standardized."""
    return data.breast_cancer()


@cache
def circles() -> Split:
    """Two circles, far enough apart to be told apart."""
    return data.two_circles(n=1200, noise=0.05)


@cache
def moons() -> Split:
    """Two moons."""
    return data.moons(n=1200, noise=0.15)


@cache
def spirals() -> Split:
    """Two spirals of one and a quarter turns."""
    return data.spirals(n=1600, turns=1.25)


@cache
def blobs() -> Split:
    """Five clouds in the plane, standardized."""
    return data.standardized(data.blobs(n=1600, classes=5, spread=1.2, seed=4))


@cache
def friedman() -> Split:
    """Friedman 1991's first function of ten even numbers, with noise; targets are standardized."""
    return _regression("friedman", 10, _friedman, 1200, 0.15)


@cache
def waves() -> Split:
    """A product of waves in the plane, with noise; targets are standardized."""
    return _regression("waves", 2, lambda x: np.sin(3 * x[:, 0]) * np.cos(2 * x[:, 1]), 1200, 0.1)


@cache
def energy() -> Split:
    """A sum of squares and products of six features, with noise; targets are standardized."""
    return _regression("energy", 6, lambda x: x[:, 0] * x[:, 1] + 0.7 * x[:, 2] ** 2 + np.abs(x[:, 3]) - x[:, 4], 1200, 0.15)


@cache
def noisy_line() -> Split:
    """A line that explains six tenths of the targets: the rest is noise."""
    return _regression("noisy_line", 4, lambda x: x @ np.array([1.0, -0.5, 0.3, 0.0]), 1500, 0.8)


@cache
def adding(length: int = 12) -> Split:
    """The adding problem over a few steps; targets are standardized."""
    return _centred(data.adding(length=length, n=2000, n_test=500))


def recall(delay: int = 4) -> Callable[[], Split]:
    """Returns the copy task that asks for the last symbol shown, some blank steps later."""
    return lambda: _recall(delay)


@cache
def _recall(delay: int) -> Split:
    return data.copy_memory(delay=delay, alphabet=6, length=3, n=1500, n_test=400, every_step=False)


def _even(split: Split) -> Split:
    """Keeps 1,400 samples to train on, so that no last batch is of one."""
    return replace(split, x_train=split.x_train[:1400], y_train=split.y_train[:1400])


def _friedman(x: np.ndarray) -> np.ndarray:
    u = (x + 3**0.5) / 12**0.5  # even in [0, 1]
    return np.asarray(10 * np.sin(np.pi * u[:, 0] * u[:, 1]) + 20 * (u[:, 2] - 0.5) ** 2 + 10 * u[:, 3] + 5 * u[:, 4])


def _regression(name: str, features: int, f: Callable[[np.ndarray], np.ndarray], n: int, noise: float) -> Split:
    random = np.random.RandomState(7)
    x = random.uniform(-(3**0.5), 3**0.5, size=(n + 400, features))  # variance 1
    y = f(x)
    y = (y - y.mean()) / y.std() + random.normal(scale=noise, size=len(y))
    xt, yt = torch.from_numpy(x).float(), torch.from_numpy(y).float()[:, None]
    return _centred(Split(name=name, classes=(), x_train=xt[:n], y_train=yt[:n], x_test=xt[n:], y_test=yt[n:]))


def _centred(split: Split) -> Split:
    y_train, y_test = split.y_train.reshape(len(split.y_train), -1), split.y_test.reshape(len(split.y_test), -1)
    mean, std = y_train.mean(), y_train.std()
    return replace(split, y_train=(y_train - mean) / std, y_test=(y_test - mean) / std)
