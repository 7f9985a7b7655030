"""a loss, outputs and targets -> what kind of loss it is, what the best constant answer gets, and which way it pulls."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from evengrad.trace.batch import Loss
from evengrad.trace.capture import tensors_in
from evengrad.trace.loss_probe import EVERYTHING, Reach, probed

_OPS = {  # a torch function that a loss ends in -> the kind of loss
    "cross_entropy": "cross_entropy",
    "nll_loss": "nll",
    "binary_cross_entropy": "bce",
    "binary_cross_entropy_with_logits": "bce_with_logits",
    "mse_loss": "mse",
    "l1_loss": "l1",
    "smooth_l1_loss": "smooth_l1",
    "huber_loss": "smooth_l1",
}
_SENSITIVE = 1e-3  # relative change of the loss if all answers become their mean: less tells nothing of what they are compared with
_QUIET = {"requires_grad", "shape", "dtype", "device", "grad_fn", "size", "dim", "__get__", "is_floating_point"}


def loss_facts(loss_fn: Loss | None, value: float, output: Any = None, targets: Any = None, *, reach: Reach = EVERYTHING) -> dict[str, Any]:
    """Describes a loss: its name and value, and, where outputs and targets are single tensors, what `types.Facts` lists.

    `reach` is what the output can reach at all, whatever the weights.
    """
    name = "projection" if loss_fn is None else getattr(loss_fn, "__name__", type(loss_fn).__name__)
    facts: dict[str, Any] = {"name": name, "value": value, "reduction": getattr(loss_fn, "reduction", None)}
    answers, wanted = next(tensors_in(output), None), next(tensors_in(targets), None)
    if loss_fn is None or answers is None or wanted is None or not answers.is_floating_point() or not answers.dim():
        return facts
    try:
        facts |= _probed(loss_fn, answers.detach(), wanted.detach())
        return facts | probed(loss_fn, answers.detach(), wanted.detach(), op=facts["op"], reach=reach)
    except Exception:  # a loss of the user's that takes something else than one tensor of answers and one of targets
        return facts


def _probed(loss_fn: Loss, answers: Tensor, wanted: Tensor) -> dict[str, Any]:
    leaf = answers.clone().requires_grad_()
    with torch.enable_grad():
        with _Names() as seen:
            loss = loss_fn(leaf, wanted)
        (slope,) = torch.autograd.grad(loss, leaf, retain_graph=len(seen.terms) > 1)
    terms = _terms(loss, seen.terms) if len(seen.terms) > 1 else []
    op = next((_OPS[name] for name in seen.names if name in _OPS), "other")
    with torch.no_grad():
        twice = float(loss_fn(torch.cat((answers, answers)), torch.cat((wanted, wanted))))
        constant = _constant(op, answers, wanted)
        baseline = None if constant is None else float(loss_fn(constant, wanted))
        others = float(loss_fn(answers, wanted.roll(1, 0))) if wanted.dim() else math.nan
        alike = float(loss_fn(answers.mean(0, keepdim=True).expand_as(answers).contiguous(), wanted))
    once = float(loss.detach())
    facts: dict[str, Any] = {"op": op, "operations": seen.names} | ({"terms": terms} if terms else {})
    if once and math.isfinite(others) and math.isfinite(alike) and abs(alike - once) > _SENSITIVE * abs(once) and _vary(wanted):
        facts["pairing"] = abs(others - once) / abs(once)
    if math.isfinite(once) and once and math.isfinite(twice):
        facts["batch_growth"] = twice / once
    if baseline is not None and math.isfinite(baseline):
        facts["baseline"] = baseline
    pull = _toward(op, answers, wanted, slope)
    return facts if pull is None or not math.isfinite(pull) else facts | {"toward_targets": pull}


def _terms(loss: Tensor, found: list[tuple[str, Tensor, Tensor]]) -> list[dict[str, Any]]:
    """Describes each loss that a loss is made of: its op, how much of it counts, and the targets that it gets.

    `weight` is the change of the whole with the mean of the term: negative where the whole falls as the term rises.
    """
    terms = []
    for op, targets, value in found:
        slope = torch.autograd.grad(loss, value, retain_graph=True, allow_unused=True)[0] if value.requires_grad else None
        numbers = targets.detach().float()
        if slope is None or not numbers.numel():
            continue
        names = ("min", "max", "mean", "std")
        spread = (numbers.min(), numbers.max(), numbers.mean(), numbers.std(correction=0))
        terms.append(
            {"op": op, "weight": float(slope.sum()), "dtype": str(targets.dtype).removeprefix("torch.")}
            | dict(zip(names, map(float, spread), strict=True))
        )
    return terms


class _Names(TorchFunctionMode):
    """Lists the torch functions that are called, each once; of those that are losses, the targets and values too."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.terms: list[tuple[str, Tensor, Tensor]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name and name not in self.names and name not in _QUIET:
            self.names.append(name)
        value = func(*args, **(kwargs or {}))
        targets = args[1] if len(args) > 1 else (kwargs or {}).get("target")
        if name in _OPS and isinstance(targets, Tensor) and isinstance(value, Tensor):
            self.terms.append((_OPS[name], targets, value))
        return value


