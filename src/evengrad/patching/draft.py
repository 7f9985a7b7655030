"""Edits of the user's files in the making."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from pathlib import Path

from evengrad.patching.source import Edit, Source, translated


@dataclass
class Draft:
    """Edits of files, and the imports that they need."""

    edits: dict[Path, list[Edit]] = field(default_factory=dict)
    imports: dict[Path, set[str]] = field(default_factory=dict)

    def add(self, source: Source, *edits: Edit) -> None:
        """Notes edits; the same text replaced twice is replaced once."""
        held = self.edits.setdefault(source.path, [])
        held += [e for e in edits if e.start == e.end or e not in held]

    def put(self, source: Source, node: ast.AST, text: str) -> None:
        """Notes that a node becomes another text."""
        start, end = source.span(node)
        self.add(source, Edit(start=start, end=end, text=text))

    def written(self, source: Source, code: str, names: dict[str, str]) -> str:
        """Returns code of a proposal as this file writes it."""
        text, imports = translated(code, source, names)
        self.imports.setdefault(source.path, set()).update(imports)
        return text
