"""A model of another framework -> a torch module whose parameters and modules have names; any other model as it is."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from evengrad.errors import InputError

_NUMBERS = "object_name_uids"  # of Keras: kind of object -> how many there are


def adapted(model: Any) -> Any:
    """Returns what the tracer can look at: the model itself, or, for a Keras model, a module around it that shares its weights.

    Raises:
        InputError: if a Keras model runs on another backend than torch, or has no weights yet.
    """
    keras = sys.modules.get("keras")
    if keras is None or not isinstance(model, keras.layers.Layer):
        return model
    backend = keras.backend.backend()
    if backend != "torch" or not isinstance(model, nn.Module):
        raise InputError(
            f"the Keras model runs on the backend {backend!r}; expected 'torch'. Set KERAS_BACKEND=torch in the environment before Keras "
            f"is imported"
        )
    from evengrad.trace.adapters.keras import KerasModel

    return KerasModel.of(model)


@contextmanager
def names_from_one() -> Iterator[None]:
    """Has Keras number the layers that are made inside from the first, so that a model that is built twice has the same names twice."""
    if "keras" not in sys.modules:
        yield
        return
    from keras.src.backend.common import global_state

    held = global_state.get_global_attribute(_NUMBERS)
    global_state.set_global_attribute(_NUMBERS, defaultdict(int))
    try:
        yield
    finally:
        global_state.set_global_attribute(_NUMBERS, held)


def laid_out(model: nn.Module, name: str, parameter: Tensor) -> Tensor:
    """Returns a weight as torch lays it out, a view of itself: Keras keeps a convolution's as (k..., in, out), torch as (out, in, k...)."""
    if not _turned(model, name, parameter):
        return parameter
    return parameter.permute(-1, -2, *range(parameter.dim() - 2))


def stored_axis(model: nn.Module, name: str, parameter: Tensor, axis: int) -> int:
    """Returns which axis of a weight as it is kept is `axis` (0 or 1) of it as torch lays it out."""
    return parameter.dim() - 1 - axis if _turned(model, name, parameter) else axis


def _turned(model: nn.Module, name: str, parameter: Tensor) -> bool:
    return parameter.dim() > 2 and name.endswith("kernel") and original(model) is not model


def original(model: nn.Module) -> nn.Module:
    """Returns what the user made: the Keras model inside, or the model itself."""
    return getattr(model, "evengrad_original", model)
