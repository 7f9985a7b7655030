"""one forward and backward pass -> structure, columns, loss: statistics stay on the device until one copy to the host."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn.parameter import UninitializedParameter

from evengrad.errors import InputError
from evengrad.trace import stats
from evengrad.trace.batch import Batch, Loss, call, check_labels, mapped, scalar_loss
from evengrad.trace.capture import Capture, Node
from evengrad.trace.isolation import untouched
from evengrad.trace.structure import Structure, read_structure
from evengrad.trace.together import Together
from evengrad.types import Floats

OUT = ("out_mean", "out_rms", "out_abs_max", "out_spread")
ACT = ("zero_fraction", "dead_fraction", "saturated_fraction")
GRAD_OUT = ("grad_out_norm", "grad_out_abs_max")
WEIGHT = ("weight_norm", "weight_mean", "weight_abs_mean", "weight_abs_max", "distinct_unit_fraction")
GRAD = ("grad_norm", "grad_mean", "grad_abs_mean", "grad_abs_max")
COLUMNS = frozenset(OUT + ACT + GRAD_OUT + WEIGHT + GRAD)
_POOL: dict[str, Callable[[list[float]], float]] = {"out_rms": lambda v: float(np.sqrt(np.mean(np.square(v)))), "out_abs_max": max}
_POOL["out_spread"] = _POOL["out_rms"]
_SMALLEST, _LARGEST = 2.0**-149, float(np.finfo(np.float32).max)
_UNDEFINED = {"saturated_fraction", "distinct_unit_fraction"}  # seen, and yet NaN: not flat on both sides, weights that are not finite


@dataclass(frozen=True)
class Measurement:
    """What one pass showed: the structure, a (1, L) column a signal, the loss, the model's output and the gradients of parameters."""

    structure: Structure
    columns: dict[str, Floats]
    loss: float
    output: Any
    gradients: dict[str, Tensor]


def measure(
    model: nn.Module,
    batch: Batch,
    loss_fn: Loss | None = None,
    *,
    columns: Iterable[str] | None = None,
    seed: int = 0,
    known: Structure | None = None,
) -> Measurement:
    """Runs the model once forward and backward in train mode and measures every row; leaves the model as it was, to the bit.

    Args:
        model: Any module.
        batch: What to call it with.
        loss_fn: `loss_fn(output, targets)`; None uses the output's own loss, or a fixed random projection.
        columns: Names to measure; None measures all. Fewer cost less.
        seed: Seed of torch's generators during the pass (dropout).
        known: The structure that an earlier pass of the same model showed: it need not be worked out again if this one goes the same way.

    Raises:
        ForwardError: if the model raises.
        InputError: if the loss does not fit, or a parameter has no values.
    """
    _refuse_empty_parameters(model)
    recorder = Recorder(batch.samples, frozenset(columns) if columns is not None else COLUMNS)
    with untouched(model, seed=seed):
        model.train()
        capture = Capture(model, recorder)
        recorder.nodes = capture.nodes
        with torch.enable_grad():
            inputs = mapped(torch.clone, batch.inputs)  # a model can work in place on what it is given
            with capture:
                capture.inputs(inputs)
                output = call(model, inputs)
            structure = read_structure(capture, output, known)
            check_labels(output, batch.targets, loss_fn)
            loss = scalar_loss(output, batch.targets, loss_fn)
            capture.forward = recorder.forward = False
            gradients = _gradients(loss, capture, recorder)
    columns = recorder.columns(structure, capture.parameters, gradients)
    return Measurement(structure, columns, float(loss.detach()), output, gradients)


