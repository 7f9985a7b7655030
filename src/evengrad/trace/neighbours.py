"""samples and targets -> how far near inputs have like targets: what labels that belong to other inputs cannot show."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from evengrad.trace.batch import Batch
from evengrad.trace.capture import tensors_in

SAMPLES = 1024  # enough for an agreement within three hundredths
_FEWEST, _MOST_FEATURES = 64, 4096
_ROUNDING = 1e-4  # of the widest feature: what varies less is a constant and its rounding


class Samples:
    """Keeps the first samples that training meets, and describes their targets."""

    def __init__(self) -> None:
        self._inputs: list[Tensor] = []
        self._targets: list[Tensor] = []
        self.count = 0

    @property
    def full(self) -> bool:
        """True if no more are needed."""
        return self.count >= SAMPLES

    def add(self, batch: Batch) -> None:
        """Takes what is still needed of a batch."""
        x, y = next(tensors_in(batch.inputs), None), next(tensors_in(batch.targets), None)
        if y is None or not y.dim() or self.full:
            return
        room = SAMPLES - self.count
        self._targets.append(y.detach()[:room].cpu())
        if x is not None and x.dim() and len(x) == len(y):
            self._inputs.append(x.detach()[:room].cpu())
        self.count += len(self._targets[-1])

    def facts(self) -> dict[str, Any]:
        """Returns counts, range, mean and deviation of the targets, and how near inputs agree."""
        alike = all(y.shape[1:] == self._targets[0].shape[1:] for y in self._targets) if self._targets else False
        if not alike:
            return {}
        y = torch.cat(self._targets)
        facts: dict[str, Any] = {"samples": len(y)}
        if y.is_complex() or not y.numel():
            return facts
        facts |= {"min": float(y.min()), "max": float(y.max()), "mean": float(y.double().mean())}
        facts["std"] = float(y.double().std(correction=0))
        if not y.is_floating_point() and y.dtype != torch.bool:
            labels, counts = torch.unique(y, return_counts=True)
            if len(labels) <= SAMPLES:
                facts["labels"] = {str(k): v for k, v in zip(labels.tolist(), counts.tolist(), strict=True)}
        if sum(map(len, self._inputs)) == len(y) and all(x.shape[1:] == self._inputs[0].shape[1:] for x in self._inputs):
            facts |= neighbour_agreement(torch.cat(self._inputs), y)
        return facts


def neighbour_agreement(x: Tensor, y: Tensor) -> dict[str, float]:
    """Compares each sample's target with that of the sample nearest to it (features standardised, Euclidean distance).

    Args:
        x: Inputs (n, ...), floating point.
        y: Targets: class labels (n,), or numbers (n, ...).

    Returns:
        `neighbour_agreement`: the share of equal labels, or the correlation of numbers; `neighbour_chance`: what unrelated targets give;
        `neighbour_error`: its standard error. Empty where there are under 64 samples, or inputs are no numbers.

    Reference: Cover & Hart 1967, Nearest neighbor pattern classification.
    """
    once = _once(x)
    x, y = (x, y) if len(once) == len(x) else (x[once], y[once])
    n = len(x)
    flat = x.reshape(n, -1).float()
    if n < _FEWEST or not x.is_floating_point() or not 0 < flat.shape[1] <= _MOST_FEATURES or not bool(flat.isfinite().all()):
        return {}
    spread = flat.std(0)
    flat = (flat - flat.mean(0)) / spread.clamp_min(max(1e-12, _ROUNDING * float(spread.max())))
    distance = torch.addmm(flat.square().sum(1), flat, flat.T, alpha=-2).fill_diagonal_(math.inf)  # squared, less the sample's own square
    nearest = y[distance.argmin(1)]
    if y.is_floating_point():
        own, other = y.reshape(n, -1).double(), nearest.reshape(n, -1).double()
        own, other = own - own.mean(0), other - other.mean(0)
        scale = float(own.norm() * other.norm())
        return {} if not scale else _with_chance(float((own * other).sum()) / scale, 0.0, n)
    if y.dim() > 1:
        return {}
    shares = torch.unique(y, return_counts=True)[1].double() / n
    return _with_chance(float((nearest == y).double().mean()), float(shares.square().sum()), n)


def _once(x: Tensor) -> list[int]:
    """Numbers of the samples without those that came before: a sample of the next epoch would be its own neighbour."""
    first: dict[bytes, int] = {}
    if not x.numel():
        return []
    rows = x.detach().reshape(len(x), -1).contiguous().view(torch.uint8).numpy()
    for number, row in enumerate(rows.view(f"V{rows.shape[1]}").ravel().tolist()):
        first.setdefault(row, number)
    return list(first.values())


def _with_chance(agreement: float, chance: float, n: int) -> dict[str, float]:
    error = math.sqrt(max(chance * (1 - chance), 1 / n) / n) if chance else 1 / math.sqrt(n)
    return {"neighbour_agreement": agreement, "neighbour_chance": chance, "neighbour_error": error}
