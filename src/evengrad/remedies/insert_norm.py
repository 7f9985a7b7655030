"""batch_norm, layer_norm, rms_norm, group_norm: a norm between each hidden layer and its activation."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from torch import Tensor, nn

from evengrad.errors import InputError
from evengrad.remedies import base
from evengrad.remedies.base import Remedy, Undo, submodule, undo_all
from evengrad.remedies.surgery import exchange, replace_module
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
    causes: ClassVar[tuple[str, ...]] = ("missing_normalization_layer",)
    change: ClassVar[int] = base.NORM
    child: ClassVar[str] = CHILD

    @staticmethod
    @abstractmethod
    def norm(units: int, dims: int) -> nn.Module:
        """Returns the norm for `units` channels of an output with `dims` axes."""

    @abstractmethod
    def suits(self, layer: Layer, trace: Trace) -> bool:
        """True if this norm is proposed behind that row."""

    @staticmethod
    @abstractmethod
    def shown(layer: Layer) -> str:
        """Returns the norm behind that row as code."""

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        head = (trace.facts.head or {}).get("layer")
        rows = [x for x in trace.layers if x.activation not in {"none", "unknown"} and x.norm == "none" and x.name != head]
        rows = [
            x
            for x in rows
            if x.kind in {"linear", "conv"} and x.weight in {f"{x.name}.weight", f"{x.name}.kernel"} and self.suits(x, trace)
        ]
        if rows:
            words = self.name.replace("_", " ")
            yield Proposal(
                remedy=self.name,
                options={"units": {x.name: x.fan_out if x.kind == "linear" else None for x in rows}},  # None: the kernel tells
                where=tuple(x.name for x in rows),
                cause="missing_normalization_layer",
                summary=f"{words} before each activation",
                code=f"+{self.shown(rows[0])}  # behind each hidden layer, before its activation",
                needs=("batches of more than one sample",) if self.name == "batch_norm" else (),
                risk="train and eval mode differ" if self.name == "batch_norm" else "",
            )

    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        return undo_all(self._insert(rig, submodule(rig.model, name), units) for name, units in proposal.options["units"].items())

    def _insert(self, rig: Rig, layer: nn.Module, units: int | None) -> Undo:
        kernel = getattr(getattr(layer, "kernel", None), "value", None)  # of a Keras layer: units last, and the activation inside
        weight = getattr(layer, "weight", None) if kernel is None else kernel.movedim(-1, 0)
        if not isinstance(weight, Tensor) or weight.dim() < 2 or hasattr(layer, self.child):
            raise InputError(f"{type(layer).__name__} has no weight, or a norm already: this change was proposed for another model")
        if units is not None and units not in weight.shape:  # on any axis: some kernels are laid out [in, out]
            shape = tuple(weight.shape)
            raise InputError(
                f"expected a layer of {units} units, got a weight of shape {shape}: this change was proposed for another model"
            )
        child = self.norm(units or weight.shape[0], weight.dim() if kernel is None else 2).to(weight.device, weight.dtype)
        child.train(layer.training)
        layer.add_module(self.child, child)
        normed = partial(apply_norm, child=self.child)
        if kernel is None:
            undos: list[Undo] = [layer.register_forward_hook(normed).remove]
        else:
            undos = [_before_activation(layer, normed, 1 if isinstance(child, nn.GroupNorm) else -1)]
        undos.append(lambda: delattr(layer, self.child))
        if rig.optimizer is not None:
            undos.append(join_optimizer(rig, list(child.parameters())))
        return undo_all(undos[::-1])


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

    @staticmethod
    def shown(layer: Layer) -> str:
        return f"nn.BatchNorm1d({layer.fan_out})" if layer.kind == "linear" else "nn.BatchNorm2d(out_channels)"

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

    @staticmethod
    def shown(layer: Layer) -> str:
        return f"nn.LayerNorm({layer.fan_out})"

    def suits(self, layer: Layer, trace: Trace) -> bool:
        return layer.kind == "linear"


@dataclass(frozen=True, kw_only=True)
class RmsNorm(InsertNorm):
    """RMS norm before each activation of linear layers: a layer norm that subtracts no mean, and costs less.

    Reference: Zhang & Sennrich 2019.
    """

    name: ClassVar[str] = "rms_norm"
    title: ClassVar[str] = "RMS norm before each activation"
    symptoms: ClassVar[tuple[str, ...]] = ()
    causes: ClassVar[tuple[str, ...]] = ("missing_normalization_layer",)
    diagnostic: ClassVar[bool] = False
    child: ClassVar[str] = "evengrad_rms_norm"

    @staticmethod
    def norm(units: int, dims: int) -> nn.Module:
        return nn.RMSNorm(units)

    @staticmethod
    def shown(layer: Layer) -> str:
        return f"nn.RMSNorm({layer.fan_out})"

    def suits(self, layer: Layer, trace: Trace) -> bool:
        return layer.kind == "linear"


@dataclass(frozen=True, kw_only=True)
class GroupNorm(InsertNorm):
    """Group norm before each activation of convolutions, or in the place of batch norms where batches have too few samples for those.

    Reference: Wu & He 2018.
    """

    name: ClassVar[str] = "group_norm"
    title: ClassVar[str] = "group norm, which needs no batch"
    symptoms: ClassVar[tuple[str, ...]] = ()
    causes: ClassVar[tuple[str, ...]] = ("missing_normalization_layer", "batch_too_small")
    diagnostic: ClassVar[bool] = False
    child: ClassVar[str] = "evengrad_group_norm"

    @staticmethod
    def norm(units: int, dims: int) -> nn.GroupNorm:
        groups = max(g for g in (1, 2, 4, 8, 16, 32) if units % g == 0 and (g == 1 or units // g >= 4))  # Wu & He 2018, table 3
        return nn.GroupNorm(groups if dims > 2 else 1, units)

    @staticmethod
    def shown(layer: Layer) -> str:
        return "nn.GroupNorm(groups, out_channels)"

    def suits(self, layer: Layer, trace: Trace) -> bool:
        return layer.kind == "conv"

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        if finding.cause != "batch_too_small":
            yield from super().propose(finding, trace)
            return
        norms = [n for n in (trace.facts.modules or {}).get("norms", ()) if n["kind"].startswith("BatchNorm")]
        if norms:
            kinds = sorted({n["kind"] for n in norms})
            yield Proposal(
                remedy=self.name,
                options={"instead": [n["name"] for n in norms]},
                where=tuple(x.name for x in trace.layers if x.norm_module in {n["name"] for n in norms}),
                cause="batch_too_small",
                summary=f"group_norm in the place of {len(norms)} batch norm{'s' * (len(norms) > 1)}",
                code="\n".join(f"-nn.{kind}(channels)" for kind in kinds) + "\n+nn.GroupNorm(groups, channels)",
            )

    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        if "instead" not in proposal.options:
            return super().apply(rig, proposal)
        return undo_all(undo for name in proposal.options["instead"] for undo in self._replace(rig, submodule(rig.model, name)))

    def _replace(self, rig: Rig, old: nn.Module) -> Iterator[Undo]:
        if not isinstance(old, nn.modules.batchnorm._BatchNorm):
            raise InputError(f"expected a batch norm, got {type(old).__name__}: this change was proposed for another model")
        fresh = self.norm(old.num_features, 2 if isinstance(old, nn.BatchNorm1d) else 4)
        if old.affine:
            fresh.load_state_dict({"weight": old.weight, "bias": old.bias})
            fresh.to(old.weight.device, old.weight.dtype)
        else:
            fresh = nn.GroupNorm(fresh.num_groups, old.num_features, affine=False)
        yield replace_module(rig.model, old, fresh.train(old.training))
        yield exchange(rig, list(zip(old.parameters(), fresh.parameters(), strict=True)))


def apply_norm(layer: nn.Module, _args: object, output: Any, *, child: str = CHILD) -> Any:
    """Forward hook that norms a layer's output by its child (a module-level function, so that models stay copyable)."""
    norm = layer.get_submodule(child)
    if isinstance(norm, nn.BatchNorm1d) and not isinstance(layer, nn.Conv1d) and output.dim() > 2:
        return norm(output.flatten(0, -2)).reshape(output.shape)
    return norm(output)


def _before_activation(layer: Any, normed: Any, channels: int) -> Undo:
    """Norms what a Keras layer's own activation is applied to, by a norm that reads channels on that axis."""
    activation, own = layer.activation, 1 if getattr(layer, "data_format", "") == "channels_first" else -1
    vars(layer)["activation"] = partial(_normed_activation, layer=layer, normed=normed, activation=activation, own=own, channels=channels)
    return lambda: vars(layer).update(activation=activation)


def _normed_activation(output: Tensor, *, layer: nn.Module, normed: Any, activation: Any, own: int, channels: int) -> Any:
    return activation(normed(layer, (), output.movedim(own, channels)).movedim(channels, own))


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
