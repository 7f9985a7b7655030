"""tensors -> statistics that stay on the device: scaled by the largest magnitude, so that float32 neither underflows nor overflows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from evengrad.trace.together import alone, by_sample, side_by_side, wide

TINY = torch.finfo(torch.float32).tiny
SATURATION = {"sigmoid": 4.357, "tanh": 2.178, "softsign": 3.472, "hardtanh": 1.0, "hardsigmoid": 3.0, "erf": 1.731}
"""|input| beyond which |phi'| is under 5% of its maximum, for activations that are flat on both sides."""
CUT_OFF = {"relu", "relu6"}
"""Activations whose output is exactly zero for every input that is not positive."""
_transform = torch._C._functorch.peek_interpreter_stack
_USUAL = (1e-15, 1e15)  # magnitudes between these have squares that single precision holds
_PART = 1_048_576  # elements that are copied at a time: more of fresh memory costs more than the arithmetic
_ROUNDING = 7e-7  # of the largest unit's norm: what a product with a vector of norm sqrt(n / 2) leaves open


def output_stats(z: Tensor, samples: int) -> Tensor:
    """Returns (4,): mean, RMS, largest magnitude and spread across samples of a layer's output."""
    return outputs(*alone(by_sample(wide(z), samples)))[0]


def outputs(outputs: Tensor, counts: Tensor) -> Tensor:
    """Statistics (k, 4) of k outputs (k, samples, units * positions) with `counts` elements each; the rest is zeros."""
    largest = _largest(outputs.flatten(1))
    scaled, unit = _scaled(outputs, largest)
    apart = scaled - scaled[:, :1]  # exactly zero where all samples are equal, whatever the mean rounds to
    apart = apart.sub_(apart.mean(1, keepdim=True)).flatten(1)  # var(0) is ten times slower on a CPU
    across, rms = (torch.linalg.vector_norm(x, dim=1) * counts.rsqrt() for x in (apart, scaled.flatten(1)))
    mean = scaled.flatten(1).sum(1) / counts
    return torch.stack([x if unit is None else x * unit for x in (mean, rms)] + [largest] + [across if unit is None else across * unit], 1)


def sample_norms(g: Tensor, samples: int) -> tuple[Tensor, Tensor]:
    """Returns the L2 norm of each sample's gradient (samples,) and the largest magnitude ()."""
    found = norms_by_sample(*alone(by_sample(wide(g), samples)))[0]
    return found[:-1], found[-1]


def norm_of_a_sample(calls: Sequence[Tensor]) -> Tensor:
    """Returns (2,): the mean norm of a sample's gradient and the largest magnitude, of `norms_by_sample` of the calls of one weight."""
    pooled = calls[0]
    for call in calls[1:]:
        if call.shape == pooled.shape:
            pooled = torch.cat((torch.hypot(pooled[:-1], call[:-1]), torch.maximum(pooled[-1:], call[-1:])))
        else:
            pooled = call
    return torch.stack((pooled[:-1].mean(), pooled[-1]))


def norms_by_sample(gradients: Tensor, counts: Tensor) -> Tensor:
    """Norms of the samples, and the largest magnitude at the end (k, samples + 1), of k gradients (k, samples, elements)."""
    largest = _largest(gradients.flatten(1))
    scaled, unit = _scaled(gradients, largest)
    norms = torch.linalg.vector_norm(scaled, dim=2)
    return torch.cat((norms if unit is None else norms * unit[:, None], largest[:, None]), 1)


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
    equal is what rounding leaves.
    """
    return distinct_units_of([(weight, axis)])[0]


def distinct_units_of(weights: Sequence[tuple[Tensor, int]]) -> list[Tensor]:
    """Returns `distinct_units` of each weight and its axis of units."""
    return side_by_side([w.float().movedim(axis, 0).flatten(1) for w, axis in weights], _distinct)


def _distinct(rows: Tensor, counts: Tensor) -> Tensor:
    """Shares (k,) of k weights (k, units, inputs)."""
    probe = torch.arange(1, rows.shape[2] + 1, device=rows.device, dtype=torch.float32).mul_(12.9898).sin_()  # no generator is touched
    hashed = (rows @ probe).sort(1).values
    scale = torch.linalg.vector_norm(rows, dim=2).amax(1).clamp_min(TINY)
    distinct = (hashed.diff(dim=1) > _ROUNDING * scale[:, None]).sum(1) + 1
    share: Tensor = distinct / rows.shape[1] + 0 * scale  # 0 * inf is NaN
    return share


def tensor_stats(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Returns for each tensor (4,): L2 norm, mean, mean magnitude and largest magnitude."""
    return side_by_side([wide(t.detach()).reshape(-1) for t in tensors], _tensor_stats)


def _tensor_stats(flat: Tensor, counts: Tensor) -> Tensor:
    """Statistics (k, 4) of k tensors (k, elements) with `counts` elements each; the rest is zeros."""
    largest = _largest(flat)
    scaled, unit = _scaled(flat, largest)
    norm = torch.linalg.vector_norm(scaled, dim=1)
    size = torch.stack([part.abs().sum(1) for part in scaled.split(_PART, 1)]).sum(0)  # vector_norm(ord=1) is five times slower on a CPU
    found = torch.stack((norm, scaled.sum(1) / counts, size / counts), 1)
    return torch.cat((found if unit is None else found * unit[:, None], largest[:, None]), 1)


def _largest(flat: Tensor) -> Tensor:
    """The largest magnitude along the last axis; infinite if any element is NaN or infinite, so that NaN in a trace always means unseen."""
    largest = torch.maximum(flat.amax(-1), -flat.amin(-1))  # without a copy; vector_norm(ord=inf) is twenty times slower on a CPU
    return largest.nan_to_num(nan=float("inf"), posinf=float("inf"))


def _scaled(values: Tensor, largest: Tensor) -> tuple[Tensor, Tensor | None]:
    """Returns values (k, ...) whose squares fit, and what each was divided by: its largest magnitude (k,), kept in range; None for nothing.

    Where squares fit as they are, nothing is divided, and the CPU is spared a copy: its fresh memory costs more than all of the
    arithmetic. A GPU is not asked, nor a tensor under vmap, which cannot answer.
    """
    if values.is_cpu and _transform() is None and all(_USUAL[0] < x < _USUAL[1] for x in largest.tolist()):
        return values, None
    info = torch.finfo(largest.dtype)
    unit = largest.clamp(info.tiny, info.max)
    return values / unit.reshape(-1, *[1] * (values.dim() - 1)), unit
