"""An argument of a proposal and where a program gives it -> its new value there."""

from __future__ import annotations

import ast

import torch

from evengrad.patching.calls import appended, arguments, constant, equal, parameters, place_of, same_value, thing
from evengrad.patching.draft import Draft
from evengrad.patching.fragments import Arguments, Part
from evengrad.patching.program import Program
from evengrad.patching.source import NotFoundError, Source
from evengrad.training import Experiment

_FIELDS = {"epochs": Experiment.epochs, "batch_size": Experiment.batch_size}


def values_set(draft: Draft, program: Program, change: Arguments) -> None:
    """Gives arguments of the Experiment, or of the calls that make its optimizer, other values."""
    if change.name in _FIELDS:
        found = program.argument(change.name)
        if found is None and same_value(constant(change.old), _FIELDS[change.name]):
            source, call = program.call()
            assert isinstance(call, ast.Call)
            draft.add(source, appended(source, call, f"{change.name}={change.new[change.name]}"))
            return
        if found is None or not isinstance(found[1], ast.expr) or not equal(change.old, program, found[0], found[1]):
            raise NotFoundError(change.name)
        draft.put(*place_of(program, found[0], found[1]), change.new[change.name])
        return
    calls = [(s, n) for s, n in program.part("optimizer") if isinstance(n, ast.Call) and _sets(program, s, n, change)]
    if not calls:
        raise NotFoundError(change.name)
    for source, call in calls:
        before = arguments(call, thing(source.full_name(call.func))) or {str(k.arg): k.value for k in call.keywords}
        for key, text in change.new.items():
            if key in before:
                draft.put(*place_of(program, source, before[key]), text)
            else:
                draft.add(source, appended(source, call, f"{key}={text}"))


def _sets(program: Program, source: Source, call: ast.Call, change: Arguments) -> bool:
    """True if a call gives an argument this value, by name, by place, or by the default of an optimizer."""
    callee = thing(source.full_name(call.func))
    given = arguments(call, callee) or {str(k.arg): k.value for k in call.keywords}
    if change.name in given:
        return equal(change.old, program, source, given[change.name])
    if not (isinstance(callee, type) and issubclass(callee, torch.optim.Optimizer)) or change.name not in parameters(callee):
        return False
    return same_value(constant(change.old), parameters(callee)[change.name].default)


def part_set(draft: Draft, program: Program, change: Part) -> None:
    """Puts another loss or schedule into the Experiment."""
    found = program.argument(change.name)
    if found is None or not isinstance(found[1], ast.expr):
        if change.name != "scheduler" or change.new == "None":
            raise NotFoundError(change.name)
        source, call = program.call()
        assert isinstance(call, ast.Call)
        draft.add(source, appended(source, call, f"scheduler={draft.written(source, change.new, {})}"))
        return
    if change.name == "scheduler" and change.new != "None":
        raise NotFoundError("there is a schedule already")
    source, node = found[0], found[1]
    old = source.segment(node)
    names = {"old_loss_fn": old if isinstance(node, (ast.Name, ast.Attribute, ast.Call)) else f"({old})"}
    where, written = place_of(program, source, node)
    if "old_loss_fn" in change.new:
        where, written = source, node
    draft.put(where, written, draft.written(where, change.new, names))
