"""the user's own arrays or file -> Split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from evengrad.errors import InputError
from evengrad.lab.data.files import Found, read
from evengrad.lab.data.sampling import hold_out_index
from evengrad.lab.data.scaling import scaled
from evengrad.lab.data.split import Array, Split, split

Pair = tuple[Tensor | ArrayLike, Tensor | ArrayLike]


def own(
    source: str | Path | Tensor | ArrayLike,
    y: Tensor | ArrayLike | None = None,
    *,
    target: str | int | None = None,
    name: str | None = None,
    test: float | Pair = 0.2,
    standardize: bool = False,
    classes: Sequence[str] | None = None,
    finite: bool = True,
    seed: int = 0,
) -> Split:
    """Returns one's own data as a copy: arrays, or a CSV or NPZ file.

    Targets of text, integers or truth values are labels of classes, in sorted order; fractions are numbers to come near to. A CSV file has
    a sample a line, may have a header, and separates by comma, semicolon or tab. An NPZ file holds `x` and `y`, or `x_train`, `y_train`,
    `x_test` and `y_test`, which stay as they are split.

    Args:
        source: Inputs, (N, ...), or the path of a file.
        y: Targets if `source` is inputs: (N,); fractions may be (N, ...).
        target: Name or index of the target's column if `source` is a CSV file, None for the last. All others are inputs.
        name: The split's name; None for the path, or `own`.
        test: Share of the samples to test on, drawn class by class; or (inputs, targets) to test on.
        standardize: Scales inputs as by `standardized`.
        classes: Names of the classes: label i is `classes[i]`. () where integers are numbers to come near to. None finds them in the data.
        finite: Refuses missing and infinite values; False lets them through as they are.
        seed: Seed of the draw of test samples, in [0, 2**32).

    Raises:
        InputError: if the data are not of one length, are not numbers where they must be, are not finite or are too few; it says where.

    Example:
        >>> split = own([[0.0], [1.0], [2.0], [3.0]], ["no", "no", "yes", "yes"], test=0.5)
        >>> split.classes, split.y_test.tolist()
        (('no', 'yes'), [0, 1])
    """
    classes = None if classes is None else tuple(classes)
    found = _found(source, y, target)
    name = name or found.name
    x, y = _checked(found, finite)
    given = found.test or test
    if isinstance(given, tuple):
        x_test, y_test = _checked(Found(name=f"{found.name} (test)", x=given[0], y=given[1]), finite)
        if (x.shape[1:], y.shape[1:]) != (x_test.shape[1:], y_test.shape[1:]):
            raise InputError(f"{name}: a sample to train on has the shape {x.shape[1:]}, one to test on {x_test.shape[1:]}")
        train, held = np.arange(len(x)), np.arange(len(x), len(x) + len(x_test))
        x, y = np.concatenate((x, x_test)), np.concatenate((y, y_test))
        y, classes = _labelled(y, classes, name)
    else:
        y, classes = _labelled(y, classes, name)
        train, held = hold_out_index(y, given, seed)
    inputs = scaled(x[train], x[held]) if standardize else (x[train], x[held])
    return split(name, classes, (inputs[0], y[train]), (inputs[1], y[held]))


def _found(source: str | Path | Tensor | ArrayLike, y: Tensor | ArrayLike | None, target: str | int | None) -> Found:
    if isinstance(source, str | Path):
        if y is not None:
            raise InputError(f"expected a file or arrays; got the file {source} and targets besides")
        return read(Path(source), target)
    if y is None or target is not None:
        raise InputError("expected inputs and targets, own(x, y), or a file, own('path.csv', target='column')")
    return Found(name="own", x=source, y=y)


def _checked(found: Found, finite: bool) -> tuple[Array, Array]:
    """Returns inputs, numbers of (N, ...), and targets, (N,) or fractions of (N, ...)."""
    x, y = _array(found.x, f"{found.name}: inputs"), _array(found.y, f"{found.name}: targets")
    if x.dtype.kind not in "fiub":
        try:
            x = x.astype(np.float64)
        except (ValueError, TypeError) as error:
            raise InputError(f"{found.name}: inputs are not all numbers: {error}") from error
    if x.ndim < 2 or not x.size or len(x) != len(y):
        raise InputError(
            f"{found.name}: expected inputs of shape (samples, features) or (samples, ...) and a target for each sample; "
            f"got inputs of shape {x.shape} and targets of shape {y.shape}"
        )
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if finite:
        _all_finite(x, found, found.columns)
        _all_finite(y, found, found.target)
    return x, y


def _array(values: Any, what: str) -> Array:
    try:
        array = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
    except (ValueError, TypeError) as error:
        raise InputError(f"{what} are not an array: {error}") from error
    if array.ndim == 0:
        raise InputError(f"{what} are not an array: got {values!r}")
    return array


def _all_finite(values: Array, found: Found, columns: tuple[str, ...] | None) -> None:
    if values.dtype.kind == "O":
        bad = np.argwhere([value is None or (isinstance(value, float) and np.isnan(value)) for value in values.tolist()])
    elif values.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite in it
            bad = np.argwhere(~np.isfinite(values.astype(np.float32)))
    else:
        return
    if len(bad):
        places = [f"{found.place(place, columns)} ({values[tuple(place)]})" for place in bad[:3].tolist()]
        raise InputError(
            f"{found.name}: {len(bad)} of {values.size} values are missing or infinite: {'; '.join(places)}{'; …' * (len(bad) > 3)}. "
            f"Fill or remove them, or pass finite=False to keep them"
        )


def _labelled(y: Array, classes: tuple[str, ...] | None, name: str) -> tuple[Array, tuple[str, ...]]:
    """Returns the targets as labels with the names of their classes, or as float32 with ()."""
    text = y.dtype.kind in "OUST"
    if classes == () or (classes is None and y.dtype.kind == "f"):
        if text:
            raise InputError(f"{name}: numbers to come near to were asked for (classes=()), but targets are text, such as {str(y[0])!r}")
        return y.astype(np.float32), ()
    if y.ndim != 1:
        raise InputError(f"{name}: expected one label a sample, (samples,); got {y.shape}. One-hot labels become that by argmax(1)")
    y = y.astype(str) if text else y
    values, labels, counts = np.unique(y, return_inverse=True, return_counts=True)
    if len(values) < 2:
        raise InputError(f"{name}: expected at least two classes to tell apart; all {len(y)} targets are {str(values[0])!r}")
    if classes is None:
        _no_loner(values, counts, name)
        return labels, tuple(str(value) for value in values)
    known = dict(zip(classes if text else range(len(classes)), range(len(classes)), strict=True))
    if strangers := [value for value in values.tolist() if value not in known]:
        raise InputError(f"{name}: expected labels out of {list(known)}, the {len(classes)} classes; got {strangers[0]!r}")
    return np.array([known[value] for value in values.tolist()])[labels], tuple(classes)


def _no_loner(values: Array, counts: Array, name: str) -> None:
    if counts.min() < 2:
        rare = str(values[counts.argmin()])
        raise InputError(
            f"{name}: class {rare!r} of {len(values)} has one sample; expected at least one to train on and one to test on. "
            f"If the targets are numbers to come near to, pass classes=()"
        )
