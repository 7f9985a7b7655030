"""Proposals -> one statement that repairs the Experiment exactly as they do, whatever its code looks like."""

from __future__ import annotations

import ast
import base64
import json
import textwrap
import zlib
from collections.abc import Callable, Sequence
from typing import Any

from evengrad.patching.source import Edit, NotFoundError, Source
from evengrad.types import Proposal

_NEEDED = ("remedy", "options", "where", "cause", "summary")  # the code is in the comment
_WIDTH = 125
_LONGEST = 60  # lines of options that anyone would read


def snippet(name: str, proposals: Sequence[Proposal], source: Source | None = None) -> tuple[str, set[str]]:
    """Returns the statement that repairs the Experiment called `name`, below comments that tell how to write it by hand.

    Args:
        name: What the Experiment is called.
        proposals: The changes.
        source: The file that it goes into, whose names are used; None for `eg`.

    Returns:
        The text, and the imports that the file lacks for it.
    """
    imports: set[str] = set()

    def spelled(full: str) -> str:
        text, needed = source.spelled(full) if source else (full.replace("evengrad.", "eg.", 1), None)
        imports.update({needed} if needed else set())
        return text

    lines = []
    for proposal in proposals:
        lines += [f"# {proposal.summary}; by hand:", *(f"#   {line}" for line in proposal.code.splitlines())]
    lines += [f"{name} = {name}.repaired(", "    ["]
    for proposal in proposals:
        lines.append(f"        {spelled('evengrad.Proposal')}(")
        for part in _NEEDED:
            if value := getattr(proposal, part):
                lines += textwrap.indent(f"{part}={_literal(value, spelled)},", " " * 12).splitlines()
        lines.append("        ),")
    return "\n".join([*lines, "    ]", ")"]) + "\n", imports


def with_snippet(source: Source, name: str, proposals: Sequence[Proposal], last_line: int, encoding: str) -> Source:
    """Puts the statement behind a line of a file.

    Raises:
        NotFoundError: if the file gives the names that it needs to other things.
    """
    text, imports = snippet(name, proposals, source)
    try:
        text.encode(encoding)
    except UnicodeError:
        text = text.encode("ascii", "backslashreplace").decode()  # the same strings to Python
    end = source.line(last_line)[1]
    before = "" if source.text[:end].endswith(("\n", "\r")) else "\n"
    text = f"{before}\n{text}".replace("\n", source.newline)
    new = source.edited([Edit(start=end, end=end, text=text)], imports)
    if new.text.count(text) != 1:
        raise NotFoundError("the statement")
    return new


def _literal(value: Any, spelled: Callable[[str], str]) -> str:
    """A value as Python writes it; options that are too long to be read, packed."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    text = _laid_out(value)
    try:
        plain = ast.literal_eval(text) == value
    except (ValueError, SyntaxError):
        plain = False
    if plain and text.count("\n") < _LONGEST:
        return text
    packed = base64.b64encode(zlib.compress(json.dumps(value).encode(), 9)).decode()
    words = "\n".join(f'    "{line}"' for line in textwrap.wrap(packed, _WIDTH))
    return f"{spelled('json.loads')}({spelled('zlib.decompress')}({spelled('base64.b64decode')}(\n{words}\n)))"


def _laid_out(value: Any) -> str:
    """A value in lines that are not too long."""
    line = repr(value)
    if len(line) <= _WIDTH or not value or not isinstance(value, (dict, list)):
        return line
    parts = (
        [f"{key!r}: {_laid_out(part)}" for key, part in value.items()] if isinstance(value, dict) else [_laid_out(part) for part in value]
    )
    left, right = "{}" if isinstance(value, dict) else "[]"
    return f"{left}\n{textwrap.indent(''.join(f'{part},{chr(10)}' for part in parts), '    ')}{right}"
