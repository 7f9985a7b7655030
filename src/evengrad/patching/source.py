"""A Python file -> its text, tree and names, and edits of the text by the place of a node."""

from __future__ import annotations

import ast
import re
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

COMMON = {"nn": "torch.nn", "F": "torch.nn.functional", "torch": "torch", "eg": "evengrad", "evengrad": "evengrad"}
"""Names that the code of proposals takes for granted."""
_IMPORTS = {  # what brings a name into a file that lacks it: the name there, the statement
    "torch.nn.functional": ("F", "import torch.nn.functional as F"),
    "torch.nn": ("nn", "from torch import nn"),
    "torch": ("torch", "import torch"),
    "evengrad": ("eg", "import evengrad as eg"),
    "base64": ("base64", "import base64"),
    "json": ("json", "import json"),
    "zlib": ("zlib", "import zlib"),
}
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign
_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
Scope = ast.FunctionDef | ast.AsyncFunctionDef | ast.Module


class NotFoundError(Exception):
    """What a proposal changes is not there literally."""


@dataclass(frozen=True, kw_only=True, order=True)
class Edit:
    """Characters `start` to `end` of a text become `text`."""

    start: int
    end: int
    text: str


@dataclass(frozen=True)
class Source:
    """The text of a Python file."""

    path: Path
    text: str

    @classmethod
    def read(cls, path: Path) -> Source:
        """Reads a file as it is, in the encoding that it declares; its newlines are kept.

        Raises:
            SyntaxError, UnicodeError, OSError: if it cannot be read, or is no Python.
        """
        return cls(path, path.read_bytes().decode(encoding_of(path)))

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def newline(self) -> str:
        """The newline that the file uses."""
        found = re.search(r"\r\n|\r|\n", self.text)
        return found[0] if found else "\n"

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *(found.end() for found in re.finditer(r"\r\n|\r|\n", self.text))]

    @cached_property
    def parents(self) -> dict[ast.AST, ast.AST]:
        """The node above each node."""
        return {child: node for node in ast.walk(self.tree) for child in ast.iter_child_nodes(node)}

    @cached_property
    def imports(self) -> dict[str, str]:
        """Names that imports bind -> what they stand for, in full."""
        found: dict[str, str] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found |= {a.asname or a.name.partition(".")[0]: a.name if a.asname else a.name.partition(".")[0] for a in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
        return found

    def span(self, node: ast.AST) -> tuple[int, int]:
        """Where a node begins and ends in the text."""
        assert isinstance(node, (ast.expr, ast.stmt, ast.keyword, ast.arg))
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._offset(node.lineno, node.col_offset), self._offset(node.end_lineno, node.end_col_offset)

    def segment(self, node: ast.AST) -> str:
        """A node as it is written."""
        start, end = self.span(node)
        return self.text[start:end]

    def line(self, number: int) -> tuple[int, int]:
        """Where a line (from 1) begins, and where the next one does."""
        return self._starts[number - 1], self._starts[number] if number < len(self._starts) else len(self.text)

    def full_name(self, node: ast.AST) -> str | None:
        """A name or attribute in full, as imports tell: `nn.Tanh` -> `torch.nn.Tanh`; None for anything else."""
        if isinstance(node, ast.Name):
            return self.imports.get(node.id)
        base = self.full_name(node.value) if isinstance(node, ast.Attribute) else None
        return f"{base}.{node.attr}" if base and isinstance(node, ast.Attribute) else None

    def definition(self, name: ast.Name) -> Definition | None:
        """What a name stands for: the last definition in the nearest scope that has one; None for an argument of a function."""
        node: ast.AST | None = name
        while node is not None:
            node = self.parents.get(node)
            if isinstance(node, _Function) and any(a.arg == name.id for a in _arguments(node)):
                return None
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Module)) and (found := definitions(node).get(name.id)):
                return found
        return None

    def default(self, name: ast.Name) -> ast.expr | None:
        """The default of the argument that a name stands for, if it is one and has one."""
        node: ast.AST | None = name
        while node is not None and not (isinstance(node, _Function) and any(a.arg == name.id for a in _arguments(node))):
            node = self.parents.get(node)
        if node is None:
            return None
        plain = [*node.args.posonlyargs, *node.args.args]
        given = [*zip(reversed(plain), reversed(node.args.defaults), strict=False)]
        given += [(a, d) for a, d in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True) if d is not None]
        return next((d for a, d in given if a.arg == name.id), None)

    def spelled(self, full: str) -> tuple[str, str | None]:
        """Writes a full name as this file would, and tells the import that it needs for that, if any.

        Raises:
            NotFoundError: if the usual name of its package means something else here.
        """
        known = {
            a.asname or a.name.partition(".")[0] for s in self.tree.body if isinstance(s, (ast.Import, ast.ImportFrom)) for a in s.names
        }
        held = [(self.imports[name], name) for name in known if name in self.imports]
        for target, name in sorted(held, key=lambda pair: -len(pair[0])):
            if full == target or full.startswith(f"{target}."):
                return name + full[len(target) :], None
        for package, (name, statement) in _IMPORTS.items():
            if full == package or full.startswith(f"{package}."):
                taken = any(isinstance(n, ast.Name) and n.id == name for n in ast.walk(self.tree)) or name in definitions(self.tree)
                if taken:
                    raise NotFoundError(f"{name} is another thing in {self.path.name}")
                return name + full[len(package) :], statement
        raise NotFoundError(full)

    def edited(self, edits: Iterable[Edit], imports: Iterable[str] = ()) -> Source:
        """Returns the source with these edits, none of which overlap, and these imports behind those that it has.

        Raises:
            NotFoundError: if they overlap, or the result is no Python.
        """
        needed = "".join(f"{statement}{self.newline}" for statement in sorted(set(imports)))
        place = self._import_place()
        text, reached = [], 0
        first = [Edit(start=place, end=place, text=needed)] if needed else []
        for edit in sorted([*first, *edits], key=lambda e: (e.start, e.end)):  # two at one place stay in their order
            if edit.start < reached:
                raise NotFoundError("edits overlap")
            text += [self.text[reached : edit.start], edit.text]
            reached = edit.end
        new = Source(self.path, "".join(text) + self.text[reached:])
        try:
            _ = new.tree
        except SyntaxError as error:
            raise NotFoundError(str(error)) from error
        return new

    def _import_place(self) -> int:
        body = self.tree.body
        last = [s for s in body if isinstance(s, (ast.Import, ast.ImportFrom))][-1:]
        docstring = [
            s for s in body[:1] if isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant) and isinstance(s.value.value, str)
        ]
        behind = last or docstring
        return self.line(behind[0].end_lineno or 1)[1] if behind else self.line(body[0].lineno)[0] if body else 0

    def _offset(self, line: int, column: int) -> int:
        start, end = self.line(line)
        return start + len(self.text[start:end].encode()[:column].decode())


def encoding_of(path: Path) -> str:
    """The encoding that a file declares."""
    with path.open("rb") as file:
        return tokenize.detect_encoding(file.readline)[0]


def definitions(scope: Scope) -> dict[str, Definition]:
    """The functions, classes and single assignments of a scope by name, the last one of each; nested scopes are left out."""
    found: dict[str, Definition] = {}
    for node in statements(scope.body):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found[node.name] = node
        elif isinstance(node, ast.Assign):
            found |= {t.id: node for t in node.targets if isinstance(t, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            found[node.target.id] = node
    return found


def statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements in the order of the text, blocks included, functions and classes as one."""
    for node in body:
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            blocks = [getattr(node, part, []) for part in ("body", "orelse", "finalbody")]
            handlers = [h.body for h in getattr(node, "handlers", [])]
            for block in (*blocks[:1], *handlers, *blocks[1:]):
                yield from statements(block)


def _arguments(function: _Function) -> list[ast.arg]:
    found = function.args
    return [*found.posonlyargs, *found.args, *found.kwonlyargs, *(a for a in (found.vararg, found.kwarg) if a)]
