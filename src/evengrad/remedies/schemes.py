"""name of an initialiser and fans -> weights filled in place; torch.nn.init does the drawing.

Fans come from the traced operation, not from the shape, so that kernels laid out [in, out] and grouped convolutions are right.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evengrad.errors import InputError, unknown
from evengrad.signals.scale import matching_scheme
from evengrad.trace.batch import call
from evengrad.trace.capture import Capture
from evengrad.trace.isolation import untouched
from evengrad.trace.structure import Structure, read_structure
from evengrad.types import Layer

_TRUNCATED = 0.87962566103423978  # standard deviation of a unit normal cut at two: Keras, JAX
_VARIANCE = {  # name: scale, fan, distribution
    "glorot_normal": (1.0, "fan_avg", "normal"),
    "glorot_uniform": (1.0, "fan_avg", "uniform"),
    "he_normal": (2.0, "fan_in", "normal"),
    "he_uniform": (2.0, "fan_in", "uniform"),
    "lecun_normal": (1.0, "fan_in", "normal"),
    "lecun_uniform": (1.0, "fan_in", "uniform"),
}
SCHEMES = (*_VARIANCE, "orthogonal", "delta_orthogonal", "uniform", "normal", "constant")


def variance_scaling_(
    weight: Tensor,
    *,
    scale: float = 1.0,
    mode: str = "fan_in",
    distribution: str = "normal",
    fans: tuple[int, int],
    generator: torch.Generator | None = None,
) -> Tensor:
    """Fills `weight` in place with variance `scale / fan`.

    Args:
        weight: Tensor of any shape.
        scale: Variance times fan: 1 for Glorot and LeCun, 2 for He.
        mode: `fan_in`, `fan_out` or `fan_avg`.
        distribution: `normal`, `truncated` (cut at two standard deviations, variance kept) or `uniform`.
        fans: (fan_in, fan_out) of the operation.
        generator: Source of random numbers.

    Raises:
        UnknownNameError: for another mode or distribution.

    Reference: Glorot & Bengio 2010; He et al. 2015; Klambauer et al. 2017.
    """
    modes = {"fan_in": fans[0], "fan_out": fans[1], "fan_avg": sum(fans) / 2}
    if mode not in modes:
        raise unknown("mode", mode, modes)
    std = math.sqrt(scale / max(1.0, modes[mode]))
    with torch.no_grad():
        if distribution == "normal":
            return nn.init.normal_(weight, 0.0, std, generator=generator)
        if distribution == "uniform":
            return nn.init.uniform_(weight, -math.sqrt(3) * std, math.sqrt(3) * std, generator=generator)
        if distribution == "truncated":
            cut = std / _TRUNCATED
            return nn.init.trunc_normal_(weight, 0.0, cut, -2 * cut, 2 * cut, generator=generator)
    raise unknown("distribution", distribution, ("normal", "truncated", "uniform"))


def fill_(
    weight: Tensor, scheme: str, *, fans: tuple[int, int], gain: float = 1.0, generator: torch.Generator | None = None, **options: Any
) -> Tensor:
    """Fills `weight` in place by the initialiser called `scheme`; random numbers are drawn on the CPU, so every device gets the same.

    Args:
        weight: Tensor of any shape; (out, in, k...) for `delta_orthogonal`.
        scheme: One of `SCHEMES`.
        fans: (fan_in, fan_out) of the operation.
        gain: Factor on the standard deviation.
        generator: CPU generator.
        **options: `low`, `high` of `uniform`; `std` of `normal`; `value` of `constant`.

    Raises:
        UnknownNameError: for another scheme.
    """
    host = torch.empty(weight.shape, dtype=torch.float32)
    if scheme in _VARIANCE:
        scale, mode, distribution = _VARIANCE[scheme]
        variance_scaling_(host, scale=scale * gain**2, mode=mode, distribution=distribution, fans=fans, generator=generator)
    elif scheme == "orthogonal":
        nn.init.orthogonal_(host, gain, generator=generator)
    elif scheme == "delta_orthogonal":
        _delta_orthogonal_(host, gain, generator)
    elif scheme == "uniform":
        nn.init.uniform_(host, options.get("low", 0.0), options.get("high", 1.0), generator=generator)
    elif scheme == "normal":
        nn.init.normal_(host, 0.0, options.get("std", 1.0), generator=generator)
    elif scheme == "constant":
        nn.init.constant_(host, options.get("value", 0.0))
    else:
        raise unknown("initialiser", scheme, SCHEMES)
    with torch.no_grad():
        return weight.copy_(host)


def _delta_orthogonal_(weight: Tensor, gain: float, generator: torch.Generator | None) -> None:
    """An orthogonal matrix at the centre of the kernel, zero elsewhere (Xiao et al. 2018)."""
    if weight.dim() < 3 or weight.shape[0] < weight.shape[1]:
        raise InputError(f"delta_orthogonal needs a kernel (out, in, k...) with out >= in; got {tuple(weight.shape)}")
    flat = int(np.ravel_multi_index([k // 2 for k in weight.shape[2:]], weight.shape[2:]))
    weight.zero_()
    weight.flatten(2)[:, :, flat] = nn.init.orthogonal_(torch.empty(weight.shape[:2]), gain, generator=generator)


def gain(activation: str | Callable[[Tensor], Tensor]) -> float:
    """Returns 1 / sqrt(E[phi(z)^2]) for z ~ N(0, 1): the factor on the weights that keeps the forward variance, for any activation.

    torch's `calculate_gain` knows five activations and gives tanh 5/3; this is the exact integral (tanh 1.5925, GELU 1.5335).
    It keeps the variance, it is not critical: for very deep tanh networks the gain is 1.

    Args:
        activation: A function of a tensor, or its name in torch (`"gelu"`, `"tanh"`).

    Raises:
        UnknownNameError: if torch has no such function.

    Example:
        >>> round(gain("relu"), 4)
        1.4142

    Reference: He et al. 2015, generalised by Gauss-Hermite quadrature.
    """
    function = _function(activation) if isinstance(activation, str) else activation
    nodes, weights = np.polynomial.hermite_e.hermegauss(201)
    z = torch.from_numpy(nodes)
    second_moment = float((function(z).double().square() * torch.from_numpy(weights)).sum() / math.sqrt(2 * math.pi))
    if not second_moment > 0:
        raise InputError(f"the activation has no second moment under a unit normal: E[phi(z)^2] = {second_moment}")
    return float(second_moment**-0.5)


def _function(name: str) -> Callable[[Tensor], Tensor]:
    for home in (nn.functional, torch, torch.special):
        found = getattr(home, name, None)
        if callable(found):
            return found  # type: ignore[no-any-return]
    raise unknown("activation", name, ("elu", "gelu", "mish", "relu", "selu", "sigmoid", "silu", "softplus", "softsign", "tanh"))


def plan(
    layer: Layer, scheme: str = "auto", activation: str | None = None, options: dict[str, float] | None = None
) -> dict[str, Any] | None:
    """Returns how to fill one row's weight, as plain data, or None where no scheme is meant for it (RNN levels, norms, embeddings).

    Args:
        layer: The row.
        scheme: `auto` for the initialiser that matches the activation behind the row, else one of `SCHEMES`.
        activation: The activation that will follow, if it is about to change.
        options: Options of that activation.
    """
    if layer.kind not in {"linear", "conv", "conv_transpose", "attention"} or not layer.fan_in:
        return None
    follows = activation or layer.activation
    slope = (options if activation else layer.activation_options) or {}
    fan_out = layer.fan_out // 3 if layer.kind == "attention" and layer.name.endswith("in_proj") else layer.fan_out
    name = matching_scheme(follows) if scheme == "auto" else scheme
    factor = 1.0 / math.sqrt(1.0 + slope.get("negative_slope", 0.0) ** 2) if name.startswith("he_") else 1.0
    if name == "orthogonal" and matching_scheme(follows) == "he_normal":
        factor = math.sqrt(2.0)  # He et al. 2015: half of the signal is cut
    return {"weight": layer.weight, "bias": layer.bias, "scheme": name, "fans": [layer.fan_in, fan_out], "gain": factor}


def run_plan(model: nn.Module, plans: list[dict[str, Any]], generator: torch.Generator) -> None:
    """Fills the weights that the plans name, and sets their biases to zero."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for item in plans:
        if item["weight"] not in parameters:
            raise InputError(f"the model has no parameter {item['weight']!r}: this change was proposed for another model")
        fill_(parameters[item["weight"]], item["scheme"], fans=tuple(item["fans"]), gain=item["gain"], generator=generator)
        bias = parameters.get(item["bias"] or "")
        if bias is not None:
            nn.init.zeros_(bias)


