"""a module or parameter, and what takes its place -> the undo: what remedies share that rebuild a model while its optimizer runs."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from evengrad.errors import InputError
from evengrad.remedies.base import Undo, undo_all
from evengrad.rig import Rig


def replace_module(model: nn.Module, old: nn.Module, fresh: nn.Module) -> Undo:
    """Puts `fresh` wherever `old` hangs in the model: one instance can hang in several places.

    Raises:
        InputError: if it hangs nowhere, as the model itself does.
    """
    undos: list[Undo] = []
    for parent in list(model.modules()):
        for key, child in list(parent._modules.items()):
            if child is old:
                parent._modules[key] = fresh
                undos.append(lambda parent=parent, key=key: parent._modules.__setitem__(key, old))  # type: ignore[misc]
    if not undos:
        raise InputError(f"{type(old).__name__} hangs in no other module, so nothing can take its place: wrap the model in nn.Sequential")
    return undo_all(undos)


def exchange(rig: Rig, pairs: Sequence[tuple[nn.Parameter, nn.Parameter | None]]) -> Undo:
    """Gives each parameter's place in the optimizer to another one, or to none; the undo brings its state back, too."""
    if rig.optimizer is None:
        return lambda: None
    optimizer, fresh = rig.optimizer, {id(old): new for old, new in pairs}
    groups = [(group["params"], list(group["params"])) for group in optimizer.param_groups]
    states: dict[Tensor, object] = {old: optimizer.state.pop(old) for old, _ in pairs if old in optimizer.state}
    for held, before in groups:
        held[:] = [p for old in before if (p := fresh.get(id(old), old)) is not None]

    def undo() -> None:
        for held, before in groups:
            held[:] = before
        for _, new in pairs:
            if new is not None:
                optimizer.state.pop(new, None)
        optimizer.state.update(states)

    return undo
