"""`my_study.py` -> the study that a person wrote in it."""

from __future__ import annotations

import ast
import hashlib
import inspect
from pathlib import Path

from evengrad.errors import InputError
from evengrad.lab.study import Source, Study
from evengrad.loading import load_module

_SAID = {"answer", "figures", "quick", "arms", "groups", "memory", "question", "published", "shown", "number"}


def load(file: str) -> type[Study]:
    """Runs a user's file and returns the one study in it.

    Raises:
        InputError: if there is no such file, or not exactly one complete study in it.
        ForwardError: if the file itself raises; the user's traceback is the cause.
    """
    module = load_module(file, "the name of a study (evengrad study list) or a file, such as my_study.py")
    classes = [c for c in vars(module).values() if inspect.isclass(c) and issubclass(c, Study) and c.__module__ == module.__name__]
    found = [c for c in classes if not inspect.isabstract(c) and not c.__name__.startswith("_")]
    if len(found) != 1:
        lacking = "".join(f"; {c.__name__} lacks {', '.join(sorted(c.__abstractmethods__))}" for c in classes if inspect.isabstract(c))
        names = f" ({', '.join(c.__name__ for c in found)})" if found else lacking
        raise InputError(f"{file} holds {len(found) or 'no'} complete studies{names}; expected one class that extends evengrad.Study")
    (kind,) = found
    if missing := [name for name in ("name", "question", "shown") if not hasattr(kind, name)]:
        raise InputError(f"{file}: {kind.__name__} has no {missing[0]!r}: give it one, such as {missing[0]} = ...")
    if "__dataclass_fields__" not in vars(kind):
        raise InputError(f"{file}: {kind.__name__} is no dataclass; write @dataclass(frozen=True, kw_only=True) above it")
    kind.source = Source(str(Path(file).resolve()), code(Path(file).read_text(encoding="utf-8"), kind.__name__))
    return kind


def code(text: str, study: str) -> str:
    """Returns a hash of what a file computes: comments, docstrings, words, pictures and default sizes of the class `study` do not count."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node, clean=False):
            node.body = node.body[1:]
        if isinstance(node, ast.ClassDef) and node.name == study:
            node.body = [statement for statement in node.body if not _is_said(statement)]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _is_said(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.FunctionDef):
        return statement.name in _SAID
    if isinstance(statement, ast.AnnAssign):
        return "ClassVar" not in ast.dump(statement.annotation) or _names(statement.target) <= _SAID
    return isinstance(statement, ast.Assign) and set().union(*map(_names, statement.targets)) <= _SAID


def _names(target: ast.expr) -> set[str]:
    return {n.id for n in ast.walk(target) if isinstance(n, ast.Name)}