def initialize_(model: nn.Module, scheme: str = "auto", *, inputs: Any = None, seed: int | None = None) -> nn.Module:
    """Gives every layer the initialiser that matches the activation behind it, in place, and zero biases.

    None, tanh, logistic and softmax get Glorot, ReLU with its variants and ELU get He, SELU gets LeCun (all normal). Which
    activation follows is read from one traced call, so functional activations and in-place operations count too.

    Args:
        model: Any module.
        scheme: `auto`, or the name of one initialiser for all layers.
        inputs: What to call the model with; guessed from the first layer if None.
        seed: Seed of the drawing; None draws from torch's default generator.

    Raises:
        InputError: if the model's input cannot be guessed and none is given.
        UnknownNameError: for an unknown scheme.

    Reference: Glorot & Bengio 2010; He et al. 2015; Klambauer et al. 2017.
    """
    if scheme not in {"auto", *SCHEMES}:
        raise unknown("initialiser", scheme, ("auto", *SCHEMES))
    structure = _trace(model, _guess_inputs(model) if inputs is None else inputs)
    generator = torch.Generator().manual_seed(int(torch.randint(2**31, ())) if seed is None else seed)
    run_plan(model, [p for layer in structure.layers if (p := plan(layer, scheme))], generator)
    return model


def _trace(model: nn.Module, inputs: Any) -> Structure:
    with untouched(model, seed=0), torch.no_grad(), (capture := Capture(model)):
        capture.inputs(inputs)
        return read_structure(capture, call(model, inputs))


def _guess_inputs(model: nn.Module) -> Tensor:
    """Two samples that fit the first layer, or an error that asks for inputs."""
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
