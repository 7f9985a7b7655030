"""a batch, an output, a loss and an optimizer -> direct evidence as plain numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from evengrad.trace.batch import STANDARDIZE, Batch
from evengrad.trace.capture import tensors_in
from evengrad.trace.neighbours import Samples
from evengrad.trace.structure import Structure
from evengrad.trace.through_time import forget_bias


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
    mask = torch.isfinite(x)
    finite = x if bool(mask.all()) else x[mask]
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
    """Describes the targets: shape and type; range, counts and what near inputs say of them, from the samples of this batch."""
    y = next((t.detach() for t in tensors_in(batch.targets)), None)
    if y is None or not y.numel():
        return None
    facts: dict[str, Any] = {"shape": list(y.shape), "dtype": str(y.dtype).removeprefix("torch.")}
    samples = Samples()
    samples.add(batch)
    return facts | samples.facts()


def head_facts(structure: Structure, output: Any) -> dict[str, Any] | None:
    """Describes the output: the rows that make it, the activation after them, its width and range."""
    tensor = next(tensors_in(output), None)
    if tensor is None or not structure.head:
        return None
    last = structure.layers[structure.head[-1]]
    facts: dict[str, Any] = {"layer": last.name, "activation": last.activation, "shape": list(tensor.shape)}
    facts["width"] = int(tensor.shape[-1]) if tensor.dim() else 1
    values = tensor.detach().float()
    if not values.numel() or not values.dim() or not bool(values.isfinite().all()):
        return facts
    spread = values.flatten(1).std(0, correction=0).square().mean().sqrt() if values.dim() > 1 else values.std(correction=0)
    numbers = torch.stack((values.mean(), values.std(correction=0), values.min(), values.max(), spread)).tolist()
    facts |= dict(zip(("mean", "std", "min", "max", "spread"), numbers, strict=True))
    sums = values.sum(-1) if values.dim() > 1 and values.shape[-1] > 1 else None
    constant = sums is not None and float(sums.max() - sums.min()) < 1e-4 * max(1e-12, float(values.abs().sum(-1).mean()))
    return facts | {"row_sum": float(sums.mean())} if sums is not None and constant else facts


def optimizer_facts(optimizer: torch.optim.Optimizer | None, model: nn.Module) -> dict[str, Any] | None:
    """Names the optimizer and its rates, and the parameters that it does not have, that are not the model's, or that are frozen."""
    if optimizer is None:
        return None
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    named = list(model.named_parameters())
    missing = [name for name, p in named if p.requires_grad and id(p) not in held]
    facts: dict[str, Any] = {"name": type(optimizer).__name__, "lr": rate_of(optimizer), "missing": missing}
    facts["frozen"] = [name for name, p in named if not p.requires_grad]
    facts["foreign"] = len(held - {id(p) for _, p in named})
    group = optimizer.param_groups[0]
    for key in ("weight_decay", "momentum", "maximize", "dampening", "eps"):
        value = group.get(key)
        if isinstance(value, (int, float)):
            facts[key] = value
    if isinstance(group.get("initial_lr"), (int, float)):
        facts["initial_lr"] = group["initial_lr"]
    if isinstance(group.get("betas"), tuple):
        facts["momentum"] = float(group["betas"][0])
    return facts


def rate_of(optimizer: torch.optim.Optimizer) -> Any:
    """Returns the learning rate of the first group, None where it has none."""
    rate = optimizer.param_groups[0].get("lr")
    return rate.item() if isinstance(rate, Tensor) else rate


class Modules:
    """Norms and dropouts of a model: what each was given in one pass, and which mode a step left it in."""

    def __init__(self, model: nn.Module) -> None:
        self._norms = [(n, m) for n, m in model.named_modules() if isinstance(m, (nn.modules.batchnorm._NormBase, *_ROW_NORMS))]
        self._dropouts = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.modules.dropout._DropoutNd)]
        self._values: dict[str, int] = {}
        self._called: set[str] | None = None
        self._forget = forget_bias(model)
        self._dtypes = sorted({str(p.dtype).removeprefix("torch.") for p in model.parameters()})

    @contextmanager
    def seen(self) -> Iterator[None]:
        """Inside, notes over how many values each batch norm takes its statistics."""
        self._called = set()
        handles = [m.register_forward_hook(partial(self._note, name)) for name, m in self._norms]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _note(self, name: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if self._called is not None:
            self._called.add(name)
        batch_norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
        if batch_norm and args and isinstance(args[0], Tensor) and args[0].dim() > 1:
            self._values.setdefault(name, args[0].numel() // args[0].shape[1])

    def facts(self) -> dict[str, Any]:
        """Returns what `types.Facts.modules` lists, with the modes as they are now."""
        norms = []
        for name, module in self._norms:
            norm = {"name": name, "kind": type(module).__name__, "training": module.training, "eps": getattr(module, "eps", None)}
            if isinstance(module, nn.modules.batchnorm._NormBase):
                norm |= {"momentum": module.momentum, "tracks": module.track_running_stats}
            norm |= {} if self._called is None or name in self._called else {"idle": True}
            norms.append(norm | ({"values": self._values[name]} if name in self._values else {}))
        facts: dict[str, Any] = {} if not self._forget else {"forget_bias": self._forget}
        dropouts = [{"name": n, "kind": type(m).__name__, "p": m.p, "training": m.training} for n, m in self._dropouts]
        return facts | {"norms": norms, "dropouts": dropouts, "dtypes": self._dtypes}


_ROW_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
