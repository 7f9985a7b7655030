"""A model and its optimizers -> calls at each forward, backward and step, by hooks that leave no mark on what is saved or compiled."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import partial
from time import perf_counter
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from evengrad.monitor.cadence import Clock

_Removal = Callable[[], None]
_transform, _tracing = torch._C._functorch.peek_interpreter_stack, torch._C._get_tracing_state
_compiling, _with_grad = torch.compiler.is_compiling, torch.is_grad_enabled


class Listener(Protocol):
    """What is told of a training.

    Attributes:
        wants_backward: True if the end of the next backward pass is to be told.
        settled: True if there is nothing to be told after the step about to be taken.
    """

    wants_backward: bool
    settled: bool

    def on_forward(self, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
        """The model is about to be called."""

    def on_backward(self) -> None:
        """A backward pass is over: gradients are as autograd left them, before any clipping."""

    def before_step(self, optimizer: torch.optim.Optimizer, *, closure: bool) -> None:
        """The optimizer is about to use the gradients; with a closure it will compute them first."""

    def after_step(self, optimizer: torch.optim.Optimizer) -> None:
        """The optimizer has changed the weights."""


def attach(
    model: nn.Module,
    optimizers: Iterable[torch.optim.Optimizer],
    listener: Listener,
    *,
    clock: Clock,
    failed: Callable[[Exception], None],
) -> _Removal:
    """Hooks the root of the model, two of its parameters and its optimizers; returns what removes all of it.

    Nothing is hooked inside the model. A copy, a saved file, a compiled or exported program of it holds no trace of the hooks. What the
    listener takes is counted by the clock; what it raises goes to `failed`. Each hook does this itself: one more function to enter costs
    microseconds at every step, since a backward pass leaves nothing of our code in the processor's caches.
    """
    end_of_backward = _EndOfBackward(model, listener, clock, failed)

    def called(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        began = perf_counter()
        end_of_backward.asked = False  # should the backward pass before have raised
        try:
            listener.on_forward(args, kwargs)
            if listener.wants_backward is not end_of_backward.awaited:
                end_of_backward.turn(listener.wants_backward)
        except Exception as error:
            failed(error)
        clock.spent += perf_counter() - began

    def before(optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        began = perf_counter()
        try:
            listener.before_step(optimizer, closure=(len(args) > 1 or bool(kwargs)) and _has_closure(args, kwargs))
            if listener.wants_backward is not end_of_backward.awaited:
                end_of_backward.turn(listener.wants_backward)
        except Exception as error:
            failed(error)
        clock.spent += perf_counter() - began

    def after(optimizer: torch.optim.Optimizer, args: object, kwargs: object) -> None:
        if listener.settled:
            return
        began = perf_counter()
        try:
            listener.after_step(optimizer)
            if listener.wants_backward is not end_of_backward.awaited:
                end_of_backward.turn(listener.wants_backward)
        except Exception as error:
            failed(error)
        clock.spent += perf_counter() - began

    removals: list[_Removal] = [hook_calls(model, called), partial(end_of_backward.turn, False)]
    for optimizer in optimizers:
        removals += [optimizer.register_step_pre_hook(before).remove, optimizer.register_step_post_hook(after).remove]

    def remove() -> None:
        for removal in removals:
            removal()

    return remove


def _has_closure(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    given = (*args[1:], kwargs.get("closure"))  # the first is the optimizer itself
    return any(callable(x) for x in given)


class QuietHook:
    """A module's pre-hook that returns at once while the module is compiled, exported, traced or transformed; its copies do nothing."""

    __name__ = "evengrad"

    def __init__(self, call: Callable[[tuple[Any, ...], dict[str, Any]], None]) -> None:
        self._call = call

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        learning = module.training and kwargs.get("training") is not False  # in Keras each call says what it is
        if learning and not _compiling() and _with_grad() and _tracing() is None and _transform() is None:
            self._call(args, kwargs)

    def __reduce__(self) -> Any:
        return getattr, (contextlib.nullcontext(), "__exit__")  # takes anything, does nothing, and needs no evengrad to be loaded


class _Hooks(OrderedDict[int, Any]):
    """A module's hooks in which ours is called, but neither copied, saved nor shown to TorchScript, which would compile it.

    Handles that were given out before refer to the dictionary that this one stands in for: what they remove is gone from here, too.
    """

    def __init__(self, original: OrderedDict[int, Any]) -> None:
        super().__init__(original)
        self.original, self._inherited = original, tuple(original)

    def items(self) -> Any:
        if not self._inherited:
            return super().items()
        for key in self._inherited:
            if key in self and key not in self.original:
                del self[key]
        return super().items()

    def values(self) -> Any:
        return [hook for _, hook in self.items() if not isinstance(hook, QuietHook)]

    def restored(self) -> OrderedDict[int, Any]:
        """What the module should have once ours is gone: the original, unless hooks were added since, whose handles refer to this one."""
        return self if any(key not in self.original for key in self) else self.original

    def __reduce__(self) -> Any:
        return OrderedDict, ([(key, hook) for key, hook in self.items() if not isinstance(hook, QuietHook)],)


def hook_calls(model: nn.Module, call: Callable[[tuple[Any, ...], dict[str, Any]], None]) -> _Removal:
    """Has `call(args, kwargs)` called before each training call of a module; returns what ends that."""
    vars(model)["_forward_pre_hooks"] = _Hooks(model._forward_pre_hooks)  # type: ignore[arg-type]  # Keras would wrap what is set
    handle = model.register_forward_pre_hook(QuietHook(call), with_kwargs=True)

    def remove() -> None:
        handle.remove()
        if isinstance(model._forward_pre_hooks, _Hooks):
            vars(model)["_forward_pre_hooks"] = model._forward_pre_hooks.restored()

    return remove


class _EndOfBackward:
    """Calls once at the end of each awaited backward pass: asked for by the first gradient to arrive at the first or last parameter.

    Attributes:
        awaited: True while the ends of backward passes are told.
        asked: True once the end of the pass that runs was asked for.
    """

    def __init__(self, model: nn.Module, listener: Listener, clock: Clock, failed: Callable[[Exception], None]) -> None:
        self._listener, self._clock, self._failed = listener, clock, failed
        learning = [p for p in model.parameters() if p.requires_grad]
        ends = {id(p): p for p in (learning[:1] + learning[-1:])}
        self._handles = [p.register_post_accumulate_grad_hook(self._arrived) for p in ends.values()]
        self.awaited, self.asked = True, False

    def turn(self, awaited: bool) -> None:
        """Hooks the two parameters, or takes the hooks off: autograd would call even one that has nothing to do."""
        self.awaited = awaited
        for handle in self._handles:
            hooks = handle.hooks_dict_ref()
            if hooks is None:
                continue  # the parameter is gone
            if awaited:
                hooks[handle.id] = self._arrived
            else:
                hooks.pop(handle.id, None)

    def _arrived(self, _: Tensor) -> None:
        if self.asked or torch.compiler.is_compiling():
            return
        self.asked = True
        engine = torch.autograd.Variable._execution_engine
        engine.queue_callback(lambda: engine.queue_callback(self._done))  # DDP's averages come by a callback that is queued in between

    def _done(self) -> None:
        began = perf_counter()
        self.asked = False
        try:
            self._listener.on_backward()
        except Exception as error:
            self._failed(error)
        self._clock.spent += perf_counter() - began
