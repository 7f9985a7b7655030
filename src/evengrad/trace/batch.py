"""what the user hands over -> a call of the model and a scalar loss, or an error that says what does not fit."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from evengrad.errors import ForwardError, InputError
from evengrad.trace.capture import tensors_in

Loss = Callable[..., Tensor]
_NOT_THE_USERS = (str(Path(__file__).parents[1]), str(Path(torch.__file__).parent))  # frames that tell the user nothing
STANDARDIZE = "evengrad_standardize"  # attribute of a model whose inputs a remedy standardises: the function that does it


@dataclass(frozen=True)
class Batch:
    """One batch: what the model is called with, and what the loss compares with."""

    inputs: Any
    targets: Any = None

    @property
    def samples(self) -> int:
        """Number of samples: what inputs and targets agree on, else the first axis of the inputs."""
        first = next((t for t in tensors_in(self.inputs) if t.dim()), None)
        if first is None:
            raise InputError("the batch holds no tensor with a batch axis; expected a tensor, a tuple or a mapping of tensors")
        target = next((t for t in tensors_in(self.targets) if t.dim()), None)
        if target is not None and target.shape[0] in first.shape[:2]:
            return int(target.shape[0])
        return int(first.shape[0])

    def to(self, device: torch.device) -> Batch:
        """Returns the batch on `device`."""
        return Batch(*(mapped(lambda t: t.to(device), part) for part in (self.inputs, self.targets)))


def mapped(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Returns nested tuples, lists and mappings with the function applied to every tensor; anything else as it is."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Mapping):
        return {k: mapped(function, v) for k, v in value.items()}
    if isinstance(value, list):
        return [mapped(function, v) for v in value]
    if isinstance(value, tuple):
        parts = [mapped(function, v) for v in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


def call(model: nn.Module, inputs: Any) -> Any:
    """Calls the model as `check` promises: a tensor as model(x), a tuple as model(*x), a mapping as model(**x).

    Raises:
        ForwardError: if the model's own code raises; the user's traceback is kept as the cause.
    """
    try:
        if isinstance(inputs, Mapping):
            return model(**inputs)
        return model(*inputs) if isinstance(inputs, (tuple, list)) else model(inputs)
    except Exception as error:
        shapes = ", ".join(str(tuple(t.shape)) for t in tensors_in(inputs))
        frames = traceback.extract_tb(error.__traceback__)
        where = next((f for f in reversed(frames) if not f.filename.startswith(_NOT_THE_USERS)), frames[-1])
        raise ForwardError(
            f"the model's forward raised {type(error).__name__} in {where.name} (line {where.lineno}) for inputs of shape {shapes}: {error}"
        ) from error


def scalar_loss(output: Any, targets: Any, loss_fn: Loss | None) -> Tensor:
    """Returns the loss to differentiate: `loss_fn(output, targets)`, the output's own `.loss`, or a fixed random projection.

    Raises:
        InputError: if the loss is no scalar, has no gradient, or does not accept these outputs and targets.
    """
    if loss_fn is None:
        own = getattr(output, "loss", None)
        own = output.get("loss") if own is None and isinstance(output, Mapping) else own
        return own if isinstance(own, Tensor) else _projection(output)
    if isinstance(loss_fn, type):
        raise InputError(f"the loss is the class {loss_fn.__name__}, expected an instance or a function: write {loss_fn.__name__}()")
    try:
        loss = loss_fn(output, targets)
    except Exception as error:
        what = f"the loss does not accept these outputs and targets: {_shapes(output, targets)}. {_advice(output, targets)}"
        raise InputError(f"{what}It raised {type(error).__name__}: {error}") from error
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        got = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
        raise InputError(f"the loss must be a scalar tensor; got {got}. Reduce it, for example with .mean()")
    if not loss.requires_grad:
        raise InputError(
            "the loss has no gradient: no parameter with requires_grad reaches it. Unfreeze a parameter, or remove .detach() or no_grad"
        )
    return loss.reshape(())


def check_labels(output: Any, targets: Any, loss_fn: Loss | None) -> None:
    """Looks at class labels before a loss does: on a GPU a label out of range ends the process.

    Raises:
        InputError: if a label is negative or not below the number of classes.
    """
    logits, labels = next(tensors_in(output), None), next(tensors_in(targets), None)
    if logits is None or labels is None or labels.dtype != torch.int64 or logits.dim() < 2 or labels.dim() != logits.dim() - 1:
        return
    if isinstance(loss_fn, (nn.CrossEntropyLoss, nn.NLLLoss)) or loss_fn in {nn.functional.cross_entropy, nn.functional.nll_loss}:
        counted = labels[labels != getattr(loss_fn, "ignore_index", -100)]
        if counted.numel() and (int(counted.min()) < 0 or int(counted.max()) >= logits.shape[1]):
            raise InputError(f"labels are out of range. {_advice(output, counted)}Number the classes from 0")


def _projection(output: Any) -> Tensor:
    tensors = [t for t in tensors_in(output) if t.requires_grad]
    if not tensors:
        raise InputError("no output of the model has a gradient: no parameter with requires_grad reaches it")
    generator = torch.Generator().manual_seed(0)
    samples = max(1, tensors[0].shape[0] if tensors[0].dim() else 1)
    parts = [(t.float() * torch.randn(t.shape, generator=generator).to(t.device)).sum() for t in tensors]
    return torch.stack(parts).sum() / samples


def _shapes(output: Any, targets: Any) -> str:
    def shown(value: Any) -> str:
        return ", ".join(f"{tuple(t.shape)} {str(t.dtype).removeprefix('torch.')}" for t in tensors_in(value)) or type(value).__name__

    return f"outputs {shown(output)}, targets {shown(targets)}"


def _advice(output: Any, targets: Any) -> str:
    out, target = next(tensors_in(output), None), next(tensors_in(targets), None)
    if out is None or target is None:
        return "Give targets that this loss can compare with. " if target is None else ""
    if not target.is_floating_point() and out.dim() > 1 and target.numel() and target.dim() < out.dim():
        classes, low, high = out.shape[1], int(target.min()), int(target.max())
        if low < 0 or high >= classes:
            return f"Labels run from {low} to {high}, but the model has {classes} outputs: expected labels in [0, {classes - 1}]. "
    if out.shape[:1] != target.shape[:1]:
        return f"The model returned {out.shape[0] if out.dim() else 'no'} samples for {target.shape[0] if target.dim() else 'no'} targets. "
    return ""
