"""a batch, an output, a loss and an optimizer -> direct evidence as plain numbers."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from evengrad.trace.batch import STANDARDIZE, Batch, Loss
from evengrad.trace.capture import tensors_in
from evengrad.trace.structure import Structure

_MAX_LABELS = 1000


def input_facts(batch: Batch, model: nn.Module, structure: Structure) -> dict[str, Any] | None:
    """Describes the first floating-point input as the network gets it: range, and the mean and spread of its features.

    Features are the channels (axis 1) of images and of what a convolution reads, the last axis otherwise (`feature_axis`).
    """
    x = next((t.detach() for t in tensors_in(batch.inputs) if t.is_floating_point()), None)
    if x is None or not x.numel() or not x.dim():
        return None
    x = x.float() if x.dim() > 1 else x.float()[:, None]
    standardize = getattr(model, STANDARDIZE, None)
    x = standardize(x) if standardize is not None else x
    finite = x[torch.isfinite(x)]
    share = 1.0 - finite.numel() / x.numel()
    first = next((layer.kind for layer in structure.layers if layer.depth is not None), "")
    axis = 1 if x.dim() > 3 or (x.dim() == 3 and first == "conv") else -1
    facts: dict[str, Any] = {"shape": list(x.shape), "nonfinite_fraction": share, "feature_axis": axis}
    if not finite.numel():
        return facts | {"mean": math.nan, "std": math.nan, "min": math.nan, "max": math.nan}
    features = x.movedim(axis, -1).reshape(-1, x.shape[axis])
    varying = (features - features.mean(0)).square().mean(0).sqrt()
    varying = varying[varying > 0]
    values = torch.stack([finite.mean(), finite.std(correction=0), finite.min(), finite.max(), features.mean(0).abs().max()]).tolist()
    spans = torch.stack([varying.min(), varying.max()]).tolist() if varying.numel() else [0.0, 0.0]
    names = ("mean", "std", "min", "max", "feature_mean_abs_max")
    return facts | dict(zip(names, values, strict=True)) | {"feature_std_min": spans[0], "feature_std_max": spans[1]}


def target_facts(batch: Batch) -> dict[str, Any] | None:
    """Describes the targets: range, and label counts where they are integers."""
    y = next((t.detach() for t in tensors_in(batch.targets)), None)
    if y is None or not y.numel():
        return None
    facts: dict[str, Any] = {"shape": list(y.shape), "dtype": str(y.dtype).removeprefix("torch.")}
    facts |= {"min": float(y.min()), "max": float(y.max())}
    if not y.is_floating_point() and not y.is_complex() and y.dtype != torch.bool:
        labels, counts = torch.unique(y, return_counts=True)
        if len(labels) <= _MAX_LABELS:
            facts["labels"] = {str(k): v for k, v in zip(labels.tolist(), counts.tolist(), strict=True)}
    return facts


def head_facts(structure: Structure, output: Any) -> dict[str, Any] | None:
    """Describes the output: the rows that make it, the activation after them, its width."""
    tensor = next(tensors_in(output), None)
    if tensor is None or not structure.head:
        return None
    last = structure.layers[structure.head[-1]]
    return {"layer": last.name, "activation": last.activation, "width": int(tensor.shape[-1]) if tensor.dim() else 1}


def loss_facts(loss_fn: Loss | None, value: float) -> dict[str, Any]:
    """Names the loss and its value at step 0."""
    name = "projection" if loss_fn is None else getattr(loss_fn, "__name__", type(loss_fn).__name__)
    return {"name": name, "value": value, "reduction": getattr(loss_fn, "reduction", None)}


def optimizer_facts(optimizer: torch.optim.Optimizer | None, model: nn.Module) -> dict[str, Any] | None:
    """Names the optimizer, its rate, and the trainable parameters that it does not have."""
    if optimizer is None:
        return None
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    missing = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in held]
    rates = [group.get("lr") for group in optimizer.param_groups]
    rate = rates[0].item() if isinstance(rates[0], Tensor) else rates[0]
    return {"name": type(optimizer).__name__, "lr": rate, "missing": missing}
