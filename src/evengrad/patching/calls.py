"""A call in a proposal and one in a file -> whether they are the same, and the file's call changed."""

from __future__ import annotations

import ast
import inspect
import math
from typing import Any

import torch

from evengrad.patching.program import Program
from evengrad.patching.source import COMMON, Edit, Source

_MISSING = object()


def thing(full: str | None) -> Any:
    """What a full name stands for, if it is torch's; else None."""
    parts = (full or "").split(".")
    found: Any = torch if parts[0] == "torch" else None
    for part in parts[1:]:
        found = getattr(found, part, None)
    return found


def shown(node: ast.expr) -> Any:
    """What a name in the code of a proposal stands for, if it is torch's: `nn.Tanh`."""
    root, _, rest = ast.unparse(node).partition(".")
    return thing(f"{COMMON.get(root)}.{rest}") if rest else None


def arguments(call: ast.Call, callee: Any) -> dict[str, ast.expr] | None:
    """The arguments of a call by name; None where stars hide some, or the callee's names are not known."""
    if any(isinstance(a, ast.Starred) for a in call.args) or any(k.arg is None for k in call.keywords):
        return None
    names = list(parameters(callee))
    if len(call.args) > len(names):
        return None
    return dict(zip(names, call.args, strict=False)) | {str(k.arg): k.value for k in call.keywords}


def parameters(callee: Any) -> dict[str, inspect.Parameter]:
    """The named parameters of a callee; none where it does not tell."""
    try:
        found = inspect.signature(callee).parameters
    except (TypeError, ValueError):
        return {}
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {name: p for name, p in found.items() if p.kind in kinds}


def matched(old: ast.Call, program: Program, source: Source, call: ast.Call) -> dict[str, str] | None:
    """Tells what the names in a proposal's call are in this call of the file; None if it is another one.

    Arguments that the proposal does not show may be anything.
    """
    callee = shown(old.func)
    if callee is None or thing(source.full_name(call.func)) is not callee:
        return None
    wanted, given = arguments(old, callee), arguments(call, callee)
    if wanted is None or given is None:
        return None
    names: dict[str, str] = {}
    for key, value in wanted.items():
        if key not in given:
            default = parameters(callee)[key].default if key in parameters(callee) else _MISSING
            if not same_value(constant(value), default):
                return None
        elif isinstance(value, ast.Name):
            names[value.id] = source.segment(given[key])
        elif isinstance(value, ast.Call) and ast.unparse(value) == "model.parameters()":
            inner = given[key]
            if not (isinstance(inner, ast.Call) and isinstance(inner.func, ast.Attribute) and inner.func.attr == "parameters"):
                return None
            names["model"] = source.segment(inner.func.value)
        elif not equal(value, program, source, given[key]):
            return None
    return names


def equal(value: ast.expr, program: Program, source: Source, given: ast.expr) -> bool:
    """True if an expression of the file is that of a proposal, or a number of the same value."""
    _, node = origin(program, source, given)
    known = constant(value)
    return same_value(known, constant(node)) if known is not _MISSING else ast.dump(value) == ast.dump(given)


def constant(node: ast.AST) -> Any:
    """The value of a literal."""
    try:
        return ast.literal_eval(node) if isinstance(node, ast.expr) else _MISSING
    except (ValueError, TypeError, SyntaxError, MemoryError):
        return _MISSING


def same_value(a: Any, b: Any) -> bool:
    """True if two literals are equal; numbers are shown to six digits."""
    if a is _MISSING or b is _MISSING:
        return False
    numbers = all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in (a, b))
    return math.isclose(a, b, rel_tol=1e-5) if numbers else type(a) is type(b) and bool(a == b)


def origin(program: Program, source: Source, node: ast.expr) -> tuple[Source, ast.expr]:
    """Where a value is written: where a constant is defined or an argument has its default, if the node is its name, else at the node."""
    if isinstance(node, ast.Name) and (default := source.default(node)):
        return source, default
    if isinstance(node, ast.Name) and (found := program.defined(source, node)):
        where, definition = found
        if isinstance(definition, (ast.Assign, ast.AnnAssign)) and definition.value is not None:
            return where, definition.value
    return source, node


def place_of(program: Program, source: Source, node: ast.expr) -> tuple[Source, ast.expr]:
    """Where to write another value: at a default, or at a constant's definition if only this node uses it, else at the node."""
    where, written = origin(program, source, node)
    if written is node or not isinstance(node, ast.Name) or written is source.default(node):
        return where, written
    uses = [n for n in ast.walk(where.tree) if isinstance(n, ast.Name) and n.id == node.id and isinstance(n.ctx, ast.Load)]
    return (where, written) if where is source and len(uses) == 1 else (source, node)


def appended(source: Source, call: ast.Call, text: str) -> Edit:
    """Adds an argument behind the last one of a call."""
    ends = [source.span(a)[1] for a in (*call.args, *call.keywords)]
    if ends:
        return Edit(start=max(ends), end=max(ends), text=f", {text}")
    end = source.span(call)[1] - 1
    return Edit(start=end, end=end, text=text)
