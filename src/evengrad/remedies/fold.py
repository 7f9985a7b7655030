"""a model with batch norms -> a copy for evaluation in which the layers before them do their work."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from evengrad.errors import InputError
from evengrad.remedies.surgery import replace_module
from evengrad.trace.batch import call
from evengrad.trace.capture import Capture, Node
from evengrad.trace.isolation import untouched

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, *_TRANSPOSED)  # exactly these: a subclass may do something else with its weight
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
UNFOLDED = "evengrad_unfolded"


def fold_batchnorm(model: nn.Module, inputs: Any = None) -> nn.Module:
    """Returns a copy in eval mode in which every batch norm right behind a linear or convolutional layer is folded into that layer.

    W' = gamma W / sigma and b' = gamma (b - mu) / sigma + beta give the same outputs, to rounding, in less time. What follows what is
    read from one call, so functional code and control flow that depends on data are no obstacle. A layer that runs twice, that feeds
    something else, too, or that hooks change is left as it is.

    Args:
        model: Any module; it stays as it is.
        inputs: What to call it with, as `check` takes it, such that it does what it will do later. None reads the order from
            `torch.fx`, and takes what a linear layer puts out before a batch norm for (N, units).

    Returns:
        The copy; its attribute `evengrad_unfolded` names each batch norm that is left, with the reason.

    Raises:
        InputError: if inputs are None and torch.fx cannot trace the model.

    Example:
        >>> fast = eg.fold_batchnorm(model, images[:1])

    Reference: Jacob et al. 2018, https://arxiv.org/abs/1712.05877, sec. 3.2.
    """
    folded = copy.deepcopy(model).eval()
    seen = _by_fx(folded) if inputs is None else _by_call(folded, inputs)
    modules = dict(folded.named_modules())
    left = {}
    for name, norm in modules.items():
        if isinstance(norm, _BatchNorm):
            layer = modules.get(seen.before.get(name, ""))
            reason = _hindrance(name, norm, layer, seen)
            if reason is not None:
                left[name] = reason
            elif isinstance(layer, (nn.Linear, _ConvNd)):
                _fold(layer, norm)
                replace_module(folded, norm, nn.Identity().eval())
    setattr(folded, UNFOLDED, left)
    return folded


@dataclass(frozen=True)
class _Seen:
    """What one call showed: the layer right before each batch norm, how often modules ran, whom layers feed, outputs' axes."""

    before: dict[str, str]
    runs: Counter[str]
    feeds: Counter[str]
    dims: dict[str, int]


def _hindrance(name: str, norm: _BatchNorm, layer: nn.Module | None, seen: _Seen) -> str | None:
    """Why a batch norm cannot be folded, None if it can."""
    before = seen.before.get(name)
    if not seen.runs[name]:
        return "it did not run"
    if norm.running_mean is None:
        return "it has no running statistics"
    plain = type(norm) in _NORMS and type(layer) in _LAYERS
    if before is None or layer is None or not plain or layer._parameters.get("weight") is None:
        return "no linear or convolutional layer right before it"
    if seen.runs[before] > 1 or seen.runs[name] > 1:
        return f"{before if seen.runs[before] > 1 else name} runs {max(seen.runs[before], seen.runs[name])} times"
    if seen.feeds[before] > 1:
        return f"{before} feeds something else, too"
    if layer._forward_pre_hooks or layer._forward_hooks or norm._forward_pre_hooks or norm._forward_hooks:
        return f"hooks of {before}, or its own, may change what they compute"
    if isinstance(layer, nn.Linear) and seen.dims.get(before, 2) != 2:
        return f"{before} puts out sequences, whose steps it norms"
    grouped = isinstance(layer, _TRANSPOSED) and layer.groups != 1
    return "torch cannot fold into a transposed convolution with groups" if grouped else None


def _fold(layer: nn.Linear | _ConvNd, norm: _BatchNorm) -> None:
    mean, variance = (s.double() for s in (norm.running_mean, norm.running_var) if s is not None)
    gamma, beta = (norm.weight, norm.bias) if norm.affine else (torch.ones_like(mean), torch.zeros_like(mean))
    bias = None if layer.bias is None else layer.bias.double()
    norming = mean, variance, norm.eps, gamma.double(), beta.double()
    if isinstance(layer, nn.Linear):
        weight, shift = fuse_linear_bn_weights(layer.weight.double(), bias, *norming)
    else:
        weight, shift = fuse_conv_bn_weights(layer.weight.double(), bias, *norming, isinstance(layer, _TRANSPOSED))
    layer.weight, layer.bias = _like(weight, layer.weight), _like(shift, layer.weight)


def _like(value: Tensor, old: Tensor) -> nn.Parameter:
    return nn.Parameter(value.detach().to(old.dtype), requires_grad=old.requires_grad)


def _by_call(model: nn.Module, inputs: Any) -> _Seen:
    shapes = _Shapes()
    with untouched(model, seed=0), torch.no_grad(), (capture := Capture(model, shapes)):
        capture.inputs(inputs)
        outputs = set(capture.producers(call(model, inputs)))
    consumers = Counter(source for node in capture.nodes for source in node.inputs) + Counter(outputs)
    ran = [node for node in capture.nodes if node.kind == "weight" or (node.kind == "norm" and node.op == "batch_norm")]
    uses = Counter(weight for node in capture.nodes for weight in node.weights)
    seen = _Seen({}, Counter(), Counter(), {})
    for node in ran:
        own = f"{node.module}.weight" if node.module else "weight"
        if node.kind == "weight":
            seen.runs[node.module] = uses[own]  # also by another module, or by the model itself
            seen.feeds[node.module] += consumers[node.index]
            seen.dims[node.module] = shapes.dims[node.index]
        else:
            seen.runs[node.module] += 1
            if capture.nodes[node.inputs[0]].kind == "weight":
                seen.before[node.module] = capture.nodes[node.inputs[0]].module
    return seen


class _Shapes:
    """Notes how many axes each weight operation's output has."""

    def __init__(self) -> None:
        self.dims: dict[int, int] = {}

    def weight_output(self, node: Node, output: Tensor) -> None:
        self.dims[node.index] = output.dim()

    def activation_input(self, node: Node, value: Tensor) -> None:
        pass


def _by_fx(model: nn.Module) -> _Seen:
    try:
        nodes = list(fx.Tracer().trace(model).nodes)
    except Exception as error:
        raise InputError(
            f"torch.fx cannot tell what follows what in this model ({type(error).__name__}: {error}); give inputs to call it with: "
            f"fold_batchnorm(model, batch)"
        ) from error
    calls = [node for node in nodes if node.op == "call_module"]
    read = Counter(str(node.target).rpartition(".")[0] for node in nodes if node.op == "get_attr")  # a weight used from outside
    runs = Counter(str(node.target) for node in calls) + read
    feeds = Counter({str(node.target): len(node.users) for node in calls})
    return _Seen(dict(_pairs(calls)), runs, feeds, {})


def _pairs(calls: list[fx.Node]) -> Iterator[tuple[str, str]]:
    for node in calls:
        source = node.args[0] if node.args else None
        if isinstance(source, fx.Node) and source.op == "call_module":
            yield str(node.target), str(source.target)
