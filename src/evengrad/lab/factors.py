"""name, factors -> Study: what a person writes for a factor is brought to the type of its field, or refused."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import fields
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from evengrad.errors import InputError, unknown
from evengrad.lab.study import Study

_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def build(kind: type[Study], factors: Mapping[str, Any], *, quick: bool = False) -> Study:
    """Returns the study in its full or quick size, with these factors in place of its own.

    Raises:
        UnknownNameError: if a factor is not a field of the study.
        InputError: if a value is not of the field's type.
    """
    known = field_types(kind)
    for name in factors:
        if name not in known:
            raise unknown(f"factor of the study {kind.name!r}", name, known)
    given = {name: _fit(name, known[name], value) for name, value in factors.items()}
    sizes = {f.name: getattr(kind.quick(), f.name) for f in fields(kind)} if quick else {}
    study = kind(**sizes | given)
    if study.seeds < 1:
        raise InputError(f"seeds must be at least 1; got {study.seeds}")
    return study


def field_types(kind: type[Study]) -> dict[str, Any]:
    """Returns the type of every field of a study."""
    hints = get_type_hints(kind)
    return {f.name: hints[f.name] for f in fields(kind)}


def parse(kind: type[Study], assignments: list[str]) -> dict[str, Any]:
    """Reads `depth=1,2,5` as it is written on the command line.

    A comma between parentheses belongs to the value: `activation=tanh,leaky_relu(0.2)`.

    Raises:
        InputError: if there is no `=` or a value cannot be read as the field's type.
        UnknownNameError: if a factor is not a field of the study.
    """
    known = field_types(kind)
    read = {}
    for assignment in assignments:
        name, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals:
            raise InputError(f"expected NAME=VALUE, such as seeds=5; got {assignment!r}")
        if name not in known:
            raise unknown(f"factor of the study {kind.name!r}", name, known)
        read[name] = _read(name, known[name], text)
    return read


def command(study: Study, quick: bool) -> str:
    """Returns what to type to run this study in this size."""
    kind = type(study)
    base = kind.quick() if quick else kind()
    target = study.source.path if study.source else study.name
    changed = [(f.name, getattr(study, f.name)) for f in fields(kind) if getattr(study, f.name) != getattr(base, f.name)]
    sets = [part for name, value in changed for part in ("--set", f"{name}={_written(value)}")]
    return shlex.join(["evengrad", "study", "run", target, *(["--quick"] if quick else []), *sets])


def _written(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def shown(hint: Any) -> str:
    """Returns a field's type in words: `int`, `several of str`."""
    kinds = _alternatives(hint)
    words = [f"one or more of {_item(k).__name__}" if get_origin(k) is tuple else "none" if k is NoneType else k.__name__ for k in kinds]
    return " or ".join(words)


def _fit(name: str, hint: Any, value: Any) -> Any:
    for kind in _alternatives(hint):
        if get_origin(kind) is tuple:
            items = list(value) if isinstance(value, list | tuple | range) else [value]
            if items and all(_is(_item(kind), v) for v in items):
                return tuple(_item(kind)(v) for v in items)
        elif _is(kind, value):
            return value if kind is NoneType else kind(value)
    raise InputError(f"{name} takes {shown(hint)}; got {value!r}")


def _is(kind: Any, value: Any) -> bool:
    if kind in {int, float} and isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if kind is float else kind)


def _read(name: str, hint: Any, text: str) -> Any:
    for kind in _alternatives(hint):
        try:
            if get_origin(kind) is tuple:
                return tuple(_word(_item(kind), part.strip()) for part in re.split(r",(?![^()]*\))", text))
            return _word(kind, text)
        except (ValueError, KeyError):
            continue
    raise InputError(f"{name} takes {shown(hint)}; got {text!r}")


def _word(kind: Any, text: str) -> Any:
    if kind is NoneType:
        return {"none": None}[text.lower()]
    if kind is bool:
        return _WORDS[text.lower()]
    if not text:
        raise ValueError(text)
    return kind(text)


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """The types of `X | None`, None first so that the word `none` is not taken for text."""
    kinds = (hint,) if get_origin(hint) is tuple or not get_args(hint) else get_args(hint)
    return tuple(sorted(kinds, key=lambda k: k is not NoneType))


def _item(kind: Any) -> Any:
    return get_args(kind)[0]
