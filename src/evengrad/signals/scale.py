"""Layer -> the initialiser that matches the activation behind it, and the scale of weights that it gives."""

from __future__ import annotations

import math

from evengrad.types import Layer, Trace

OTHER_SCHEME = 2.6
"""Factor within which initialisers that are in use differ: He's before tanh, torch's own before ReLU."""
_SCHEMES = {"selu": "lecun_normal"} | dict.fromkeys(
    ("relu", "relu6", "leaky_relu", "rrelu", "prelu", "elu", "celu", "gelu", "gelu_tanh", "silu", "mish", "hardswish"), "he_normal"
)


def matching_scheme(activation: str) -> str:
    """Returns the initialiser for a layer that this activation follows: He for ReLU and its variants, LeCun for SELU, else Glorot.

    Reference: He et al. 2015; Klambauer et al. 2017; Glorot & Bengio 2010.
    """
    return _SCHEMES.get(activation, "glorot_normal")


def matching_rms(layer: Layer) -> float | None:
    """Returns the RMS of weights under the matching initialiser, or None where the fans or the activation are unknown."""
    if layer.activation == "unknown" or not layer.fan_in or not layer.fan_out:
        return None
    scheme = matching_scheme(layer.activation)
    if scheme == "he_normal":
        slope = layer.activation_options.get("negative_slope", 0.0)
        return math.sqrt(2.0 / ((1.0 + slope * slope) * layer.fan_in))
    return math.sqrt(1.0 / layer.fan_in) if scheme == "lecun_normal" else math.sqrt(2.0 / (layer.fan_in + layer.fan_out))


def weight_rms(trace: Trace, row: int, index: int = 0) -> float:
    """Returns the RMS of one row's weights at sampled step number `index`."""
    return float(trace.column("weight_norm")[index, row]) / math.sqrt(max(1.0, _weights(trace.layers[row])))


def units(layer: Layer) -> int:
    """Returns how many units or channels a row puts out: the fan-out of a convolution counts positions too."""
    if layer.kind == "conv" and layer.fan_in:
        return max(1, round(_weights(layer) / layer.fan_in))
    return layer.fan_in if layer.kind == "embedding" else layer.fan_out


def _weights(layer: Layer) -> float:
    if layer.kind == "conv":
        return layer.parameters * layer.fan_in / (layer.fan_in + (layer.bias is not None)) if layer.fan_in else 0.0
    return float(layer.fan_in * layer.fan_out)
