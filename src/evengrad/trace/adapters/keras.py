"""A Keras model on the torch backend -> a torch module that calls it, with its layers and weights under the names that Keras gives them.

Keras hides layers in lists, so that torch finds none of them, and puts statistics and seeds among the parameters.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from types import ModuleType
from typing import Any

import keras
import torch
from keras.src.saving.keras_saveable import KerasSaveable
from keras.src.utils.tracking import TrackedDict, TrackedList, TrackedSet
from torch import Tensor, nn
from torch.nn.modules.module import _IncompatibleKeys

from evengrad.errors import InputError

_HELD = {"_torch_params", "_functional"}  # children of a Keras layer that hold what has a name already
_COPIED: tuple[Any, ...] = (TrackedList, TrackedDict, TrackedSet, KerasSaveable, keras.random.SeedGenerator)  # none copies itself as it is


class KerasModel(nn.Module):
    """A Keras model as the tracer and the remedies see a model: `dense`, or `block/dense` inside a block, owns `dense.kernel`.

    It shares layers and weights with the model that it was made of. Weights that Keras never trains (moving averages, seeds) are its
    buffers. It is called in the mode that torch says: `train()` and `eval()` decide what Keras calls `training`. Any other attribute is
    the Keras model's own.
    """

    evengrad_original: nn.Module

    @classmethod
    def of(cls, model: Any) -> KerasModel:
        """Wraps a model.

        Raises:
            InputError: if it has no weights yet.
        """
        if not model.built or not model.weights:
            raise InputError(
                f"the Keras model {model.name!r} has no weights yet: expected a model that knows the shape of its input. Give it "
                f"keras.Input(shape=...) as its first layer, or call it once on a batch"
            )
        return cls(model)

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.__dict__["evengrad_original"] = model
        self.__dict__["_layers_of"] = dict(_layers(model))
        self._modules.update(self._layers_of)
        self._parameters.update({v.name: v.value for v in model._trainable_variables})
        for name, layer in (("", model), *self._layers_of.items()):
            self._buffers.update({f"{name}/{leaf}".lstrip("/"): value for leaf, value in _state(layer)})

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the Keras model; several inputs of a functional model come as arguments or by name."""
        model: Any = self.evengrad_original
        options = {k: kwargs.pop(k) for k in ("training", "mask") if k in kwargs}
        if model._call_has_training_arg:
            options.setdefault("training", self.training)
        if hasattr(model, "_inputs_struct"):
            args = (kwargs,) if kwargs else (list(args),) if len(args) > 1 else args
            kwargs = {}
        with self._replaced():
            return model(*args, **kwargs, **options)

    @contextmanager
    def _replaced(self) -> Iterator[None]:
        """Lets a module that was put in the place of a layer run instead of it."""
        with ExitStack() as stack:
            for name, layer in self._layers_of.items():
                if self._modules[name] is not layer:
                    layer.__dict__["forward"] = partial(_instead, layer, self._modules[name])
                    stack.callback(layer.__dict__.pop, "forward", None)
            yield

    def named_modules(self, memo: set[Any] | None = None, prefix: str = "", remove_duplicate: bool = True) -> Iterator[tuple[str, Any]]:
        """Yields this module, every Keras layer under its path, and torch modules that hang in layers."""
        memo = set() if memo is None else memo
        for name, module in _walk(self, prefix):
            if module not in memo:
                yield name, module
                if remove_duplicate:
                    memo.add(module)

    def named_parameters(self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True) -> Iterator[tuple[str, Any]]:
        """Yields the weights that Keras trains, each as `layer.weight`, also those that are frozen."""
        seen: set[int] = set()
        for owner, module in self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate):
            for leaf, parameter in _own(module):
                if not (remove_duplicate and id(parameter) in seen):
                    seen.add(id(parameter))
                    yield f"{owner}.{leaf}" if owner else leaf, parameter

    def get_parameter(self, target: str) -> Any:
        """Returns a weight by its name here."""
        found = dict(self.named_parameters(remove_duplicate=False)).get(target)
        if found is None:
            raise AttributeError(f"the model has no parameter {target!r}")
        return found

    def state_dict(self, *, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        """Returns weights and state under the names that they have here."""
        found = [*self.named_parameters(remove_duplicate=False), *self.named_buffers(remove_duplicate=False)]
        return OrderedDict((prefix + name, tensor if keep_vars else tensor.detach()) for name, tensor in found)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Takes the values that `state_dict` returned.

        Raises:
            InputError: if a name is missing or unknown, unless `strict` is False.
        """
        own = self.state_dict()
        missing, unknown = [n for n in own if n not in state_dict], [n for n in state_dict if n not in own]
        if strict and (missing or unknown):
            raise InputError(f"the state is of another model: missing {missing[:3]}, unknown {unknown[:3]}")
        with torch.no_grad():
            for name in own.keys() & state_dict.keys():
                own[name].copy_(state_dict[name])
        return _IncompatibleKeys(missing, unknown)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "evengrad_original" not in self.__dict__:
                raise
            return getattr(self.__dict__["evengrad_original"], name)

    def __reduce__(self) -> Any:
        return KerasModel.of, (self.evengrad_original,)

    def __deepcopy__(self, memo: dict[int, Any]) -> KerasModel:
        """Copies layers as they are: Keras makes a model anew from its configuration, without hooks or classes it does not know."""
        for kind in _COPIED:
            kind.__deepcopy__ = _copied
        try:
            fresh: KerasModel = _copied(self, memo)
            return fresh
        finally:
            for kind in _COPIED:
                del kind.__deepcopy__


def _layers(model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields every layer inside with its path from the model down, in Keras's order."""
    for layer in model._flatten_layers(include_self=False, recursive=False):
        if layer is getattr(model, "_functional", None):
            continue
        name = f"{prefix}{layer.name}".replace(".", "_")
        yield name, layer
        yield from _layers(layer, f"{name}/")


def _state(layer: Any) -> Iterator[tuple[str, Tensor]]:
    """Yields what a layer itself updates: moving averages, and the seeds of its random numbers."""
    yield from ((v.name, v.value) for v in layer._non_trainable_variables)
    yield from ((generator.name, generator.state.value) for generator in layer._seed_generators)


def _own(module: nn.Module) -> Iterator[tuple[str, Any]]:
    if isinstance(module, keras.layers.Layer):
        yield from ((v.name, v.value) for v in module._trainable_variables)
    else:
        yield from ((name, p) for name, p in module._parameters.items() if p is not None)


def _walk(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    yield name, module
    inside_keras = isinstance(module, keras.layers.Layer)
    for key, child in module._modules.items():
        if child is not None and not (inside_keras and (key in _HELD or isinstance(child, keras.layers.Layer))):
            yield from _walk(child, f"{name}.{key}" if name else key)


def _instead(layer: Any, fresh: Any, *args: Any, **kwargs: Any) -> Any:
    stand_in = layer.__dict__.pop("forward")
    try:
        return fresh(*args, **(kwargs if isinstance(fresh, keras.layers.Layer) else {}))
    finally:
        layer.__dict__["forward"] = stand_in


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    """Copies an object item by item and attribute by attribute; what wraps a layer's `build` would go on to build the old one."""
    kind: Any = type(value)
    fresh = memo[id(value)] = kind.__new__(kind) if issubclass(kind, _COPIED[:3]) else object.__new__(kind)
    kept = {k: v for k, v in vars(value).items() if not hasattr(v, "__wrapped__")}
    fresh.__dict__.update({k: v if isinstance(v, ModuleType) else copy.deepcopy(v, memo) for k, v in kept.items()})
    if isinstance(value, TrackedList):
        list.extend(fresh, [copy.deepcopy(v, memo) for v in value])
    elif isinstance(value, TrackedDict):
        dict.update(fresh, {k: copy.deepcopy(v, memo) for k, v in value.items()})
    elif isinstance(value, TrackedSet):
        set.update(fresh, {copy.deepcopy(v, memo) for v in value})
    return fresh
