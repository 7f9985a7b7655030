"""A value -> the bytes and the checksum that it is kept as, and back: what writer and reader agree on."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np

from evengrad.errors import InputError
from evengrad.types import Event, Facts, Layer, Run

T = TypeVar("T", Run, Facts, Layer, Event)

SCHEMA, SUFFIX = 1, ".evengrad"
APPLICATION = 0x4547524E  # "EGRN"
TABLES = {
    "about": "CREATE TABLE about (key TEXT PRIMARY KEY, crc INTEGER NOT NULL, data BLOB NOT NULL) WITHOUT ROWID",
    "layouts": "CREATE TABLE layouts (id INTEGER PRIMARY KEY, crc INTEGER NOT NULL, data BLOB NOT NULL)",
    "frames": "CREATE TABLE frames (id INTEGER PRIMARY KEY, step INTEGER, layout INTEGER, crc INTEGER NOT NULL, data BLOB NOT NULL)",
    "points": "CREATE TABLE points (id INTEGER PRIMARY KEY, layout INTEGER, crc INTEGER NOT NULL, data BLOB NOT NULL)",
    "events": "CREATE TABLE events (id INTEGER PRIMARY KEY, crc INTEGER NOT NULL, data BLOB NOT NULL)",
}
"""
about    key (`name`, `created`, `run`, `layers`, `facts`) -> JSON
layouts  number -> JSON of the names in a blob and the shape behind each of them
frames   little-endian float32, (names, *shape) of the layout; rows of one step belong together, the last one of a name holds
points   a piece of a curve: N steps, little-endian int64, then N values, little-endian float64
events   JSON
"""


def checked(data: bytes, *key: object) -> tuple[int, bytes]:
    """Returns the CRC-32 of the data and of the place that they belong to, and the data."""
    return zlib.crc32(data, zlib.crc32(repr(key).encode())), data


def packed(value: Any) -> bytes:
    """Returns JSON in which tuples, keys that are no text, NaN and infinity survive.

    Raises:
        InputError: if it holds something else than numbers, text, lists, tuples and mappings.
    """
    try:
        return json.dumps(_encode(value), separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"a run keeps numbers, text, None, lists, tuples and dicts of these; got something else: {error}") from error


def unpacked(data: bytes) -> Any:
    """Reads what `packed` made."""
    return _decode(json.loads(data))


def made(kind: type[T], values: Mapping[str, Any]) -> T:
    """Builds a value of its fields; those that this version does not know are left out."""
    return kind(**{f.name: values[f.name] for f in fields(kind) if f.name in values})


def _encode(value: Any) -> Any:
    if isinstance(value, tuple):
        return {"$tuple": [_encode(x) for x in value]}
    if isinstance(value, list):
        return [_encode(x) for x in value]
    if isinstance(value, dict):
        if all(isinstance(k, str) and not k.startswith("$") for k in value):
            return {k: _encode(v) for k, v in value.items()}
        return {"$dict": [[_encode(k), _encode(v)] for k, v in value.items()]}
    return value.item() if isinstance(value, np.generic) else value


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(x) for x in value]
    if not isinstance(value, dict):
        return value
    if "$tuple" in value:
        return tuple(_decode(x) for x in value["$tuple"])
    if "$dict" in value:
        return {_decode(k): _decode(v) for k, v in value["$dict"]}
    return {k: _decode(v) for k, v in value.items()}
