"""An expression of a proposal and its like in a program -> the other one in its place."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from torch import nn

from evengrad.patching.calls import appended, arguments, matched, parameters, shown, thing
from evengrad.patching.draft import Draft
from evengrad.patching.fragments import Replacement
from evengrad.patching.program import Program
from evengrad.patching.source import Edit, NotFoundError, Source

_PARTS = ("model", "optimizer", "loss_fn", "train_step", "scheduler")


def replaced(draft: Draft, program: Program, change: Replacement, choice: slice) -> None:
    """Puts another expression in the place of those that are the one shown: calls, classes by name, activations as functions."""
    places = program.part(*_PARTS)
    callee = shown(change.old.func)
    if callee is None:
        raise NotFoundError(ast.unparse(change.old))
    found = [(s, n, edits) for s, n in places if (edits := list(_alike(draft, program, change, s, n)))]
    found.sort(key=lambda f: (f[0].path != program.main, f[0].span(f[1])))
    if not found[choice] or (choice != slice(None) and len(found) < 2):
        raise NotFoundError(ast.unparse(change.old))
    for source, _, edits in found[choice]:
        draft.add(source, *edits)


def _alike(draft: Draft, program: Program, change: Replacement, source: Source, node: ast.AST) -> Iterator[Edit]:
    """Edits of a node that is what the change replaces: a call, a class that is called elsewhere, or the function of an activation."""
    if isinstance(node, ast.Call):
        wanted = change.old if change.new is not None else ast.Call(func=change.old.func, args=[], keywords=[])  # any such call goes
        names = matched(wanted, program, source, node)
        if names is not None:
            start, end = source.span(node)
            yield Edit(start=start, end=end, text=_renewed(draft, source, node, change, names=names))
        else:
            yield from _function(draft, source, node, change)
    elif isinstance(node, (ast.Name, ast.Attribute)) and not change.old.args and not change.old.keywords and change.new is not None:
        above = source.parents.get(node)
        called = isinstance(above, ast.Call) and above.func is node
        if not called and not isinstance(above, (ast.Attribute, ast.ClassDef)) and thing(source.full_name(node)) is shown(change.old.func):
            start, end = source.span(node)
            text = draft.written(source, change.new.removesuffix("()"), {})
            yield Edit(start=start, end=end, text=text if change.new.endswith("()") else f"lambda: {text}")


def _renewed(draft: Draft, source: Source, node: ast.Call, change: Replacement, *, names: dict[str, str]) -> str:
    """The new call with the arguments that the user's has beside those shown, as far as the new callee knows them."""
    if change.new is None:
        return draft.written(source, "nn.Identity()", {})
    fresh, old = ast.parse(change.new, mode="eval").body, shown(change.old.func)
    callee = shown(fresh.func) if isinstance(fresh, ast.Call) else None
    wanted = arguments(fresh, callee) if isinstance(fresh, ast.Call) else None
    if wanted is None:
        raise NotFoundError(change.new)
    given, before = arguments(node, old) or {}, arguments(change.old, old) or {}
    if callee is not old:
        text = draft.written(source, change.new, names)
        extras = [f"{k}={source.segment(v)}" for k, v in given.items() if k not in {*wanted, *before} and k in parameters(callee)]
        return f"{text[:-1]}{', ' if wanted and extras else ''}{', '.join(extras)})"
    edits = []
    for key, value in wanted.items():
        if key in before and ast.dump(before[key]) == ast.dump(value):
            continue
        text = draft.written(source, ast.unparse(value), names)
        start, end = source.span(given[key]) if key in given else (0, 0)
        edits.append(Edit(start=start, end=end, text=text) if key in given else appended(source, node, f"{key}={text}"))
    return _with_edits(source, node, edits)


def _with_edits(source: Source, node: ast.AST, edits: list[Edit]) -> str:
    """A node as it is written, edited."""
    start, end = source.span(node)
    text = source.text[start:end]
    for edit in sorted(edits, reverse=True):
        text = text[: edit.start - start] + edit.text + text[edit.end - start :]
    return text


def _function(draft: Draft, source: Source, node: ast.Call, change: Replacement) -> Iterator[Edit]:
    """Edits of `F.relu(x)`, `torch.relu(x)` and `x.relu()`, where the change is about the class."""
    name, fresh = _as_function(change.old), None if change.new is None else _as_function(change.new)
    value = None if name is None or (change.new is not None and fresh is None) else _activated(source, node, name)
    if value is None:
        return
    (start, end), (first, last) = source.span(node), source.span(value)
    given = (change.new or "").partition("(")[2]
    yield Edit(start=start, end=first, text="" if fresh is None else draft.written(source, f"F.{fresh}", {}) + "(")
    yield Edit(start=last, end=end, text="" if fresh is None else ")" if given == ")" else f", {given}")


def _activated(source: Source, node: ast.Call, name: str) -> ast.expr | None:
    """What a call applies the activation of this name to; None if it does not."""
    full, method = source.full_name(node.func), node.func
    if full in {f"torch.{name}", f"torch.nn.functional.{name}"} and node.args:
        return node.args[0]
    if full is None and isinstance(method, ast.Attribute) and method.attr == name and (not node.args or name.endswith("softmax")):
        return None if isinstance(method.value, ast.Name) and method.value.id == "self" else method.value
    return None


def _as_function(call: ast.Call | str) -> str | None:
    """`nn.LeakyReLU(0.2)` -> `leaky_relu`, if torch.nn.functional has it."""
    node = ast.parse(call, mode="eval").body if isinstance(call, str) else call
    found = shown(node.func) if isinstance(node, ast.Call) else None
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        return None
    name = {"LeakyReLU": "leaky_relu", "LogSoftmax": "log_softmax"}.get(found.__name__, found.__name__.lower())
    return name if hasattr(nn.functional, name) else None