def _constant(op: str, answers: Tensor, wanted: Tensor) -> Tensor | None:
    """The best answer that does not look at the inputs, in the shape of the answers; None where that is not known."""
    if op in {"cross_entropy", "nll"} and not wanted.is_floating_point() and wanted.dim() == answers.dim() - 1:
        labels = wanted[wanted >= 0].reshape(-1)
        if not labels.numel() or int(labels.max()) >= answers.shape[1]:
            return None
        shares = torch.bincount(labels, minlength=answers.shape[1]).to(answers.dtype) / labels.numel()
        shape = [1, -1, *(1,) * (answers.dim() - 2)]
        return shares.clamp_min(torch.finfo(answers.dtype).tiny).log().view(shape).expand_as(answers)
    if not wanted.is_floating_point() or wanted.shape != answers.shape:
        return None
    if op in {"mse", "smooth_l1"}:
        return wanted.to(answers.dtype).mean(0, keepdim=True).expand_as(answers)
    if op == "l1":
        return wanted.to(answers.dtype).median(0, keepdim=True).values.expand_as(answers)
    share = wanted.to(answers.dtype).mean(0, keepdim=True).clamp(1e-6, 1 - 1e-6)
    return share.expand_as(answers) if op == "bce" else share.logit().expand_as(answers) if op == "bce_with_logits" else None


def _vary(values: Tensor) -> bool:
    """True if samples differ by more than a hundredth of their size: of targets that are all alike, each answer has its own."""
    rows = values.reshape(len(values), -1).double()
    return bool((rows - rows.mean(0)).norm() > 0.01 * rows.norm()) if len(rows) > 1 else False


def _toward(op: str, answers: Tensor, wanted: Tensor, slope: Tensor) -> float | None:
    """1 if a step down the loss brings every answer nearer to its target, -1 if it takes every one away."""
    if not wanted.is_floating_point():
        if wanted.numel() == answers.numel() and bool(((wanted == 0) | (wanted == 1)).all()):  # one unit answers for two classes
            return float((-slope.reshape(-1) * (2 * wanted.reshape(-1) - 1)).sign().mean())
        if wanted.dim() != answers.dim() - 1 or not answers.numel() or int(wanted.max()) >= answers.shape[1]:
            return None
        used = wanted >= 0
        pull = -slope.gather(1, wanted.clamp_min(0).unsqueeze(1)).squeeze(1)[used]
        return float(pull.sign().mean())
    if wanted.shape != answers.shape:
        return None
    towards = wanted - 0.5 if op.startswith("bce") else wanted - answers
    return float(torch.nn.functional.cosine_similarity(-slope.double().reshape(1, -1), towards.double().reshape(1, -1)))
