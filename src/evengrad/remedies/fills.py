"""name of an initialiser and fans -> weights filled in place; torch.nn.init does the drawing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evengrad.errors import InputError, unknown

_TRUNCATED = 0.87962566103423978  # standard deviation of a unit normal cut at two: Keras, JAX
_VARIANCE = {  # name: scale, fan, distribution
    "glorot_normal": (1.0, "fan_avg", "normal"),
    "glorot_uniform": (1.0, "fan_avg", "uniform"),
    "he_normal": (2.0, "fan_in", "normal"),
    "he_uniform": (2.0, "fan_in", "uniform"),
    "lecun_normal": (1.0, "fan_in", "normal"),
    "lecun_uniform": (1.0, "fan_in", "uniform"),
}
SCHEMES = (*_VARIANCE, "variance_scaling", "orthogonal", "delta_orthogonal", "uniform", "normal", "constant")
OPTIONS = {"variance_scaling": ("scale", "mode", "distribution"), "uniform": ("low", "high"), "normal": ("std",), "constant": ("value",)}


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
    weight: Tensor,
    scheme: str,
    *,
    fans: tuple[int, int],
    gain: float = 1.0,
    blocks: int = 1,
    generator: torch.Generator | None = None,
    **options: Any,
) -> Tensor:
    """Fills `weight` in place by the initialiser called `scheme`; random numbers are drawn on the CPU, so every device gets the same.

    Args:
        weight: Tensor of any shape; (out, in, k...) for `delta_orthogonal`.
        scheme: One of `SCHEMES`.
        fans: (fan_in, fan_out) of the operation.
        gain: Factor on the standard deviation.
        blocks: Parts of the first axis that are weights of their own: gates, groups, queries with keys and values.
        generator: CPU generator.
        **options: `low`, `high` of `uniform`; `std` of `normal`; `value` of `constant`; `scale`, `mode`, `distribution` of
            `variance_scaling`.

    Raises:
        UnknownNameError: for another scheme.
        InputError: for a kernel that `delta_orthogonal` cannot fill.
    """
    host = torch.empty(weight.shape, dtype=torch.float32)
    if scheme in _VARIANCE:
        scale, mode, distribution = _VARIANCE[scheme]
        variance_scaling_(host, scale=scale * gain**2, mode=mode, distribution=distribution, fans=fans, generator=generator)
    elif scheme == "variance_scaling":
        variance_scaling_(host, **{**options, "scale": options.get("scale", 1.0) * gain**2}, fans=fans, generator=generator)
    elif scheme == "orthogonal":
        for part in host.chunk(blocks):
            nn.init.orthogonal_(part, gain, generator=generator)
    elif scheme == "delta_orthogonal":
        for part in host.chunk(blocks):
            _delta_orthogonal_(part, gain, generator)
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
    weight.view(*weight.shape[:2], -1)[:, :, flat] = nn.init.orthogonal_(torch.empty(weight.shape[:2]), gain, generator=generator)