def _refuse_empty_parameters(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            raise InputError(f"{name} is on the meta device: it has a shape but no values. Load the model on a real device first")
        if isinstance(parameter, UninitializedParameter):
            raise InputError(
                f"{name} has no shape yet (a lazy module), and measuring would give it one. Run one batch through the model first"
            )


def _gradients(loss: Tensor, capture: Capture, recorder: Recorder) -> dict[str, Tensor]:
    """Runs backward as far as the wanted columns need: for the gradients of weights, only of outputs, or not at all."""
    if not recorder.wants(GRAD + GRAD_OUT):
        return {}
    named = [(name, p) for name, p in capture.parameters.items() if p.requires_grad]
    if capture.graphless and any("CheckpointFunction" in type(f).__name__ for f in _functions(loss)):  # refuses autograd.grad
        with capture:  # its blocks run again, and only now do their outputs have gradients
            found = _gradients_by_backward(loss, [p for _, p in named])
    elif recorder.wants(GRAD):
        found = torch.autograd.grad(loss, [p for _, p in named], allow_unused=True)
    else:  # a third of the work of a step is left out
        if recorder.edges:
            torch.autograd.grad(loss, recorder.edges, allow_unused=True)
        return {}
    return {name: g for (name, _), g in zip(named, found, strict=True) if g is not None}


def _gradients_by_backward(loss: Tensor, parameters: list[Tensor]) -> tuple[Tensor | None, ...]:
    """Runs backward, and puts every .grad back as it was, also that of inputs and of a loss's own parameters."""
    held = [
        (leaf, leaf.grad)
        for leaf in {id(t): t for t in (*parameters, *(f.variable for f in _functions(loss) if hasattr(f, "variable")))}.values()
    ]
    for leaf, _ in held:
        leaf.grad = None
    try:
        engine = torch.autograd.Variable._execution_engine  # loss.backward() is itself seen by the mode, which is off while that runs
        engine.run_backward((loss,), (torch.ones_like(loss),), False, False, (), allow_unreachable=True, accumulate_grad=True)
        return tuple(p.grad for p in parameters)
    finally:
        for leaf, grad in held:
            leaf.grad = grad


def _functions(loss: Tensor) -> Iterator[Any]:
    """Yields the functions of the graph behind a loss; one that has a `variable` adds to that leaf's gradient."""
    stack, seen = [loss.grad_fn], set()
    while stack:
        function = stack.pop()
        if function is not None and function not in seen:
            seen.add(function)
            yield function
            stack.extend(source for source, _ in function.next_functions)


@dataclass
class _Outputs:
    """What was seen of the calls of one weight: places of the statistics of its outputs, and of the gradients at them."""

    calls: list[int] = field(default_factory=list)
    gradients: list[int] = field(default_factory=list)
    hooked: bool = False


class Recorder:
    """Looks at tensors while they flow by (an `Observer`), and turns what it kept into columns."""

    def __init__(self, samples: int, wanted: frozenset[str] = COLUMNS) -> None:
        self.samples = samples
        self.forward = True
        self.nodes: list[Node] = []
        self.edges: list[GradientEdge] = []
        self._wanted = wanted
        self._outputs: dict[tuple[str, ...], _Outputs] = {}
        self._values = Together(stats.outputs, samples)
        self._gradients = Together(stats.norms_by_sample, samples)
        self._activations: list[tuple[Node, Tensor, Tensor]] = []  # node, zero and flat shares (2,), mask of dead units

    def wants(self, names: Iterable[str]) -> bool:
        """True if any of these columns is to be measured."""
        return not self._wanted.isdisjoint(names)

    def weight_output(self, node: Node, output: Tensor) -> None:
        """Measures z at once (an activation in place may overwrite it) and asks for its gradient."""
        if not output.is_floating_point() or not output.numel():
            return
        seen = self._outputs.setdefault((node.op, *node.weights), _Outputs())
        with torch.no_grad(), torch._C.DisableTorchFunction():
            if self.forward and self.wants(OUT):
                seen.calls.append(self._values.add(output.detach()))
        if output.requires_grad and self.wants(GRAD_OUT) and (self.forward or not seen.hooked):
            seen.hooked = True
            self.edges.append(get_gradient_edge(output))  # an activation in place will give the tensor another one
            output.register_hook(lambda gradient: self._gradient(seen, gradient))

    def _gradient(self, seen: _Outputs, gradient: Tensor) -> None:
        with torch.no_grad(), torch._C.DisableTorchFunction():
            seen.gradients.append(self._gradients.add(gradient))

    def activation_input(self, node: Node, value: Tensor) -> None:
        """Measures where an activation is zero, dead or flat, from what goes into it."""
        if not self.wants(ACT) or value.dim() < 2 or not value.is_floating_point():
            return
        axis = 1 if value.dim() > 2 and self._is_conv(node) else value.dim() - 1
        with torch.no_grad(), torch._C.DisableTorchFunction():
            off = stats.off(value.detach(), node.op)
            dead = off.movedim(axis, 0).flatten(1).all(1)
            shares = torch.stack((off.float().mean(), stats.flat_share(value.detach(), node.op, node.options)))
            self._activations.append((node, shares, dead))

    def _is_conv(self, node: Node) -> bool:
        while node.kind != "weight" and node.inputs:
            node = self.nodes[node.inputs[-1]]
        return node.op.startswith("conv")

    def columns(self, structure: Structure, parameters: dict[str, Tensor], gradients: dict[str, Tensor]) -> dict[str, Floats]:
        """Returns each wanted column as float32 (1, L); NaN where nothing was seen. One copy to the host."""
        cells: list[tuple[str, int]] = []
        values: list[Tensor] = []

        def put(names: Iterable[str], row: int, vector: Tensor) -> None:
            cells.extend((name, row) for name in names)
            values.append(vector.reshape(-1))

        with torch.no_grad():
            self._put_outputs(structure, put)
            self._put_activations(structure, put)
            self._put_weights(structure, parameters, gradients, put)
            host = torch.cat([v.to(values[0].device) for v in values]).cpu().tolist() if values else []  # layers can be on several
        pooled: dict[tuple[str, int], list[float]] = {}
        for cell, value in zip(cells, host, strict=True):
            pooled.setdefault(cell, []).append(stored(value, cell[0]))
        found = {name: np.full((1, len(structure.layers)), np.nan, np.float32) for name in self._wanted}
        for (name, row), seen in pooled.items():
            if name in found:
                found[name][0, row] = seen[0] if len(seen) == 1 else _POOL.get(name, np.mean)(seen)
        return found

    def _put_outputs(self, structure: Structure, put: Callable[[Iterable[str], int, Tensor], None]) -> None:
        values, gradients = self._values.found(), self._gradients.found()
        rows: dict[int, list[Tensor]] = {}
        for index, row in structure.rows.items():
            node = self.nodes[index]
            seen = self._outputs.pop((node.op, *node.weights), _Outputs())
            for place in seen.calls:
                put(OUT, row, values[place])
            if seen.gradients:  # one weight can be used with several biases, or by several operations
                rows.setdefault(row, []).extend(gradients[place] for place in seen.gradients)
        for row, found in rows.items():
            put(GRAD_OUT, row, stats.norm_of_a_sample(found))

    def _put_activations(self, structure: Structure, put: Callable[[Iterable[str], int, Tensor], None]) -> None:
        found = {node.index: (shares, dead) for node, shares, dead in self._activations}  # a node has its number once it has run
        for row, indices in structure.activations.items():
            seen = [found[i] for i in indices if i in found]
            bounded = structure.layers[row].activation in stats.SATURATION  # SiLU by hand has a sigmoid in it, and yet is not flat
            for shares, _ in seen:
                put(("zero_fraction", "saturated_fraction") if bounded else ("zero_fraction",), row, shares if bounded else shares[:1])
            if seen:
                dead = seen[0][1]
                for _, mask in seen[1:]:  # a unit is dead if it is off in every call
                    dead = dead & mask if mask.shape == dead.shape else dead
                put(("dead_fraction",), row, dead.float().mean())

    def _put_weights(
        self,
        structure: Structure,
        parameters: dict[str, Tensor],
        gradients: dict[str, Tensor],
        put: Callable[[Iterable[str], int, Tensor], None],
    ) -> None:
        if not self.wants(WEIGHT + GRAD):
            return
        weights = [parameters[layer.weight] for layer in structure.layers]
        seen = [(WEIGHT[:4], i, weight) for i, weight in enumerate(weights)]
        seen += [(GRAD, i, gradients[layer.weight]) for i, layer in enumerate(structure.layers) if layer.weight in gradients]
        seen = [each for each in seen if self.wants(each[0])]
        for (names, row, _), found in zip(seen, stats.tensor_stats([tensor for *_, tensor in seen]), strict=True):
            put(names, row, found)
        if self.wants(WEIGHT[4:]):
            rows = [i for i, layer in enumerate(structure.layers) if weights[i].dim() > 1 and layer.depth is not None]
            shares = stats.distinct_units_of([(weights[i].detach(), structure.unit_axes[i]) for i in rows])
            for row, share in zip(rows, shares, strict=True):
                put(WEIGHT[4:], row, share)


def stored(value: float, name: str) -> float:
    """What a column stores: infinity where anything was not finite, never zero or infinity for a double beyond the range of single."""
    if _SMALLEST <= abs(value) <= _LARGEST or value == 0:
        return value  # as it nearly always is
    if not math.isfinite(value):
        return value if name in _UNDEFINED else math.inf
    if abs(value) < _SMALLEST:
        return math.copysign(_SMALLEST, value)
    return math.copysign(_LARGEST, value)
