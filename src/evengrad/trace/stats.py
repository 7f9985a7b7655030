"""tensors -> statistics that stay on the device: scaled by the largest magnitude, so that float32 neither underflows nor overflows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

TINY = torch.finfo(torch.float32).tiny
SATURATION = {"sigmoid": 4.357, "tanh": 2.178, "softsign": 3.472, "hardtanh": 1.0, "hardsigmoid": 3.0, "erf": 1.731}
"""|input| beyond which |phi'| is under 5% of its maximum, for activations that are flat on both sides."""
CUT_OFF = {"relu", "relu6"}
"""Activations whose output is exactly zero for every input that is not positive."""
_transform = torch._C._functorch.peek_interpreter_stack
_USUAL = (1e-15, 1e15)  # magnitudes between these have squares that single precision holds
_SMALL = 65_536  # elements up to which tensors are copied side by side


def by_sample(tensor: Tensor, samples: int) -> Tensor:
    """Returns the tensor as (samples, everything else); as (1, all) where no axis counts the samples."""
    if tensor.dim() and tensor.shape[0] == samples:
        return tensor.reshape(samples, -1)
    if tensor.dim() > 1 and tensor.shape[1] == samples:
        return tensor.transpose(0, 1).reshape(samples, -1)
    if tensor.dim() and tensor.shape[0] % samples == 0:
        return tensor.reshape(samples, -1)  # (samples * time, features)
    return tensor.reshape(1, -1)


def output_stats(z: Tensor, samples: int) -> Tensor:
    """Returns (4,): mean, RMS, largest magnitude and spread across samples of a layer's output."""
    flat = by_sample(_wide(z), samples)  # (samples, units * positions)
    largest = _largest(flat.reshape(-1))
    scaled, unit = _scaled(flat, largest)
    apart = scaled - scaled[0]  # exactly zero where all samples are equal, whatever the mean rounds to
    across = torch.linalg.vector_norm(apart.sub_(apart.mean(0))) / scaled.numel() ** 0.5  # var(0) is ten times slower on a CPU
    rms = torch.linalg.vector_norm(scaled) / scaled.numel() ** 0.5
    return torch.stack((scaled.mean(), rms, largest / unit, across)) * unit


def sample_norms(g: Tensor, samples: int) -> tuple[Tensor, Tensor]:
    """Returns the L2 norm of each sample's gradient (samples,) and the largest magnitude ()."""
    flat = by_sample(_wide(g), samples)
    largest = _largest(flat.reshape(-1))
    scaled, unit = _scaled(flat, largest)
    return torch.linalg.vector_norm(scaled, dim=1) * unit, largest


def flat_share(u: Tensor, activation: str, options: Mapping[str, float]) -> Tensor:
    """Returns the share of elements where the activation is flat, or NaN where it is not flat on both sides."""
    bound = SATURATION.get(activation)
    if bound is None:
        return u.new_tensor(float("nan"), dtype=torch.float32)
    return (u.float().abs() > bound * options.get("max_val", 1.0)).float().mean()


def off(u: Tensor, activation: str) -> Tensor:
    """Returns a mask of the elements whose activation is exactly zero."""
    return u <= 0 if activation in CUT_OFF else u == 0


def distinct_units(weight: Tensor, axis: int) -> Tensor:
    """Returns the share of output units whose weights differ from every other unit's, in (0, 1]; NaN where a weight is not finite.

    Units are told apart by their product with a fixed vector. Products of many wide units lie close together, so what counts as
    equal is what rounding leaves: it falls with the square root of the number of weights, like the products themselves.
    """
    return _distinct(weight.float().movedim(axis, 0).flatten(1)[None])[0]


def distinct_units_of(weights: Sequence[tuple[Tensor, int]]) -> list[Tensor]:
    """Returns `distinct_units` of each weight and its axis of units."""
    return _grouped([w.float().movedim(axis, 0).flatten(1) for w, axis in weights], _distinct)


def _distinct(rows: Tensor) -> Tensor:
    """Shares (k,) of k weights (k, units, inputs)."""
    probe = torch.arange(1, rows.shape[2] + 1, device=rows.device, dtype=torch.float32).mul_(12.9898).sin_()  # no generator is touched
    hashed = (rows @ (probe / torch.linalg.vector_norm(probe))).sort(1).values
    scale = torch.linalg.vector_norm(rows, dim=2).amax(1).clamp_min(TINY)
    distinct = (hashed.diff(dim=1) > 1e-6 * scale[:, None] / rows.shape[2] ** 0.5).sum(1) + 1
    share: Tensor = distinct / rows.shape[1] + 0 * scale  # 0 * inf is NaN
    return share


def tensor_stats(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Returns for each tensor (4,): L2 norm, mean, mean magnitude and largest magnitude."""
    return _grouped([_wide(t.detach()).reshape(-1) for t in tensors], _tensor_stats)


def _tensor_stats(flat: Tensor) -> Tensor:
    """Statistics (k, 4) of k tensors (k, elements)."""
    largest = _largest(flat)
    scaled, unit = _scaled(flat, largest[:, None])
    norm, size = (torch.linalg.vector_norm(scaled, order, dim=1) for order in (2, 1))
    return torch.stack((norm, scaled.mean(1), size / flat.shape[1], largest / unit[:, 0]), 1) * unit


def _grouped(tensors: Sequence[Tensor], function: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Applies a function of (k, ...) to tensors, small ones of one shape together: a deep network has many, and each call has its price."""
    groups: dict[object, list[int]] = {}
    for i, t in enumerate(tensors):
        groups.setdefault((t.shape, t.dtype, t.device) if t.numel() <= _SMALL else i, []).append(i)
    found: list[Tensor] = list(tensors)
    for indices in groups.values():
        stacked = torch.stack([tensors[i] for i in indices]) if len(indices) > 1 else tensors[indices[0]][None]
        for i, result in zip(indices, function(stacked), strict=True):
            found[i] = result
    return found


def _wide(tensor: Tensor) -> Tensor:
    """Half precision becomes single; double stays, since it holds what single rounds to zero; complex numbers count as pairs."""
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _largest(flat: Tensor) -> Tensor:
    """The largest magnitude along the last axis; infinite if any element is NaN or infinite, so that NaN in a trace always means unseen."""
    largest = torch.maximum(flat.amax(-1), -flat.amin(-1))  # without a copy; vector_norm(ord=inf) is twenty times slower on a CPU
    return largest.nan_to_num(nan=float("inf"), posinf=float("inf"))


def _scaled(values: Tensor, largest: Tensor) -> tuple[Tensor, Tensor]:
    """Returns values whose squares fit, and what they were divided by: their largest magnitude, kept away from zero and infinity.

    Where squares fit as they are, a CPU is spared the copy: its fresh memory costs more than all of the arithmetic. A GPU is not asked, nor
    a tensor under vmap, which cannot answer.
    """
    if values.is_cpu and _transform() is None and bool(((largest > _USUAL[0]) & (largest < _USUAL[1])).all()):
        return values, torch.ones_like(largest)
    info = torch.finfo(largest.dtype)
    unit = largest.clamp(info.tiny, info.max)
    return values / unit, unit
