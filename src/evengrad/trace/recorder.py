"""one forward and backward pass -> structure, columns, loss: statistics stay on the device until one copy to the host."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evengrad.trace import stats
from evengrad.trace.batch import Batch, Loss, call, check_labels, scalar_loss
from evengrad.trace.capture import Capture, Node
from evengrad.trace.isolation import untouched
from evengrad.trace.structure import Structure, read_structure
from evengrad.types import Floats

OUT = ("out_mean", "out_rms", "out_abs_max", "out_spread")
ACT = ("zero_fraction", "dead_fraction", "saturated_fraction")
GRAD_OUT = ("grad_out_norm", "grad_out_abs_max")
WEIGHT = ("weight_norm", "weight_mean", "weight_abs_mean", "weight_abs_max", "distinct_unit_fraction")
GRAD = ("grad_norm", "grad_mean", "grad_abs_mean", "grad_abs_max")
COLUMNS = frozenset(OUT + ACT + GRAD_OUT + WEIGHT + GRAD)
_POOL: dict[str, Callable[[list[float]], float]] = {"out_rms": lambda v: float(np.sqrt(np.mean(np.square(v)))), "out_abs_max": max}
_POOL["out_spread"] = _POOL["out_rms"]


@dataclass(frozen=True)
class Measurement:
    """What one pass showed: the structure, a (1, L) column a signal, the loss and the model's output."""

    structure: Structure
    columns: dict[str, Floats]
    loss: float
    output: Any


def measure(
    model: nn.Module, batch: Batch, loss_fn: Loss | None = None, *, columns: Iterable[str] | None = None, seed: int = 0
) -> Measurement:
    """Runs the model once forward and backward in train mode and measures every row; leaves the model as it was, to the bit.

    Args:
        model: Any module.
        batch: What to call it with.
        loss_fn: `loss_fn(output, targets)`; None uses the output's own loss, or a fixed random projection.
        columns: Names to measure; None measures all. Fewer cost less.
        seed: Seed of torch's generators during the pass (dropout).

    Raises:
        ForwardError: if the model raises.
        InputError: if the loss does not fit.
    """
    recorder = Recorder(batch.samples, frozenset(columns) if columns is not None else COLUMNS)
    with untouched(model, seed=seed):
        model.train()
        capture = Capture(model, recorder)
        recorder.nodes = capture.nodes
        with torch.enable_grad():
            with capture:
                capture.inputs(batch.inputs)
                output = call(model, batch.inputs)
            structure = read_structure(capture, output)
            check_labels(output, batch.targets, loss_fn)
            loss = scalar_loss(output, batch.targets, loss_fn)
            capture.forward = recorder.forward = False
            gradients = _gradients(loss, capture)
    return Measurement(structure, recorder.columns(structure, capture.parameters, gradients), float(loss.detach()), output)


def _gradients(loss: Tensor, capture: Capture) -> dict[str, Tensor]:
    named = [(name, p) for name, p in capture.parameters.items() if p.requires_grad]
    try:
        found: tuple[Tensor | None, ...] = torch.autograd.grad(loss, [p for _, p in named], allow_unused=True)
    except RuntimeError as error:
        if "heckpoint" not in str(error):
            raise
        with capture:  # the blocks run again, and only now do their outputs have gradients
            found = _gradients_by_backward(loss, [p for _, p in named])
    return {name: g for (name, _), g in zip(named, found, strict=True) if g is not None}


def _gradients_by_backward(loss: Tensor, parameters: list[Tensor]) -> tuple[Tensor | None, ...]:
    """Reentrant checkpoints refuse autograd.grad: run backward, and put every .grad back as it was."""
    before = [p.grad for p in parameters]
    for p in parameters:
        p.grad = None
    try:
        loss.backward()
        return tuple(p.grad for p in parameters)
    finally:
        for p, grad in zip(parameters, before, strict=True):
            p.grad = grad


@dataclass
class _Outputs:
    """What was seen of the calls of one weight: statistics a call, and the gradient's norm of each sample pooled over calls."""

    calls: list[Tensor] = field(default_factory=list)
    hooked: bool = False
    norms: Tensor | None = None
    largest: Tensor | None = None


