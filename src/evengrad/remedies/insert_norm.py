"""batch_norm, layer_norm: a norm between each hidden layer and its activation."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from evengrad.errors import InputError
from evengrad.remedies import base
from evengrad.remedies.base import Remedy, Undo, submodule, undo_all
from evengrad.rig import Rig
from evengrad.types import Finding, Layer, Proposal, Trace

CHILD = "evengrad_norm"
_BATCH_NORMS: dict[int, type[nn.Module]] = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
_SYMPTOMS = ("vanishing_gradient", "exploding_gradient", "zero_gradient", "signal_collapse", "dead_relu", "saturated_activation", "INI001")


@dataclass(frozen=True, kw_only=True)
class InsertNorm(Remedy):
    """Puts a norm behind the layers that an activation follows and that have none, as a child module of each layer.

    The norm's parameters join the optimizer's first group. The layer's bias is left where it is: behind a norm it is useless, not harmful.
    """

    symptoms: ClassVar[tuple[str, ...]] = _SYMPTOMS
    change: ClassVar[int] = base.NORM

    @staticmethod
    @abstractmethod
    def norm(units: int, dims: int) -> nn.Module:
        """Returns the norm for `units` channels of an output with `dims` axes."""

    @abstractmethod
    def suits(self, layer: Layer, trace: Trace) -> bool:
        """True if this norm is proposed behind that row."""

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        head = (trace.facts.head or {}).get("layer")
        rows = [x for x in trace.layers if x.activation not in {"none", "unknown"} and x.norm == "none" and x.name != head]
        rows = [x for x in rows if x.kind in {"linear", "conv"} and x.weight == f"{x.name}.weight" and self.suits(x, trace)]
        if rows:
            words = self.name.replace("_", " ")
            yield Proposal(
                remedy=self.name,
                options={"units": {x.name: x.fan_out if x.kind == "linear" else None for x in rows}},  # None: the kernel tells
                where=tuple(x.name for x in rows),
                cause="missing_normalization_layer",
                summary=f"{words} before each activation",
                code=f"+{self._shown(rows[0])}  # behind each hidden layer, before its activation",
                needs=("batches of more than one sample",) if self.name == "batch_norm" else (),
                risk="train and eval mode differ" if self.name == "batch_norm" else "",
            )

    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        return undo_all(self._insert(rig, submodule(rig.model, name), units) for name, units in proposal.options["units"].items())

    def _insert(self, rig: Rig, layer: nn.Module, units: int | None) -> Undo:
        weight = getattr(layer, "weight", None)
        if not isinstance(weight, Tensor) or weight.dim() < 2 or hasattr(layer, CHILD):
            raise InputError(f"{type(layer).__name__} has no weight, or a norm already: this change was proposed for another model")
        if units is not None and units not in weight.shape:  # on any axis: some kernels are laid out [in, out]
            shape = tuple(weight.shape)
            raise InputError(
                f"expected a layer of {units} units, got a weight of shape {shape}: this change was proposed for another model"
            )
        child = self.norm(units or weight.shape[0], weight.dim()).to(weight.device, weight.dtype)
        child.train(layer.training)
        layer.add_module(CHILD, child)
        handle = layer.register_forward_hook(apply_norm)
        undos: list[Undo] = [handle.remove, lambda: delattr(layer, CHILD)]
        if rig.optimizer is not None:
            undos.append(join_optimizer(rig, list(child.parameters())))
        return undo_all(undos[::-1])

    def _shown(self, layer: Layer) -> str:
        if self.name == "layer_norm":
            return f"nn.LayerNorm({layer.fan_out})"
        return f"nn.BatchNorm1d({layer.fan_out})" if layer.kind == "linear" else "nn.BatchNorm2d(out_channels)"


@dataclass(frozen=True, kw_only=True)
class BatchNorm(InsertNorm):
    """Batch norm before each activation; behind linear layers it is proposed only where samples are flat vectors.

    Reference: Ioffe & Szegedy 2015.
    """

    name: ClassVar[str] = "batch_norm"
    title: ClassVar[str] = "batch norm before each activation"

    @staticmethod
    def norm(units: int, dims: int) -> nn.Module:
        return _BATCH_NORMS[dims](units)

    def suits(self, layer: Layer, trace: Trace) -> bool:
        shape = (trace.facts.inputs or {}).get("shape") or [0, 0]
        return layer.kind == "conv" or len(shape) != 3


@dataclass(frozen=True, kw_only=True)
class LayerNorm(InsertNorm):
    """Layer norm before each activation of linear layers: needs no batch, is the same in eval mode.

    Reference: Ba, Kiros & Hinton 2016.
    """

    name: ClassVar[str] = "layer_norm"
    title: ClassVar[str] = "layer norm before each activation"

    @staticmethod
    def norm(units: int, dims: int) -> nn.Module:
        return nn.LayerNorm(units)

    def suits(self, layer: Layer, trace: Trace) -> bool:
        return layer.kind == "linear"


def apply_norm(layer: nn.Module, _args: object, output: Any) -> Any:
    """Forward hook that norms a layer's output by its child (a module-level function, so that models stay copyable)."""
    norm = layer.get_submodule(CHILD)
    if isinstance(norm, nn.BatchNorm1d) and not isinstance(layer, nn.Conv1d) and output.dim() > 2:
        return norm(output.flatten(0, -2)).reshape(output.shape)
    return norm(output)


def join_optimizer(rig: Rig, parameters: list[nn.Parameter]) -> Undo:
    """Lets new parameters join the optimizer's first group; the undo takes them out with their state."""
    if rig.optimizer is None:
        return lambda: None
    optimizer, group = rig.optimizer, rig.optimizer.param_groups[0]["params"]
    group.extend(parameters)

    def undo() -> None:
        for parameter in parameters:
            group[:] = [p for p in group if p is not parameter]
            optimizer.state.pop(parameter, None)

    return undo
