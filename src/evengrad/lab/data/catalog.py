"""name or path -> Split: the lab's data sets, the same on every call, and the user's own files."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evengrad.errors import unknown
from evengrad.lab.data.arrays import own
from evengrad.lab.data.files import SUFFIXES
from evengrad.lab.data.images import cifar10, fashion_mnist, mnist
from evengrad.lab.data.points import blobs, moons, spirals, two_circles
from evengrad.lab.data.sequences import adding, copy_memory, fashion_rows
from evengrad.lab.data.split import Split
from evengrad.lab.data.tables import breast_cancer, digits, wine

_LOADERS: dict[str, Callable[..., Split]] = {
    f.__name__: f
    for f in (
        *(two_circles, moons, spirals, blobs),
        *(digits, wine, breast_cancer),
        *(fashion_mnist, mnist, cifar10),
        *(adding, copy_memory, fashion_rows),
    )
}


def load(name: str | Path, /, **options: Any) -> Split:
    """Returns the data set called `name`, or the user's own file if `name` ends in .csv or .npz; see `names`, `own`.

    Args:
        name: Name of a data set or path of a file.
        options: Those of the function of that name; for a file those of `own`.

    Raises:
        UnknownNameError: if there is no such data set or option.
        InputError: if the data are not to be had or not as expected.

    Example:
        >>> load("two_circles").x_train.shape
        torch.Size([500, 2])
    """
    is_file = Path(name).suffix.lower() in SUFFIXES
    if not is_file and name not in _LOADERS:
        raise unknown("data set", str(name), _LOADERS)
    loader = own if is_file else _LOADERS[str(name)]
    known = [option for option in inspect.signature(loader).parameters if option not in {"source", "y"}]
    for option in options:
        if option not in known:
            raise unknown(f"option of {name}", option, known)
    return loader(name, **options) if is_file else loader(**options)


def names() -> tuple[str, ...]:
    """Lists what `load` knows."""
    return tuple(sorted(_LOADERS))
