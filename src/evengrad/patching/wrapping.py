"""A call that changes a model in place -> the same call around what the model's function returns."""

from __future__ import annotations

import ast

import torch

from evengrad.patching.draft import Draft
from evengrad.patching.fragments import Wrapping
from evengrad.patching.program import Program
from evengrad.patching.source import NotFoundError, Source, statements
from evengrad.remedies.schemes import initialize_
from evengrad.training import Experiment, build


def wrapped(draft: Draft, program: Program, change: Wrapping, experiment: Experiment) -> None:
    """Lets the function that makes the model call this, too: around a lambda's body, the value of a `return`, or the function itself."""
    found = program.argument("model")
    if found is None or not isinstance(found[1], ast.expr):
        raise NotFoundError("model")
    where, node = _made(program, found[0], found[1])
    called = "()" if node is found[1] else ""
    names = {"model": where.segment(node) + called}
    call = change.call
    if "inputs" in call or not _guesses(experiment):
        names["inputs"] = _batch(program, where, experiment)
        call = call if "inputs" in call else f"{call[:-1]}, inputs=inputs)"
    text = draft.written(where, call, names)
    draft.put(where, node, f"lambda: {text}" if called else text)


def _made(program: Program, source: Source, factory: ast.expr) -> tuple[Source, ast.expr]:
    """The expression whose value is the model; the function itself where there is no single one."""
    if isinstance(factory, ast.Lambda):
        return source, factory.body
    if isinstance(factory, ast.Name) and (defined := program.defined(source, factory)):
        where, definition = defined
        returns = [s for s in statements(definition.body) if isinstance(s, ast.Return)] if isinstance(definition, ast.FunctionDef) else []
        if len(returns) == 1 and returns[0].value is not None:
            return where, returns[0].value
    return source, factory


def _batch(program: Program, where: Source, experiment: Experiment) -> str:
    """A batch of the data, where they are tensors with a name in the same file."""
    data, tensors = program.argument("data"), experiment.data
    first = data[1].elts[0] if data is not None and isinstance(data[1], ast.Tuple) else None
    held = tensors[0] if isinstance(tensors, tuple) else None
    if data is None or where is not data[0] or not isinstance(first, ast.Name) or not isinstance(held, torch.Tensor):
        raise NotFoundError("inputs")
    kind = ".float()" if held.dtype == torch.float64 else ""  # as an Experiment takes them
    return f"{first.id}[:{experiment.batch_size}]{kind}"


def _guesses(experiment: Experiment) -> bool:
    """True if `eg.initialize_` finds inputs for the model by itself."""
    model = build(experiment).model
    try:
        initialize_(model, seed=0)
    except Exception:
        return False
    return True