class Recorder:
    """Looks at tensors while they flow by (an `Observer`), and turns what it kept into columns."""

    def __init__(self, samples: int, wanted: frozenset[str] = COLUMNS) -> None:
        self.samples = samples
        self.forward = True
        self.nodes: list[Node] = []
        self._wanted = wanted
        self._outputs: dict[tuple[str, ...], _Outputs] = {}
        self._activations: list[tuple[Node, Tensor, Tensor]] = []  # node, zero and flat shares (2,), mask of dead units

    def wants(self, names: Iterable[str]) -> bool:
        """True if any of these columns is to be measured."""
        return not self._wanted.isdisjoint(names)

    def weight_output(self, node: Node, output: Tensor) -> None:
        """Measures z at once (an activation in place may overwrite it) and asks for its gradient."""
        if not output.is_floating_point() or not output.numel():
            return
        seen = self._outputs.setdefault(node.weights, _Outputs())
        with torch.no_grad(), torch._C.DisableTorchFunction():
            if self.forward and self.wants(OUT):
                seen.calls.append(stats.output_stats(output.detach(), self.samples))
        if output.requires_grad and self.wants(GRAD_OUT) and (self.forward or not seen.hooked):
            seen.hooked = True
            output.register_hook(lambda gradient: self._gradient(seen, gradient))

    def _gradient(self, seen: _Outputs, gradient: Tensor) -> None:
        with torch.no_grad(), torch._C.DisableTorchFunction():
            norms, largest = stats.sample_norms(gradient, self.samples)
            if seen.norms is None or seen.largest is None or seen.norms.shape != norms.shape:
                seen.norms, seen.largest = norms, largest
            else:
                seen.norms, seen.largest = torch.hypot(seen.norms, norms), torch.maximum(seen.largest, largest)

    def activation_input(self, node: Node, value: Tensor) -> None:
        """Measures where an activation is zero, dead or flat, from what goes into it."""
        if not self.wants(ACT) or value.dim() < 2 or not value.is_floating_point():
            return
        axis = 1 if value.dim() > 2 and self._is_conv(node) else value.dim() - 1
        with torch.no_grad(), torch._C.DisableTorchFunction():
            off = stats.off(value.detach(), node.op)
            dead = off.movedim(axis, 0).flatten(1).all(1)
            shares = torch.stack((off.float().mean(), stats.flat_share(value.detach(), node.op)))
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
            host = torch.cat([v.float() for v in values]).cpu().tolist() if values else []
        pooled: dict[tuple[str, int], list[float]] = {}
        for cell, value in zip(cells, host, strict=True):
            pooled.setdefault(cell, []).append(value)
        found = {name: np.full((1, len(structure.layers)), np.nan, np.float32) for name in self._wanted}
        for (name, row), seen in pooled.items():
            if name in found:
                found[name][0, row] = seen[0] if len(seen) == 1 else _POOL.get(name, np.mean)(seen)
        return found

    def _put_outputs(self, structure: Structure, put: Callable[[Iterable[str], int, Tensor], None]) -> None:
        for index, row in structure.rows.items():
            seen = self._outputs.pop(self.nodes[index].weights, None)
            if seen is None:
                continue
            for call_stats in seen.calls:
                put(OUT, row, call_stats)
            if seen.norms is not None and seen.largest is not None:
                put(GRAD_OUT, row, torch.stack((seen.norms.mean(), seen.largest)))

    def _put_activations(self, structure: Structure, put: Callable[[Iterable[str], int, Tensor], None]) -> None:
        found = {node.index: (shares, dead) for node, shares, dead in self._activations}  # a node has its number once it has run
        for row, indices in structure.activations.items():
            seen = [found[i] for i in indices if i in found]
            for shares, _ in seen:
                put(("zero_fraction", "saturated_fraction"), row, shares)
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
        for row, layer in enumerate(structure.layers):
            weight = parameters[layer.weight]
            if self.wants(WEIGHT):
                put(WEIGHT[:4], row, stats.tensor_stats([weight])[0])
                if weight.dim() > 1 and layer.depth is not None:
                    put(WEIGHT[4:], row, stats.distinct_units(weight.detach(), structure.unit_axes[row]))
            if self.wants(GRAD) and layer.weight in gradients:
                put(GRAD, row, stats.tensor_stats([gradients[layer.weight]])[0])
