"""Report -> one JSON document, and back, exactly: arrays as base64, numbers that JSON lacks as objects."""

from __future__ import annotations

import base64
import binascii
import json
import math
import types
import typing
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

import numpy as np

from evengrad.errors import InputError
from evengrad.report.report import Report

SCHEMA, VERSION = "evengrad/report", 1
_DTYPES = ("<f4", "<f8", "<i8")


def dumps(report: Report) -> str:
    """Returns the report as strict JSON (no NaN or Infinity tokens) that `loads` reads back exactly.

    Arrays become `{"$array": base64 of little-endian bytes, "dtype": …, "shape": …}`, numbers that are not finite `{"$float": "nan"}`.
    """
    return json.dumps({"schema": f"{SCHEMA}/{VERSION}", **_encode(report)}, allow_nan=False, ensure_ascii=False)


def loads(text: str) -> Report:
    """Reads what `dumps` wrote; fields that this version does not know are ignored.

    Raises:
        InputError: if the text is not such a document, is cut short, or has a newer schema.
    """
    document = _parse(text)
    try:
        report = _decode(Report, {k: v for k, v in document.items() if k != "schema"})
    except InputError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(f"the report is damaged: {error}; write it again with `report.to_json()`") from error
    assert isinstance(report, Report)
    return report


def _parse(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        cut = error.pos >= len(text.rstrip()) or "Unterminated" in error.msg
        what = "ends in the middle" if cut else "is not JSON"
        place = f"{error.msg} at character {error.pos} of {len(text)}"
        raise InputError(f"the report {what} ({place}); expected what `report.to_json()` wrote") from error
    except RecursionError as error:
        raise InputError("the document is nested too deeply for a report; expected what `report.to_json()` wrote") from error
    schema = document.get("schema") if isinstance(document, dict) else None
    if not isinstance(schema, str) or not schema.startswith(f"{SCHEMA}/") or not schema.rpartition("/")[2].isdigit():
        came = f"schema {schema!r:.60}" if schema else "one without a schema"
        raise InputError(f"expected a document with schema {SCHEMA}/{VERSION}, got {came}")
    if int(schema.rpartition("/")[2]) > VERSION:
        raise InputError(f"the report has schema {schema}; this evengrad reads up to {SCHEMA}/{VERSION}: install a newer one")
    assert isinstance(document, dict)
    return document


def _no_constant(token: str) -> float:
    raise InputError(f"the document holds the token {token}, which JSON does not have; expected what `report.to_json()` wrote")


def _encode(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _encode_field(_hints(type(value))[f.name], getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, np.ndarray):
        dtype = value.dtype.newbyteorder("<")
        return {"$array": base64.b64encode(value.astype(dtype).tobytes()).decode(), "dtype": dtype.str, "shape": list(value.shape)}
    if isinstance(value, np.generic):
        return _encode(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": str(value)}
    if isinstance(value, tuple):
        return {"$tuple": [_encode(x) for x in value]}
    if isinstance(value, list):
        return [_encode(x) for x in value]
    if isinstance(value, dict):
        plain = all(isinstance(k, str) and not k.startswith("$") for k in value)
        return {k: _encode(v) for k, v in value.items()} if plain else {"$dict": [[_encode(k), _encode(v)] for k, v in value.items()]}
    return value


def _encode_field(hint: Any, value: Any) -> Any:
    """A field whose type says tuple is a plain list; only where the type is open must the document say which it was."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union) and value is not None:
        return _encode_field(next(a for a in args if a is not type(None)), value)
    if origin is tuple:
        return [_encode_field(args[0], x) for x in value]
    return _encode(value)


def _decode(hint: Any, value: Any) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _decode(next(a for a in args if a is not type(None)), value)
    if is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, dict):
            raise TypeError(f"expected the fields of a {hint.__name__}, got {type(value).__name__}")
        return hint(**{k: _decode(h, value[k]) for k, h in _hints(hint).items() if k in value})
    if origin is tuple:
        return tuple(_decode(args[0], x) for x in _listed(value))
    if origin is dict and "$dict" not in value:
        return {k: _decode(args[1], v) for k, v in value.items()}
    decoded = _open(value)
    if hint in (str, int, bool, float) and not isinstance(decoded, (int, float) if hint is float else hint):
        raise TypeError(f"expected {hint.__name__}, got {decoded!r:.60}")
    return decoded


def _open(value: Any) -> Any:
    """Decodes a value whose type only the document knows."""
    if isinstance(value, list):
        return [_open(x) for x in value]
    if not isinstance(value, dict):
        return value
    if "$array" in value:
        return _array(value)
    if "$float" in value:
        return float(value["$float"])
    if "$tuple" in value:
        return tuple(_open(x) for x in value["$tuple"])
    if "$dict" in value:
        return {_open(k): _open(v) for k, v in value["$dict"]}
    return {k: _open(v) for k, v in value.items()}


def _array(value: dict[str, Any]) -> np.ndarray[Any, Any]:
    if value["dtype"] not in _DTYPES:
        raise InputError(f"an array has dtype {value['dtype']!r}; expected one of {', '.join(_DTYPES)}")
    try:
        data = base64.b64decode(value["$array"], validate=True)
    except binascii.Error as error:
        raise InputError(f"an array is damaged ({error}); write the report again") from error
    return np.frombuffer(data, value["dtype"]).reshape(value["shape"]).copy()


def _listed(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"expected a list, got {type(value).__name__}")
    return value


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)
