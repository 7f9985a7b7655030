"""Lines of a step of training -> the same lines in the user's `train_step`."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from evengrad.patching.draft import Draft
from evengrad.patching.fragments import Insertion
from evengrad.patching.program import Program
from evengrad.patching.source import Edit, NotFoundError, Source, statements

_ARGUMENTS = ("model", "batch", "loss_fn", "optimizer")
_Names = dict[str, ast.expr]


def inserted(draft: Draft, program: Program, change: Insertion) -> None:
    """Puts the new lines behind those that they stand behind, or in front of those that they stand in front of.

    Raises:
        NotFoundError: if the experiment has no train_step, or it has no such lines.
    """
    source, step = _step(program)
    body = [s for s in statements(step.body) if s is not step.body[0] or not _is_text(s)]
    names: _Names = {name: ast.Name(arg.arg) for name, arg in zip(_ARGUMENTS, step.args.args, strict=False)}
    places = _places(source, change.lines, body, names)
    written = {name: ast.unparse(value) for name, value in names.items()}
    for index, (sign, text) in enumerate(change.lines):
        if sign == " ":
            continue
        before = next((places[i] for i in range(index - 1, -1, -1) if change.lines[i][0] == " "), None)
        after = next((places[i] for i in range(index + 1, len(change.lines)) if change.lines[i][0] == " "), None)
        if before is None and after is None:
            raise NotFoundError(text)
        reached = body.index(before) + 1 if before is not None else body.index(after or body[0])
        if any(_alike(ast.parse(text).body[0], s, dict(names)) for s in body[:reached]):
            continue  # it is there
        _insert(draft, source, before, after, draft.written(source, text, written))


def _step(program: Program) -> tuple[Source, ast.FunctionDef]:
    found = program.argument("train_step")
    if found is None or not isinstance(found[1], ast.Name):
        raise NotFoundError("train_step")
    defined = program.defined(found[0], found[1])
    if defined is None or not isinstance(defined[1], ast.FunctionDef):
        raise NotFoundError("train_step")
    return defined[0], defined[1]


def _places(source: Source, lines: Sequence[tuple[str, str]], body: list[ast.stmt], names: _Names) -> dict[int, ast.stmt | None]:
    """The user's statement for each line that stays, in order, and in `names` what its names are there; None for one that is not there."""
    places: dict[int, ast.stmt | None] = {}
    start = 0
    for index, (sign, text) in enumerate(lines):
        if sign != " ":
            continue
        places[index] = None
        for i in range(start, len(body)):
            known = dict(names)
            if _alike(ast.parse(text.strip()).body[0], body[i], known):
                names.update(known)
                places[index], start = body[i], i + 1
                break
    return places


def _alike(wanted: ast.AST, node: ast.AST, names: _Names) -> bool:
    """True if a node is the one wanted but for its names, which may stand for anything, the same one everywhere."""
    if isinstance(wanted, ast.Name):
        if not isinstance(node, ast.expr) or (isinstance(wanted.ctx, ast.Store) and not isinstance(node, ast.Name)):
            return False
        held = names.setdefault(wanted.id, node)
        return ast.unparse(held) == ast.unparse(node)
    if type(wanted) is not type(node):
        return False
    for name, part in ast.iter_fields(wanted):
        other = getattr(node, name)
        if name in {"ctx", "type_comment"}:
            continue
        if isinstance(part, list):
            if len(part) != len(other) or not all(_alike(a, b, names) for a, b in zip(part, other, strict=True)):
                return False
        elif isinstance(part, ast.AST):
            if not isinstance(other, ast.AST) or not _alike(part, other, names):
                return False
        elif part != other:
            return False
    return True


def _insert(draft: Draft, source: Source, before: ast.stmt | None, after: ast.stmt | None, text: str) -> None:
    anchor = before or after
    assert anchor is not None
    start, end = source.line(anchor.lineno)[0], source.line(anchor.end_lineno or anchor.lineno)[1]
    indent = source.text[start : source.span(anchor)[0]]
    if not indent.isspace() or source.text[source.span(anchor)[1] : end].strip()[:1] not in {"", "#"}:
        raise NotFoundError("another statement in the same line")
    lines = "".join(f"{indent}{line}{source.newline}" for line in text.splitlines())
    place = end if before is not None else start
    if place == len(source.text) and not source.text.endswith(("\n", "\r")):
        lines = source.newline + lines
    draft.add(source, Edit(start=place, end=place, text=lines))


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
