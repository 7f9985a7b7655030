"""K networks of one structure -> one network whose parameters, buffers, inputs and outputs have a leading runs axis; and back."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils._pytree import tree_map

from evengrad.errors import InputError
from evengrad.lab.engine.layers import hashed, runs_layer
from evengrad.lab.engine.recurrent import runs_recurrent
from evengrad.lab.models.hashing import HashDropout

_DROPOUTS = (HashDropout, nn.modules.dropout._DropoutNd)
_ANY_AXES = {  # containers, and functions of each element
    nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.Identity,
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.LogSigmoid, nn.Tanh, nn.Tanhshrink,
    nn.Softplus, nn.Softsign, nn.Softshrink, nn.Hardshrink, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.Threshold,
}  # fmt: skip


def stack(modules: Sequence[nn.Module]) -> nn.Module:
    """Makes one network of many: input (runs, batch, *sample), output (runs, batch, *output), every parameter (runs, *shape).

    torch's layers are replaced by their batched forms, and containers that read trailing axes only (`nn.Sequential`, those with
    `trailing_axes = True`) keep their forward. Every other module is mapped over the runs by `torch.func.vmap`. Names of parameters,
    weights that are shared, the mode and `requires_grad` stay. Dropouts of torch become `HashDropout`, which `set_step` keys.

    Args:
        modules: Networks of equal structure; their weights are copied.

    Raises:
        InputError: if there is none, or their structures differ. When called, if a module cannot be mapped.
    """
    modules = list(modules)
    if not modules:
        raise InputError("no network was given: expected at least one module")
    _check_equal(modules)
    stacker = _Stacker()
    stacker.add(modules)
    return stacker.copy_of(modules[0])


def unstack(batched: nn.Module, k: int, like: nn.Module) -> nn.Module:
    """Returns the k-th network as a copy of `like` with that network's parameters and buffers.

    Args:
        batched: What `stack` returned.
        k: Which network.
        like: One of the networks that were stacked, or one that is built like them.
    """
    single = copy.deepcopy(like)
    with torch.no_grad():
        for name, p in single.named_parameters():
            p.copy_(batched.get_parameter(name)[k])
        for name, buffer in single.named_buffers():
            buffer.copy_(batched.get_buffer(name)[k])
    return single


def taken(batched: nn.Module, places: Sequence[int]) -> nn.Module:
    """Returns a copy of what `stack` returned with these networks only, in this order."""
    memo: dict[int, Any] = {id(p): nn.Parameter(p.detach()[places], requires_grad=p.requires_grad) for p in batched.parameters()}
    memo |= {id(buffer): buffer[places] for buffer in batched.buffers()}
    copied: nn.Module = copy.deepcopy(batched, memo)
    for part in copied.modules():
        if isinstance(part, MappedRuns):
            part.runs = len(places)
    return copied


class MappedRuns(nn.Module):
    """A module run for each network apart by `torch.func.vmap`; its parameters, buffers and children have the names that they had."""

    tree: nn.Module

    def __init__(self, tree: nn.Module, runs: int) -> None:
        super().__init__()
        self._parameters, self._buffers, self._modules = tree._parameters, tree._buffers, tree._modules
        self._non_persistent_buffers_set = tree._non_persistent_buffers_set
        self.training = tree.training
        self.runs = runs
        object.__setattr__(self, "tree", tree)  # not a child: it is this module under another forward

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self.tree.training = self.training
        state = {**dict(self.tree.named_parameters()), **dict(self.tree.named_buffers())}
        if self.runs == 1:
            return tree_map(lambda out: out.unsqueeze(0), self._one(*(_first(part) for part in (state, args, kwargs))))
        try:
            return vmap(self._one, randomness="different")(state, args, kwargs)
        except (RuntimeError, ValueError) as error:
            self._one(*(_first(part) for part in (state, args, kwargs)))  # if a network alone fails as well, its error is the better one
            raise InputError(
                f"{type(self.tree).__name__} cannot be run as {self.runs} networks at once ({error}); train them one at a time: chunk=1"
            ) from error

    def _one(self, state: dict[str, Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return functional_call(self.tree, state, args, kwargs)


class _Stacker:
    """Finds what takes the place of each tensor and module of the first network; a copy of that network then holds these."""

    def __init__(self) -> None:
        self._tensors: dict[int, Tensor] = {}
        self._modules: dict[int, nn.Module] = {}
        self._kept: list[list[nn.Module]] = []  # an id is a name for as long as its object lives

    def add(self, nodes: list[nn.Module]) -> None:
        """Takes in the same module of every network, and what is in it."""
        first = nodes[0]
        if id(first) in self._modules:
            return
        if (layer := runs_layer(first) or runs_recurrent(first)) is not None:
            self._stack(nodes)
            self._fill(layer, first)
            self._modules[id(first)] = layer
        elif hashed(first) is not first:
            self._kept.append([hashed(node) for node in nodes])
            self.add(self._kept[-1])
            self._modules[id(first)] = self.copy_of(self._kept[-1][0])
        elif type(first) in _ANY_AXES or getattr(type(first), "trailing_axes", False):
            self._stack(nodes)
            for name in first._modules:
                if first._modules[name] is not None:
                    self.add([node.get_submodule(name) for node in nodes])
        else:
            self._modules[id(first)] = self._mapped(nodes)

    def copy_of(self, module: nn.Module) -> nn.Module:
        """Copies the first network, or a part of it, with the replacements in it."""
        memo: dict[int, Any] = {**self._tensors, **self._modules}
        result: nn.Module = copy.deepcopy(module, memo)
        return result

    def _mapped(self, nodes: list[nn.Module]) -> nn.Module:
        inner = _Stacker()  # what stands in here as torch's own may stand elsewhere as its batched form
        inner._tensors = self._tensors  # but weights that are shared stay shared
        for parts in zip(*(node.modules() for node in nodes), strict=True):
            inner._stack(list(parts))
            if hashed(parts[0]) is not parts[0]:
                inner.add(list(parts))
        return MappedRuns(inner.copy_of(nodes[0]), len(nodes))

    def _stack(self, nodes: list[nn.Module]) -> None:
        for name, p in nodes[0]._parameters.items():
            if p is not None and id(p) not in self._tensors:
                stacked = torch.stack([node.get_parameter(name).detach() for node in nodes])
                self._tensors[id(p)] = nn.Parameter(stacked, requires_grad=p.requires_grad)
        for name, buffer in nodes[0]._buffers.items():
            if buffer is not None and id(buffer) not in self._tensors:
                self._tensors[id(buffer)] = torch.stack([node.get_buffer(name) for node in nodes])

    def _fill(self, layer: nn.Module, like: nn.Module) -> None:
        for name, p in like._parameters.items():
            layer.register_parameter(name, None if p is None else cast(nn.Parameter, self._tensors[id(p)]))
        for name, buffer in like._buffers.items():
            layer.register_buffer(name, None if buffer is None else self._tensors[id(buffer)])


def _check_equal(modules: list[nn.Module]) -> None:
    first = _structure(modules[0])
    for k, module in enumerate(modules[1:], 1):
        for expected, got in zip_longest(first, _structure(module)):
            if expected != got:
                raise InputError(
                    f"networks of one structure can be stacked; expected {expected} as in the first one, got {got} in number {k}"
                )


def _structure(module: nn.Module) -> list[str]:
    """Every module with its settings and shapes, but for the rates of dropouts; then the parameters, so that sharing shows."""
    found = []
    for name, part in module.named_modules():
        settings = "" if isinstance(part, _DROPOUTS) else f"{part.extra_repr()} {_plain(part)}"
        found.append(f"{name or 'network'}: {type(part).__qualname__}({settings})")
    return found + [f"{name}: {tuple(p.shape)} {p.dtype}" for name, p in module.named_parameters()]


def _plain(module: nn.Module) -> str:
    """What a module keeps as plain values, such as an attention's number of heads."""
    kept = {
        k: v for k, v in vars(module).items() if isinstance(v, (bool, int, float, str, tuple)) and not k.startswith("_") and k != "training"
    }
    return ", ".join(f"{k}={v}" for k, v in sorted(kept.items()))


def _first(tree: Any) -> Any:
    return tree_map(lambda leaf: leaf[0] if isinstance(leaf, Tensor) else leaf, tree)
