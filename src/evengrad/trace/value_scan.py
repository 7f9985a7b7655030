"""the values of a forward pass, as they are made -> since which operation they are not finite."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from evengrad.trace import operations as ops
from evengrad.trace.capture import module_calls, tensors_in
from evengrad.trace.gradient_scan import CHECKPOINT, GradientScan, operation_of
from evengrad.trace.lineage import Given, Lineage, Origin, earliest, memory_of, operands, overwrites, shown, unseen
from evengrad.trace.nonfinite import flaw_of, is_finite, range_of

_APPLY = torch.autograd.Function.apply.__func__.__code__  # type: ignore[attr-defined]
_CALL = nn.Module._call_impl.__code__


class ValueScan(TorchFunctionMode):
    """Looks at every value that is made inside `with scan:` and tells the graph which nodes are whose."""

    def __init__(self, model: nn.Module, lineage: Lineage, graph: GradientScan) -> None:
        super().__init__()
        self._lineage, self._graph = lineage, graph
        self._names = {id(m): ".".join(part for part in name.split(".") if part != "_orig_mod") for name, m in model.named_modules()}
        self._constant = WeakTensorKeyDictionary()  # tensor seen -> True if no data went into it
        self._hooks = ExitStack()
        self._thread = threading.get_ident()
        for tensor in (*model.parameters(), *model.buffers()):
            self._constant[tensor] = True

    def __enter__(self) -> ValueScan:
        self._hooks.enter_context(module_calls(self._enter_module, self._exit_module))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *args: Any) -> None:
        super().__exit__(*args)  # type: ignore[no-untyped-call]
        self._hooks.close()

    def guilty(self, value: object, *, deliberate: bool = False) -> Origin | None:
        """Returns where the tensors in `value` stopped being finite; infinities written on purpose count only if asked for."""
        with unseen():
            bad = [t for t in tensors_in(value) if not is_finite(t)]
            found = [(self._origin_of(t), flaw_of(t, None).nan) for t in bad]
            return earliest(origin for origin, nan in found if deliberate or nan or not origin.deliberate)

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = ops.function_name(func)
        if self._graph.stage == "backward":
            output = func(*args, **kwargs)
            with unseen():
                self._graph.adopt(tensors_in(output), shown(name))
            return output
        given = list(tensors_in(operands(name, args, kwargs)))
        before = None
        if overwrites(name, kwargs):
            with unseen():
                before = self._look(given)
        gradients = len(self._graph.origins)
        output = func(*args, **kwargs)
        made = [args[0]] if name == "__setitem__" else list(tensors_in(output))
        if made:
            with unseen():
                self._examine(name, given, before, made, gradients)
        return output

    def _examine(self, name: str, given: list[Tensor], before: Given | None, made: list[Tensor], gradients: int) -> None:
        constant = all(self._constant.get(t, False) for t in given)
        for tensor in made:
            self._constant[tensor] = constant
        self._graph.adopt(given)
        self._graph.adopt(made, shown(name), constant=constant)
        known = {memory_of(t) for t in given} if before is None else set()  # a view shows nothing new
        bad = [t for t in made if not (known and memory_of(t) in known) and not is_finite(t)]
        if bad:
            seen = before or self._look(given)
            flaw = flaw_of(bad[0], None if constant else self._lineage.samples)
            span = self._lineage.outputs if self._graph.stage == "loss" else (seen.low, seen.high)
            place = self._graph.place(_custom_function() or shown(name))
            inside = self._graph.origins[gradients:]  # of a gradient that the model itself takes
            origin = inside[0] if inside and not seen.sources else self._lineage.judge(name, seen, flaw, place, span)
            for tensor in bad:
                self._mark(tensor, origin)

    def _look(self, given: list[Tensor]) -> Given:
        bad = [t for t in given if not is_finite(t)]
        nan = any(flaw_of(t, None).nan for t in bad)
        return Given(tuple(self._origin_of(t) for t in bad), nan, *range_of(given))

    def _origin_of(self, tensor: Tensor) -> Origin:
        """Returns where a tensor stopped being finite; what was made out of sight is told by the graph, or begins here."""
        origin = self._lineage.of(tensor) or self._graph.value_origin(tensor)
        if origin is None:
            flaw = flaw_of(tensor, self._lineage.samples)
            place = self._graph.place("unknown" if tensor.grad_fn is None else operation_of(tensor.grad_fn))
            mask = tensor.grad_fn is None and flaw.values == "-inf"  # a plain attribute of a module
            origin = self._lineage.born(flaw, place, (math.nan, math.nan), deliberate=mask)
        self._mark(tensor, origin)
        return origin

    def _mark(self, tensor: Tensor, origin: Origin) -> None:
        self._lineage.mark(tensor, origin)
        step = self._graph.step_of(tensor)
        if step is not None:
            step.value = origin

    def _enter_module(self, module: nn.Module, args: object) -> None:
        if self._ours(module):
            with unseen():
                self._graph.adopt(tensors_in(args))  # what the parent made out of sight is the parent's
            self._graph.running.append(self._names[id(module)])

    def _exit_module(self, module: nn.Module, _args: object, output: object) -> None:
        if not self._ours(module):
            return
        with unseen():
            self._graph.adopt(tensors_in(output))
            for tensor in tensors_in(output) if self._graph.stage != "backward" else ():
                if tensor not in self._constant:  # made by a custom function or an extension
                    self._constant[tensor] = False
                    if not is_finite(tensor):
                        self._origin_of(tensor)
        running = self._graph.running
        if running[-1] == self._names[id(module)] and len(running) > 1:
            running.pop()

    def _ours(self, module: nn.Module) -> bool:
        """Other threads run other models, except in backward: there the block of a checkpoint runs in the thread of its device."""
        return id(module) in self._names and (self._graph.stage == "backward" or threading.get_ident() == self._thread)


def _custom_function() -> str | None:
    """Returns the class of the custom autograd function in whose forward the caller runs; slow, and asked only once something is wrong."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code is not _CALL:
        if frame.f_code is _APPLY:
            name: str = frame.f_locals["cls"].__name__
            return None if name == CHECKPOINT else name
        frame = frame.f_back  # type: ignore[assignment]
    return None
