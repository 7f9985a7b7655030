"""seed -> sequences whose answer lies far back: float32 (samples, steps, features)."""

from __future__ import annotations

import numpy as np

from evengrad.errors import InputError
from evengrad.lab.data.images import fashion_mnist
from evengrad.lab.data.split import Array, Split, legacy_random, split


def adding(*, length: int = 100, n: int = 5000, n_test: int = 1000, seed: int = 1) -> Split:
    """Returns the adding problem: the sum of the two marked numbers of a sequence, to be told at its end.

    Inputs are (samples, length, 2): numbers drawn evenly from [0, 1), and a mark that is 1 at one step of the first half and at one of the
    second, else 0. Targets are float32 (samples,), so `classes` is (). Who always answers 1 errs by 1/6 (mean square).

    Args:
        length: Steps of a sequence, at least 2.
        n: Training sequences.
        n_test: Test sequences.
        seed: Seed of the draw.

    Reference: Hochreiter & Schmidhuber 1997, Long short-term memory, experiment 4, https://doi.org/10.1162/neco.1997.9.8.1735, in the form
    of Arjovsky, Shah & Bengio 2016, https://arxiv.org/abs/1511.06464
    """
    _sizes(length=(length, 2), n=(n, 1), n_test=(n_test, 1))
    random, every = legacy_random(seed), np.arange(n + n_test)
    x = np.zeros((n + n_test, length, 2), np.float32)
    x[:, :, 0] = random.uniform(size=x.shape[:2]).astype(np.float32)
    first, second = random.randint(0, length // 2, size=len(x)), random.randint(length // 2, length, size=len(x))
    x[every, first, 1] = x[every, second, 1] = 1
    return _first("adding", (), x, x[every, first, 0] + x[every, second, 0], n)


def copy_memory(
    *, delay: int = 100, alphabet: int = 8, length: int = 10, n: int = 5000, n_test: int = 1000, every_step: bool = True, seed: int = 1
) -> Split:
    """Returns the copy task: symbols are shown, and after `delay` blank steps have to be said again in their order.

    Inputs are one-hot, (samples, steps, alphabet + 2) with steps = delay + 2 * length: `length` symbols, blanks, a go sign at step
    delay + length - 1, blanks. A channel for each symbol, then the blank, then the go sign.

    Targets are labels for every step, int64 (samples, steps): blank (the last class), but the symbols in the last `length` steps. Who keeps
    no memory reaches a cross-entropy of length * ln(alphabet) / steps. With `every_step=False` they are the last step's alone, (samples,):
    the last symbol that was shown, in [0, alphabet), for networks that answer once.

    Args:
        delay: Steps between the last symbol shown and the first to be said, at least 1; the last of them is the go sign.
        alphabet: Number of symbols, at least 2.
        length: Number of symbols shown.
        n: Training sequences.
        n_test: Test sequences.
        every_step: Whether each step has a target.
        seed: Seed of the draw.

    Reference: Arjovsky, Shah & Bengio 2016, Unitary evolution recurrent neural networks, https://arxiv.org/abs/1511.06464
    """
    _sizes(delay=(delay, 1), alphabet=(alphabet, 2), length=(length, 1), n=(n, 1), n_test=(n_test, 1))
    symbols = legacy_random(seed).randint(0, alphabet, size=(n + n_test, length))
    shown = np.full((n + n_test, delay + 2 * length), alphabet)
    said = shown.copy()
    shown[:, :length] = said[:, -length:] = symbols
    shown[:, delay + length - 1] = alphabet + 1
    x = np.eye(alphabet + 2, dtype=np.float32)[shown]
    classes = tuple(f"symbol {i}" for i in range(alphabet))
    return _first("copy_memory", (*classes, "blank") if every_step else classes, x, said if every_step else said[:, -1], n)


def fashion_rows(*, pixels: bool = False, permuted: bool = False, full: bool = False, seed: int = 1) -> Split:
    """Returns Fashion-MNIST read as a sequence: the rows of an image from top to bottom, (samples, 28, 28).

    Args:
        pixels: One pixel a step instead, (samples, 784, 1).
        permuted: Steps in an order drawn once for all images, so that what belongs together lies far apart.
        full: All 60,000 + 10,000 images; see `fashion_mnist`.
        seed: Seed of that order.

    Reference: Le, Jaitly & Hinton 2015 (pixel by pixel, and permuted), https://arxiv.org/abs/1504.00941
    """
    images = fashion_mnist(full=full)
    steps = (784, 1) if pixels else (28, 28)
    order = legacy_random(seed).permutation(steps[0]) if permuted else np.arange(steps[0])
    x_train, x_test = (x.reshape(-1, *steps).numpy()[:, order] for x in (images.x_train, images.x_test))
    return split("fashion_rows", images.classes, (x_train, images.y_train.numpy()), (x_test, images.y_test.numpy()))


def _first(name: str, classes: tuple[str, ...], x: Array, y: Array, n: int) -> Split:
    """Trains on the first `n`, tests on the others."""
    return split(name, classes, (x[:n], y[:n]), (x[n:], y[n:]))


def _sizes(**sizes: tuple[int, int]) -> None:
    for name, (value, least) in sizes.items():
        if value < least:
            raise InputError(f"expected {name} of at least {least}; got {value}")
