"""CSV or NPZ file -> inputs and targets as they stand in it, and how to name a place in it."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evengrad.errors import InputError, unknown
from evengrad.lab.data.split import Array

SUFFIXES = (".csv", ".npz")
_MISSING = {"", "na", "n/a", "nan", "null", "none", "?"}


@dataclass(frozen=True, kw_only=True)
class Found:
    """Inputs and targets before they are checked.

    Attributes:
        name: Where they come from.
        x: Inputs.
        y: Targets.
        test: (inputs, targets) to test on, if the source sets them apart.
        columns: Names of the inputs' columns, and `target` the target's, if it is a table.
        lines: Line of each sample in the file, if it is a table.
    """

    name: str
    x: Any
    y: Any
    test: tuple[Any, Any] | None = None
    columns: tuple[str, ...] | None = None
    target: tuple[str, ...] | None = None
    lines: Sequence[int] | None = None

    def place(self, index: Sequence[int], columns: tuple[str, ...] | None) -> str:
        """Words a place in `x`, whose columns are `columns`, or in `y`."""
        if self.lines is not None and columns is not None:
            return f"line {self.lines[index[0]]}, column {columns[index[-1] if len(index) > 1 else 0]!r}"
        return f"sample {index[0]}" + (f", place {', '.join(str(i) for i in index[1:])}" if len(index) > 1 else "")


def read(path: Path, target: str | int | None) -> Found:
    """Reads a file by its suffix.

    Args:
        path: Ends in .csv or .npz.
        target: Name or index of a CSV file's target column, None for the last.

    Raises:
        InputError: if it cannot be read as that.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"expected a file that ends in {' or '.join(SUFFIXES)}; got {path}")
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    try:
        if path.suffix.lower() == ".npz":
            return _npz(path, target)
        return _csv(path, target)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def _npz(path: Path, target: str | int | None) -> Found:
    if target is not None:
        raise InputError(f"an NPZ file has no target column: its targets are the array y; got {path} with target={target!r}")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if {"x_train", "y_train", "x_test", "y_test"} <= set(arrays):
                return Found(name=str(path), x=arrays["x_train"], y=arrays["y_train"], test=(arrays["x_test"], arrays["y_test"]))
            if {"x", "y"} <= set(arrays):
                return Found(name=str(path), x=arrays["x"], y=arrays["y"])
            found = ", ".join(arrays) or "nothing"
    except (ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is not an NPZ file of plain arrays: {error}") from error
    raise InputError(f"{path}: expected arrays x and y, or x_train, y_train, x_test and y_test; found {found}")


def _csv(path: Path, target: str | int | None) -> Found:
    rows, lines = _rows(path)
    header = _header(rows[0], target)
    if header is not None:
        rows, lines = rows[1:], lines[1:]
    columns = header or [str(i) for i in range(len(rows[0]))]
    at = _column(path, columns, target, named=header is not None)
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(columns):
            raise InputError(f"{path}, line {line}: expected {len(columns)} values, as in the first line; found {len(row)}")
    if not rows or len(columns) < 2:
        raise InputError(f"{path}: expected samples of at least one input and a target; found {len(rows)} of {len(columns)} columns")
    inputs = [i for i in range(len(columns)) if i != at]
    return Found(
        name=str(path),
        x=np.stack([_numbers(path, columns[i], [row[i] for row in rows], lines) for i in inputs], axis=1),
        y=_targets(path, columns[at], [row[at] for row in rows], lines),
        columns=tuple(columns[i] for i in inputs),
        target=(columns[at],),
        lines=lines,
    )


def _rows(path: Path) -> tuple[list[list[str]], list[int]]:
    """Returns the cells of each line that is not blank, and its number."""
    rows, lines = [], []
    with path.open(encoding="utf-8-sig", newline="") as file:
        first = next((line for line in file if line.strip()), "")
        file.seek(0)
        reader = csv.reader(file, delimiter=max(";\t,", key=first.count), strict=True)
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append([cell.strip() for cell in row])
                lines.append(reader.line_num)
    if not rows:
        raise InputError(f"{path} is empty")
    return rows, lines


def _header(first: list[str], target: str | int | None) -> list[str] | None:
    """Returns the first line if it names columns: the target among them, or none of it is a number."""
    names_target = isinstance(target, str) and target in first and not _is_number(target)
    return first if names_target or not any(_is_number(cell) for cell in first) else None


def _column(path: Path, columns: list[str], target: str | int | None, *, named: bool) -> int:
    """Returns the index of the target's column; from the command line an index comes as text."""
    if isinstance(target, str) and target in columns and named:
        if columns.count(target) > 1:
            raise InputError(f"{path} has {columns.count(target)} columns called {target!r}; give the target's index, from 0")
        return columns.index(target)
    try:
        index = -1 if target is None else int(target)
    except ValueError:
        if named:
            raise unknown(f"column of {path}", str(target), columns) from None
        raise InputError(f"{path} has no header: its first line holds numbers. Give the target's index, from 0; got {target!r}") from None
    if not -len(columns) <= index < len(columns):
        raise InputError(f"{path} has the columns 0 to {len(columns) - 1}; got target={index}")
    return index % len(columns)


def _numbers(path: Path, column: str, cells: list[str], lines: list[int]) -> Array:
    for cell, line in zip(cells, lines, strict=True):
        if not _is_number(cell) and not _is_missing(cell):
            raise InputError(
                f"{path}, line {line}, column {column!r}: expected a number; found {cell!r}. Encode or leave out columns of text"
            )
    return np.array([np.nan if _is_missing(cell) else float(cell) for cell in cells])


def _targets(path: Path, column: str, cells: list[str], lines: list[int]) -> Array:
    """Returns integers, else fractions (missing ones NaN), else text."""
    present = [cell for cell in cells if not _is_missing(cell)]
    if all(_is_number(cell) for cell in present):
        try:
            return np.array([int(cell) for cell in cells])
        except ValueError:
            return _numbers(path, column, cells, lines)
    if missing := [line for cell, line in zip(cells, lines, strict=True) if _is_missing(cell)]:
        raise InputError(f"{path}, column {column!r}: {len(missing)} of {len(cells)} labels are missing, the first in line {missing[0]}")
    return np.array(cells)


def _is_missing(cell: str) -> bool:
    return cell.lower() in _MISSING


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return not _is_missing(cell)
