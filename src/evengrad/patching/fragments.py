"""The code of a proposal -> the changes that it is made of."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from itertools import zip_longest

from evengrad.patching.source import NotFoundError

_INITIALISER = re.compile(r"eg\.\w+_\(model\b")

_FIRST_BATCH = ("+", "inputs, targets = next(iter(batches))")  # the inputs of an initialiser that needs some


@dataclass(frozen=True)
class Replacement:
    """One expression becomes another; without a new one it goes."""

    old: ast.Call
    new: str | None


@dataclass(frozen=True)
class Arguments:
    """An argument with this name and value, and what stands in its place: new values by name."""

    name: str
    old: ast.expr
    new: dict[str, str]


@dataclass(frozen=True)
class Part:
    """An argument of the Experiment becomes something else, which may use `old_loss_fn`."""

    name: str
    new: str


@dataclass(frozen=True)
class Wrapping:
    """What the model's function returns goes through this call, whose first argument is `model`."""

    call: str


@dataclass(frozen=True)
class Insertion:
    """Lines of a step of training: pairs of a sign (`+` or a space) and a statement, in order."""

    lines: tuple[tuple[str, str], ...]


Change = Replacement | Arguments | Part | Wrapping | Insertion


def changes_of(code: str) -> list[Change]:
    """Reads the code of a proposal.

    Raises:
        NotFoundError: if some of its lines have no meaning for an Experiment's file.
    """
    lines = [(line[:1], line[1:]) for line in code.splitlines()]
    lines = [(sign, text) for sign, text in lines if text.strip() and not text.lstrip().startswith("#")]
    lines = [line for line in lines if line != _FIRST_BATCH]
    rate = [text for sign, text in lines if sign == "+" and text.startswith("scheduler = ")]
    if rate:
        if any(sign == "-" for sign, _ in lines) or sum(text != "scheduler.step()" for sign, text in lines if sign == "+") != 1:
            raise NotFoundError("a schedule of several parts")
        return [Part("scheduler", f"lambda optimizer: {rate[0].partition(' = ')[2]}")]
    if lines == [("-", "scheduler.step()")]:
        return [Part("scheduler", "None")]
    if any(sign == " " for sign, _ in lines):
        if any(sign == "-" for sign, _ in lines):
            raise NotFoundError("lines to remove between others")
        blocks = tuple(_blocks(lines))
        if not all(_is_statement(text) for _, text in blocks):
            raise NotFoundError("lines of another loop")
        return [Insertion(blocks)]
    if len(lines) == 2 and lines[0][1].startswith("old_loss_fn = ") and lines[1][1].startswith("loss_fn = "):
        return [Part("loss_fn", lines[1][1].partition(" = ")[2])]
    return [change for old, new in _runs(lines) for change in _paired(old, new)]


def _runs(lines: list[tuple[str, str]]) -> list[tuple[list[str], list[str]]]:
    """Lines that go, with the lines that come behind them."""
    runs: list[tuple[list[str], list[str]]] = []
    before = ""
    for sign, text in lines:
        if not runs or (sign == "-" and before == "+"):
            runs.append(([], []))
        runs[-1][sign == "+"].append(text)
        before = sign
    return runs


def _paired(old: list[str], new: list[str]) -> list[Change]:
    return [_change(a, b) for a, b in zip_longest(old, new)]


def _change(old: str | None, new: str | None) -> Change:
    if old is None:
        call = _expression(new or "")
        if new is not None and _INITIALISER.match(new) and isinstance(call, ast.Call):
            return Wrapping(ast.get_source_segment(new, call) or new)
        raise NotFoundError(f"no place for {new}")
    if old.startswith("loss_fn = ") and new is not None and new.startswith("loss_fn = "):
        return Part("loss_fn", new.partition(" = ")[2])
    before, after = _keywords(old), _keywords(new or "")
    if before and after:
        ((name, value),) = before.items()
        return Arguments(name, value, {key: ast.unparse(x) for key, x in after.items()})
    call = _expression(old)
    fresh = None if new is None else _expression(new)
    if not isinstance(call, ast.Call) or (new is not None and fresh is None):
        raise NotFoundError(f"{old} is no call")
    return Replacement(call, None if fresh is None else ast.unparse(fresh))


def _expression(text: str) -> ast.expr | None:
    try:
        return ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        return None


def _is_statement(text: str) -> bool:
    try:
        return len(ast.parse(text).body) == 1
    except SyntaxError:
        return False


def _keywords(text: str) -> dict[str, ast.expr]:
    """`lr=0.1, momentum=0.9` -> its parts; empty for anything else, of which an old value must have one."""
    call = _expression(f"f({text.partition('#')[0]})") if re.match(r"\w+=[^=]", text) else None
    return {k.arg: k.value for k in call.keywords if k.arg} if isinstance(call, ast.Call) and not call.args else {}


def _blocks(lines: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Joins lines that are indented below a line that comes to it; heads of functions are left out."""
    found: list[tuple[str, str]] = []
    depth = 0
    for sign, text in lines:
        if sign == " " and text.startswith("def "):
            depth = 4
            continue
        text = text[depth:] if text[:depth].isspace() else text  # noqa: PLW2901
        if sign == "+" and found and found[-1][0] == "+" and text[:1].isspace():
            found[-1] = (sign, f"{found[-1][1]}\n{text}")
        else:
            found.append((sign, text))
    return found
