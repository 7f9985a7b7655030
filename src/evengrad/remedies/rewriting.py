"""The name of an activation and another -> functional calls of the one rewritten to the other while a module runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from evengrad.trace.operations import activation_of, function_name

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.2),  # Xu et al. 2015: slopes near 0.2 beat 0.01
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
}


class Rewriter:
    """Forward hooks that put another activation in the place of one; can be copied and pickled with the module."""

    def __init__(self, old: str, new: str, spare: str | None) -> None:
        self.old, self.new, self.spare = old, new, spare
        self._active: list[TorchFunctionMode] = []

    def enter(self, module: nn.Module, _args: object) -> None:
        mode = RewriteMode(self.old, self.new, None if self.spare is None else module.get_parameter(self.spare))
        mode.__enter__()  # type: ignore[no-untyped-call]
        self._active.append(mode)

    def leave(self, _module: nn.Module, _args: object, _output: object) -> None:
        self._active.pop().__exit__(None, None, None)


class RewriteMode(TorchFunctionMode):
    """Puts a new activation in the place of the old one's calls; what follows the weight `spare` is left alone."""

    def __init__(self, old: str, new: str, spare: nn.Parameter | None) -> None:
        super().__init__()
        self._old, self._new, self._spare = old, ACTIVATIONS[new](), spare
        self._sparing = False

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        weights = [a for a in (*args, *kwargs.values()) if isinstance(a, nn.Parameter) and a.dim() > 1]  # biases and norms have one axis
        if weights:
            self._sparing = any(w is self._spare for w in weights)
        name = function_name(func)
        found = activation_of(name, args, kwargs)
        if found is None or found[0] != self._old or self._sparing:
            return func(*args, **kwargs)
        value = args[0] if args else kwargs["input"]
        if not isinstance(value, Tensor):
            return func(*args, **kwargs)
        in_place = name.endswith("_") or kwargs.get("inplace") is True or (bool(args) and args[-1] is True)
        return value.copy_(self._new(value.clone())) if in_place else self._new(value)
