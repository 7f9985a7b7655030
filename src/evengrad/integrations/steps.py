"""An optimizer that a trainer steps, with a closure or without -> its steps as a plain loop would take them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from evengrad.monitor.guards.base import TrainingStoppedError


class Steps(torch.optim.Optimizer):
    """An optimizer's steps for those who watch: hooks before a step fire when its gradients are there and cut, also with a closure.

    Parameters, rates and state are the optimizer's own. It never steps by itself.

    Args:
        optimizer: The optimizer that the trainer steps.
        stop: Called when a guard stops the training. Nothing is raised inside the trainer, but the step is left out.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, stop: Callable[[], None]) -> None:
        super().__init__([{"params": list(group["params"])} for group in optimizer.param_groups], {})
        self.param_groups, self.state = optimizer.param_groups, optimizer.state
        self._stop = stop
        self._left_out: list[tuple[Tensor, Tensor | None]] = []
        self._handles = [optimizer.register_step_pre_hook(self._begins), optimizer.register_step_post_hook(self._ended)]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Does nothing: the trainer's optimizer takes the steps."""

    def detach(self) -> None:
        """Removes the hooks from the trainer's optimizer."""
        for handle in self._handles:
            handle.remove()

    def _begins(self, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            self._before()
            return None

        def then_look() -> Any:
            result = closure()
            self._before()
            return result

        return (args[0], *args[2:]), kwargs | {"closure": then_look}

    def _before(self) -> None:
        try:
            for hook in list(self._optimizer_step_pre_hooks.values()):
                hook(self, (self,), {})
        except TrainingStoppedError:
            self._left_out = [(p, p.grad) for group in self.param_groups for p in group["params"]]
            for parameter, _ in self._left_out:
                parameter.grad = None
            self._stop()

    def _ended(self, optimizer: object, args: object, kwargs: object) -> None:
        while self._left_out:
            parameter, gradient = self._left_out.pop()
            parameter.grad = gradient
        for hook in list(self._optimizer_step_post_hooks.values()):
            hook(self, (self,), {})
