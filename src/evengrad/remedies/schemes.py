"""A model -> the same model with new weights; the one call that walks every layer (the rest of this package's initialisers by name)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from evengrad.errors import InputError, unknown
from evengrad.remedies.fills import OPTIONS, SCHEMES, fill_, variance_scaling_
from evengrad.remedies.gains import gain
from evengrad.remedies.plans import plan_of as plan
from evengrad.remedies.plans import plans, run_plan
from evengrad.trace.adapters import adapted, original
from evengrad.trace.batch import call
from evengrad.trace.capture import Capture
from evengrad.trace.isolation import untouched
from evengrad.trace.structure import Structure, read_structure

__all__ = ["SCHEMES", "fill_", "gain", "initialize_", "plan", "plans", "run_plan", "traced", "variance_scaling_"]


def initialize_(model: nn.Module, scheme: str = "auto", *, inputs: Any = None, seed: int | None = None, **options: Any) -> nn.Module:
    """Gives every layer the initialiser that matches the activation behind it, in place, and zero biases.

    None, tanh, logistic and softmax get Glorot, ReLU with its variants and ELU get He, SELU gets LeCun (all normal). Which
    activation follows is read from one traced call, so functional activations and in-place operations count too. Recurrent layers
    get Glorot for their inputs, an orthogonal matrix for each gate's states, and forget gates that begin open. Norms, and embeddings
    that no output shares, are left alone.

    Args:
        model: Any module.
        scheme: `auto`, or the name of one initialiser for all layers: `glorot_normal`, `glorot_uniform`, `he_normal`, `he_uniform`,
            `lecun_normal`, `lecun_uniform`, `variance_scaling`, `orthogonal`, `delta_orthogonal`, `uniform`, `normal` or `constant`.
        inputs: What to call the model with; guessed from the first layer if None.
        seed: Seed of the drawing; None draws from torch's default generator.
        **options: Options of the scheme: `scale`, `mode`, `distribution` of `variance_scaling` (mode fan_in, fan_out or fan_avg;
            distribution normal, truncated or uniform); `low`, `high` of `uniform`; `std` of `normal`; `value` of `constant`.

    Raises:
        InputError: if the model's input cannot be guessed and none is given, or the scheme takes no such option.
        UnknownNameError: for an unknown scheme.

    Example:
        >>> eg.initialize_(model, "variance_scaling", scale=2.0, mode="fan_avg", distribution="uniform")

    Reference: Glorot & Bengio 2010; He et al. 2015; Klambauer et al. 2017.
    """
    if scheme not in {"auto", *SCHEMES}:
        raise unknown("initialiser", scheme, ("auto", *SCHEMES))
    if wrong := set(options) - set(OPTIONS.get(scheme, ())):
        raise InputError(
            f"the initialiser {scheme!r} takes {', '.join(OPTIONS.get(scheme, ())) or 'no option'}; got {', '.join(sorted(wrong))}"
        )
    network = adapted(model)
    structure = traced(network, _guess_inputs(network) if inputs is None else inputs)
    generator = torch.Generator().manual_seed(int(torch.randint(2**31, ())) if seed is None else seed)
    run_plan(network, plans(structure.layers, scheme, **options), generator)
    return model


def traced(model: nn.Module, inputs: Any) -> Structure:
    """Returns the rows of a model, seen in one call that leaves it as it was."""
    with untouched(model, seed=0), torch.no_grad(), (capture := Capture(model)):
        capture.inputs(inputs)
        return read_structure(capture, call(model, inputs))


def _guess_inputs(model: nn.Module) -> Tensor:
    """Two samples that fit the first layer, or an error that asks for inputs."""
    if isinstance(shape := getattr(original(model), "input_shape", None), tuple) and shape[:1] == (None,):  # a Keras model knows
        return torch.zeros(2, *(n or 8 for n in shape[1:]))
    for module in model.modules():
        where = next((p.device for p in module.parameters()), None)
        if isinstance(module, nn.Linear):
            return torch.zeros(2, module.in_features, device=where)
        if isinstance(module, nn.Embedding):
            return torch.zeros(2, 8, dtype=torch.int64, device=where)
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            return torch.zeros(2, module.in_channels, *([32] * len(module.kernel_size)), device=where)
        if isinstance(module, nn.RNNBase):
            return torch.zeros(2, 8, module.input_size, device=where)
    raise InputError("the model's input cannot be guessed from its first layer; give it: initialize_(model, inputs=batch)")
