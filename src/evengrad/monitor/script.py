"""A training script that knows nothing of evengrad -> the script, run and watched."""

from __future__ import annotations

import gc
import runpy
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from evengrad.monitor.monitor import Monitor, watch


class Script:
    """Watches every training of the code that runs inside `with script.watching():`.

    An optimizer's model is found at its first step: the outermost module that owns its parameters. The loss is what `backward` is called
    on.

    Args:
        options: What `watch` is told of every training found.

    Attributes:
        monitors: One for each optimizer that stepped.
    """

    def __init__(self, **options: Any) -> None:
        self.monitors: list[Monitor] = []
        self._options = options
        self._seen: weakref.WeakSet[torch.optim.Optimizer] = weakref.WeakSet()
        self._scaler: Any = None
        self._losses: list[Tensor] = []  # of backward passes before the first step
        self._unscaled: dict[int, Tensor] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Looks for trainings inside the block, and detaches every monitor after it."""
        with ExitStack() as stack:
            handle = register_optimizer_step_pre_hook(lambda optimizer, args, kwargs: self._first_step(optimizer))
            stack.callback(handle.remove)
            stack.callback(self._detach)
            stack.enter_context(_wrapped(torch.autograd, "backward", self._backward))
            stack.enter_context(_wrapped(torch.amp.GradScaler, "scale", self._scale, after=True))
            yield

    def _detach(self) -> None:
        for monitor in self.monitors:
            monitor.detach()

    def _first_step(self, optimizer: torch.optim.Optimizer) -> None:
        if optimizer in self._seen:
            return
        self._seen.add(optimizer)
        model = owner(optimizer)
        if model is None:
            return
        monitor = watch(model, optimizer, scaler=self._scaler, **self._options)
        self.monitors.append(monitor)
        for loss in self._losses:
            monitor.observe(loss=loss)
        self._losses = []

    def _backward(self, loss: object, *_: object) -> None:
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            return
        value = self._unscaled.pop(id(loss), loss).detach()
        self._unscaled.clear()
        for monitor in self.monitors:
            monitor.observe(loss=value)
        if not self.monitors:
            self._losses = [value]

    def _scale(self, scaler: Any, given: object, scaled: object) -> None:
        self._scaler = scaler
        if isinstance(given, Tensor) and isinstance(scaled, Tensor):
            self._unscaled[id(scaled)] = given


def run_script(path: Path, args: Sequence[str], script: Script) -> None:
    """Runs a file as `python FILE ARGS` would, watched; whatever it raises is raised."""
    held_argv, held_path = sys.argv, list(sys.path)
    sys.argv, sys.path[0] = [str(path), *args], str(path.resolve().parent)
    try:
        with script.watching():
            runpy.run_path(str(path), run_name="__main__")
    finally:
        sys.argv, sys.path[:] = held_argv, held_path


def owner(optimizer: torch.optim.Optimizer) -> nn.Module | None:
    """Returns the outermost module that owns most of the optimizer's parameters: a wrapper before what it wraps; None if there is none."""
    wanted = {id(p) for group in optimizer.param_groups for p in group["params"]}
    modules = [m for m in gc.get_objects() if issubclass(type(m), nn.Module) and not issubclass(type(m), torch.jit.ScriptModule)]
    inner = {id(child) for m in modules for child in m.children()}
    owned = {id(m): sum(id(p) in wanted for p in m.parameters()) for m in modules if id(m) not in inner}
    best = max(owned.values(), default=0)
    return next((m for m in modules if best and owned.get(id(m)) == best), None)


@contextmanager
def _wrapped(home: Any, name: str, tell: Callable[..., None], *, after: bool = False) -> Iterator[None]:
    """Has `tell` called with the arguments (and the result) of each call of `home.name`."""
    original = getattr(home, name)

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if not after:
            tell(*args)
        result = original(*args, **kwargs)
        if after:
            tell(*args, result)
        return result

    setattr(home, name, wrapper)
    try:
        yield
    finally:
        setattr(home, name, original)
