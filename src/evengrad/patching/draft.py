"""Edits of the user's files in the making, and code of proposals as those files would write it."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from evengrad.patching.source import COMMON, Edit, NotFoundError, Source


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


def translated(code: str, source: Source, names: Mapping[str, str]) -> tuple[str, set[str]]:
    """Writes code of a proposal as a file would, and tells the imports that it needs.

    Args:
        code: An expression or statements.
        source: The file.
        names: What the names in the code are in the file, as text.

    Raises:
        NotFoundError: if the code uses a name that the file does not have.
    """
    piece = Source(source.path, code)
    bound = {n.id for n in ast.walk(piece.tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    bound |= {n.arg for n in ast.walk(piece.tree) if isinstance(n, ast.arg)}
    edits, imports = [], set()
    for node in ast.walk(piece.tree):
        if not isinstance(node, ast.Name):
            continue
        start, end = piece.span(node)
        if node.id in names:
            edits.append(Edit(start=start, end=end, text=names[node.id]))
        elif node.id in COMMON and node.id not in bound:
            chain: ast.AST = node
            full = COMMON[node.id]
            while isinstance(above := piece.parents[chain], ast.Attribute):
                chain, full = above, f"{full}.{above.attr}"
            text, statement = source.spelled(full)
            edits.append(Edit(start=start, end=piece.span(chain)[1], text=text))
            imports |= {statement} if statement else set()
        elif node.id not in bound and not hasattr(builtins, node.id):
            raise NotFoundError(f"nothing is called {node.id} there")
    return piece.edited(edits).text, imports
