"""name -> Split: the lab's data sets, the same on every call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from evengrad.errors import unknown
from evengrad.lab.data.images import fashion_mnist
from evengrad.lab.data.points import two_circles
from evengrad.lab.data.split import Split
from evengrad.lab.data.tables import breast_cancer, digits, wine


def load(name: str, **options: Any) -> Split:
    """Returns the data set called `name`; options are those of the function of that name.

    Raises:
        UnknownNameError: if there is none.

    Example:
        >>> load("two_circles").x_train.shape
        torch.Size([500, 2])
    """
    if name not in _LOADERS:
        raise unknown("data set", name, _LOADERS)
    return _LOADERS[name](**options)


def names() -> tuple[str, ...]:
    """Lists what `load` knows."""
    return tuple(sorted(_LOADERS))


_LOADERS: dict[str, Callable[..., Split]] = {f.__name__: f for f in (two_circles, fashion_mnist, digits, wine, breast_cancer)}
