"""the autograd graph of a pass -> the first operation whose derivative made a gradient that is not finite.

What each node is the derivative of is written at the node itself, which lives no longer for it; the hooks hold no tensor.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from evengrad.trace.lineage import Lineage, Origin, earliest, unseen
from evengrad.trace.nonfinite import flaw_of, is_finite, range_of

CHECKPOINT = "CheckpointFunction"  # the reentrant kind runs its block without a graph, and again, with one, in backward


@dataclass(slots=True, eq=False)
class Step:
    """A node of the autograd graph: what it is the derivative of, and where the bad value or gradient that it met began."""

    module: str
    operation: str
    direction: str
    seen: bool = True  # False for what no function mode sees: custom autograd functions and extensions
    custom: bool = False  # an autograd function in Python
    constant: bool = False  # no data went in, so that no axis of its gradient counts samples
    inputs: list[Step | None] = field(default_factory=list)
    value: Origin | None = None
    gradient: Origin | None = None
    origins_before: int = 0


class GradientScan:
    """Knows the nodes of one pass, and looks at every gradient once backward runs."""

    def __init__(self, model: nn.Module, lineage: Lineage) -> None:
        self.origins: list[Origin] = []  # of gradients
        self.running = [""]  # names of the modules whose forward runs
        self.stage = "forward"  # then loss, then backward
        self.reentrant = False
        self._lineage = lineage
        self._parameters = {id(p): Step("", "", "", constant=True) for p in model.parameters()}
        self._token = object()  # marks the nodes of this pass
        self._handles: list[Any] = []

    def close(self) -> None:
        """Takes the hooks off a graph that the model may have kept."""
        for handle in self._handles:
            handle.remove()

    def place(self, operation: str) -> tuple[str, str, str]:
        """Returns module, operation and direction of what runs now."""
        return ("loss", operation, "loss") if self.stage == "loss" else (self.running[-1], operation, "forward")

    def adopt(self, tensors: Iterable[Tensor], name: str | None = None, *, constant: bool = False) -> None:
        """Takes the new nodes behind `tensors` for the derivative of the function `name`, which has just run, or of one out of sight."""
        stack = [tensor.grad_fn for tensor in tensors]
        fresh: list[tuple[Any, Step]] = []
        while stack:
            node: Any = stack.pop()
            if node is None or self._known(node):
                continue
            custom = isinstance(node, FunctionCtx)
            place = self.place(operation_of(node) if custom or name is None else name)
            step = Step(*place, seen=not custom and name is not None, custom=custom, constant=constant)
            node.metadata[self._token] = step
            fresh.append((node, step))
            stack += [source for source, _ in node.next_functions]
        for node, step in fresh:
            step.inputs = [self._step(source) for source, _ in node.next_functions]
            self._handles.append(node.register_hook(partial(self._passed, step)))
            if step.custom:
                self._handles.append(node.register_prehook(partial(self._starts, step)))
                self.reentrant |= step.operation == CHECKPOINT

    def step_of(self, tensor: Tensor) -> Step | None:
        """Returns the step that made a tensor, or None where no graph was made."""
        return self._step(tensor.grad_fn)

    def value_origin(self, tensor: Tensor) -> Origin | None:
        """Returns where the values behind a tensor that was made out of sight stopped being finite."""
        self.adopt([tensor])
        stack, visited, found = [self.step_of(tensor)], set[Step](), []
        while stack:
            step = stack.pop()
            if step is None or step in visited:
                continue
            visited.add(step)
            if step.value is not None:
                found.append(step.value)
            elif not step.seen:
                stack += step.inputs
        return earliest(found)

    def guilty(self, named: Iterable[tuple[str, Tensor, Tensor | None]]) -> Origin | None:
        """Returns where the gradients of parameters, given as (name, parameter, gradient), stopped being finite."""
        found = []
        with unseen():
            for name, parameter, gradient in named:
                if gradient is None or is_finite(gradient):
                    continue
                origin = self._parameters[id(parameter)].gradient
                if origin is None:  # finite parts, whose sum is not
                    place = (name.rpartition(".")[0], "accumulation", "backward")
                    origin = self._lineage.born(flaw_of(gradient, None), place, range_of([gradient]), gradient=True)
                found.append(origin)
        return earliest(found)

    def _known(self, node: Any) -> bool:
        return type(node).__name__ == "AccumulateGrad" or self._token in node.metadata

    def _step(self, node: Any) -> Step | None:
        if node is None:
            return None
        if type(node).__name__ == "AccumulateGrad":
            return self._parameters.get(id(node.variable))
        step: Step | None = node.metadata.get(self._token)
        return step

    def _starts(self, step: Step, _gradients: object) -> None:
        """A function of the user's may run a backward of its own: what it finds there comes first."""
        step.origins_before = len(self.origins)
        self.running.append(step.module)

    def _passed(self, step: Step, made: tuple[Tensor | None, ...], given: tuple[Tensor | None, ...]) -> None:
        if step.custom and self.running[-1] == step.module and len(self.running) > 1:
            self.running.pop()
        with unseen():
            bad = [(g, source) for g, source in zip(made, step.inputs, strict=False) if g is not None and not is_finite(g)]
            if not bad:
                return
            received = step.gradient if any(g is not None and not is_finite(g) for g in given) else None
            origin = received or self._inside(step) or self._born(step, bad, [g for g in given if g is not None])
            for _, source in bad:
                if source is not None:
                    source.gradient = earliest(o for o in (source.gradient, origin) if o is not None)

    def _inside(self, step: Step) -> Origin | None:
        ran_more = step.custom and len(self.origins) > step.origins_before
        return self.origins[step.origins_before] if ran_more else None

    def _born(self, step: Step, bad: list[tuple[Tensor, Step | None]], given: list[Tensor]) -> Origin:
        direction = "loss" if step.direction == "loss" else "backward"
        tensor, source = min(bad, key=lambda pair: _constant(pair[1]))
        flaw = flaw_of(tensor, None if step.constant or _constant(source) else self._lineage.samples)
        span = self._lineage.outputs if direction == "loss" else range_of(given)
        origin = self._lineage.born(flaw, (step.module, step.operation, direction), span, gradient=True)
        self.origins.append(origin)
        return origin


def operation_of(node: Any) -> str:
    """Returns the function that a node is the derivative of: a class of the user's, what an extension calls it, or one of torch's own."""
    name, _, derivative = str(node.name()).rpartition("::")[2].rpartition("Backward")
    own = derivative.isdigit()  # torch's own is called LogSoftmaxBackward0
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower() if own else name or derivative


def _constant(step: Step | None) -> bool:
    """True for a parameter, also behind a cast or transpose that belongs to the operation that used it."""
    while step is not None and not step.constant and len(step.inputs) == 1:
        step = step.inputs[0]
    return step is not None and step.constant
