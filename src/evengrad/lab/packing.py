"""cell -> address; row -> bytes -> row."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import fields
from typing import Any

import numpy as np

from evengrad.errors import InputError
from evengrad.lab.study import NOT_SIZES, Cell, Row, Study, canonical

ENGINE = 1  # raise it when the engine's numbers change: rows of older engines are not used


def address(study: Study, cell: Cell, size: int, place: int = 0) -> str:
    """Returns what a row is kept under: a hash of everything that decides its numbers.

    Args:
        study: Its fields count, but for those that are in the cell's arm, the number of seeds and a chunk's nominal size.
        cell: Arm and seed.
        size: Number of cells that are computed together with it, itself included: it decides about rounding.
        place: Which of them it is, from 0: vectorised arithmetic rounds the last few numbers of an array in another way.
    """
    what = {
        "study": study.name,
        "version": study.version,
        "code": study.source.code if study.source else "",
        "engine": ENGINE,
        "sizes": {f.name: getattr(study, f.name) for f in fields(study) if f.name not in {*cell.arm, *NOT_SIZES}},
        "arm": cell.arm,
        "seed": cell.seed,
        "chunk": [size, place],
        "device": str(getattr(study, "device", "cpu")).partition(":")[0],
    }
    return hashlib.sha256(canonical(what).encode()).hexdigest()


def checked(cell: Cell, row: Any) -> Row:
    """Returns the row with plain floats and arrays that cannot be written to, as it will be read from a store.

    Raises:
        InputError: if it is not a row of this cell, or holds what is not a number.
    """
    if not isinstance(row, Row) or (row.seed, canonical(row.arm)) != (cell.seed, canonical(cell.arm)):
        raise InputError(f"compute() must return a Row for each cell, in order; expected one for {cell}, got {row!r:.100}")
    try:
        values = {str(k): float(v) for k, v in row.values.items()}
    except (TypeError, ValueError) as error:
        raise InputError(f"the values of a Row are numbers; got {dict(row.values)!r:.200} for {cell}") from error
    series = {}
    for name, items in row.series.items():
        array = np.array(items)
        if array.dtype.kind not in "fiub":
            raise InputError(f"the series of a Row are arrays of numbers; {name!r} has dtype {array.dtype} for {cell}")
        array.flags.writeable = False
        series[str(name)] = array
    return Row(dict(cell.arm), cell.seed, values, series)


def packed(row: Row) -> bytes:
    """Returns a header in JSON (its length first, 32 bits) and the arrays' bytes, little-endian, one after the other."""
    arrays = {name: np.asarray(a, a.dtype.newbyteorder("<"), order="C") for name, a in row.series.items()}
    series = [(name, a.dtype.str, a.shape) for name, a in arrays.items()]
    header = json.dumps({"arm": row.arm, "seed": row.seed, "values": row.values, "series": series}).encode()
    return b"".join((struct.pack("<I", len(header)), header, *(a.tobytes() for a in arrays.values())))


def unpacked(payload: bytes) -> Row:
    """Returns the row of these bytes."""
    (length,) = struct.unpack_from("<I", payload)
    header, offset, series = json.loads(payload[4 : 4 + length]), 4 + length, {}
    for name, dtype, shape in header["series"]:
        series[name] = np.frombuffer(payload, dtype, int(np.prod(shape)), offset).reshape(shape)
        offset += series[name].nbytes
    return Row(header["arm"], header["seed"], header["values"], series)


def checksum(key: str, payload: bytes) -> bytes:
    """Returns a hash of a row and the address that it is kept under."""
    return hashlib.sha256(key.encode() + payload).digest()
