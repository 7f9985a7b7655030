"""replace_loss: the loss that fits what the model puts out and what the targets are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from evengrad.errors import InputError
from evengrad.remedies import base
from evengrad.remedies.base import Remedy, Undo
from evengrad.rig import Rig
from evengrad.trace.capture import tensors_in
from evengrad.types import Finding, Proposal, Trace

_NUMBERS = {"mse", "l1", "smooth_l1"}
_OPEN = {"log", "log_", "log2", "log10", "div", "__truediv__", "true_divide", "reciprocal", "rsqrt", "sqrt", "exp", "exp_", "pow"}
_NEVER_NEGATIVE = {"cross_entropy", "mse", "l1", "smooth_l1"}
_SHOWN = {
    "cross_entropy": "nn.CrossEntropyLoss()",
    "nll": "nn.NLLLoss()",
    "log_likelihood": "lambda p, y: F.nll_loss((p + 1e-12).log(), y)",
    "bce_with_logits": "lambda z, y: F.binary_cross_entropy_with_logits(z, y.to(z).view_as(z))",
    "bce": "lambda p, y: F.binary_cross_entropy(p, y.to(p).view_as(p))",
    "mse": "lambda z, y: F.mse_loss(z, y.view_as(z))",
    "l1": "lambda z, y: F.l1_loss(z, y.view_as(z))",
    "smooth_l1": "lambda z, y: F.smooth_l1_loss(z, y.view_as(z))",
    "mean": "lambda z, y: old_loss_fn(z, y) / len(y)",
    "times_samples": "lambda z, y: old_loss_fn(z, y) * len(y)",
    "negated": "lambda z, y: -old_loss_fn(z, y)",
}
_CHANGES = {"mean", "times_samples", "negated"}


@dataclass(frozen=True, kw_only=True)
class ReplaceLoss(Remedy):
    """Trains on another loss: cross-entropy for class labels, a mean in place of a sum, the loss in place of its negative.

    Losses on logits are computed without a quotient or a bare logarithm, and targets are brought to the shape of the outputs, so that
    nothing is broadcast. Weights of classes and smoothing that the old loss had are lost.

    Reference: Bishop 2006, Pattern recognition, sec. 4.3.4 and 5.2 (which loss goes with which output).
    """

    name: ClassVar[str] = "replace_loss"
    title: ClassVar[str] = "the loss that fits outputs and targets"
    causes: ClassVar[tuple[str, ...]] = ("wrong_loss", "unstable_loss", "loss_reduction", "sign_error", "redundant_output_activation")
    change: ClassVar[int] = base.LOOP
    diagnostic: ClassVar[bool] = False

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        loss = trace.facts.loss or {}
        if "op" not in loss:
            return
        for kind in _kinds(str(finding.cause), trace):
            old = str(loss.get("name"))
            yield Proposal(
                remedy=self.name,
                options={"loss": kind},
                cause=str(finding.cause),
                summary=f"replace_loss {old} -> {kind}" if kind not in _CHANGES else f"replace_loss ({kind.replace('_', ' ')})",
                code=(f"+old_loss_fn = {old}\n" if kind in _CHANGES else f"-loss_fn = {old}\n") + f"+loss_fn = {_SHOWN[kind]}",
                risk="" if kind in _CHANGES else "weights of classes, smoothing and further terms of the old loss are left out",
            )

    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        old, kind = rig.loss_fn, proposal.options["loss"]
        if old is None:
            raise InputError("replace_loss needs a loss_fn to replace; give check or Experiment one")
        rig.loss_fn = Changed(old, kind) if kind in _CHANGES else Fitted(kind)

        def undo() -> None:
            rig.loss_fn = old

        return undo


@dataclass(frozen=True)
class Fitted:
    """A mean loss of torch's by its name; targets take the type and shape that it needs."""

    kind: str
    reduction: ClassVar[str] = "mean"

    def __call__(self, output: Any, targets: Any) -> Tensor:
        """Returns the scalar loss of the first tensors in `output` (N, ...) and `targets`."""
        answers, wanted = next(tensors_in(output)), next(tensors_in(targets))
        if self.kind in {"cross_entropy", "nll", "log_likelihood"}:
            labels = wanted.long().reshape(len(answers), *answers.shape[2:])
            return _OF_LABELS[self.kind](answers, labels)
        return _OF_NUMBERS[self.kind](answers, wanted.to(answers.dtype).reshape(answers.shape))


@dataclass(frozen=True)
class Changed:
    """The user's loss, divided or multiplied by the number of samples, or with the other sign."""

    loss_fn: Callable[[Any, Any], Tensor]
    kind: str

    def __call__(self, output: Any, targets: Any) -> Tensor:
        """Returns the scalar loss."""
        loss = self.loss_fn(output, targets)
        if self.kind == "negated":
            return -loss
        samples = len(next(tensors_in(output)))
        return loss / samples if self.kind == "mean" else loss * samples


def log_likelihood(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Negative log-likelihood of probabilities (N, C) that a softmax in the model has made; finite where one is zero."""
    return F.nll_loss((probabilities + torch.finfo(probabilities.dtype).tiny).log(), labels)


_OF_LABELS: dict[str, Callable[..., Tensor]] = {"cross_entropy": F.cross_entropy, "nll": F.nll_loss, "log_likelihood": log_likelihood}
_OF_NUMBERS: dict[str, Callable[..., Tensor]] = {
    "bce": F.binary_cross_entropy,
    "bce_with_logits": F.binary_cross_entropy_with_logits,
    "mse": F.mse_loss,
    "l1": F.l1_loss,
    "smooth_l1": F.smooth_l1_loss,
}


def _kinds(cause: str, trace: Trace) -> tuple[str, ...]:
    """What the loss should be by what was measured of it; nothing where the measurement does not show this cause."""
    loss = trace.facts.loss or {}
    op, calls = str(loss["op"]), set(loss.get("operations", ()))
    if cause == "loss_reduction":
        growth = float(loss.get("batch_growth", 1.0))
        return ("mean",) if growth > 1.6 else ("times_samples",) if 0 < growth < 1 / 1.6 else ()
    if cause == "sign_error":
        return ("negated",) if _reversed(op, trace) else ()
    if cause == "redundant_output_activation":
        return (op,) if op in {"cross_entropy", "bce_with_logits"} and calls & {"softmax", "sigmoid"} else ()
    fit = _fit(trace)
    if cause == "unstable_loss":
        return fit if op in {"other", "nll"} and calls & _OPEN else ()
    all_pairs = float(loss.get("pairing", 0.0 if op in _NUMBERS and _broadcasts(trace) else 1.0)) < 1e-5
    return fit if cause == "wrong_loss" and fit and (fit[0] != op or all_pairs) else ()


def _reversed(op: str, trace: Trace) -> bool:
    loss, curve = trace.facts.loss or {}, trace.curves.get("loss")
    below_zero = curve is not None and len(curve.values) > 0 and curve.values[-1] < -1e-3
    return op != "other" and (float(loss.get("toward_targets", 1.0)) < -0.5 or (op in _NEVER_NEGATIVE and below_zero))


def _broadcasts(trace: Trace) -> bool:
    shapes = [list((facts or {}).get("shape", ())) for facts in (trace.facts.head, trace.facts.targets)]
    return shapes[0] != shapes[1] and math.prod(shapes[0]) == math.prod(shapes[1])


def _fit(trace: Trace) -> tuple[str, ...]:
    """The losses that fit outputs and targets, best first; nothing where no loss can: three classes and one unit."""
    head, loss, targets = trace.facts.head or {}, trace.facts.loss or {}, trace.facts.targets or {}
    shape, activation = list(head.get("shape", ())), head.get("activation")
    low, high = targets.get("min"), targets.get("max")
    if not shape or low is None or high is None:
        return ()
    samples = math.prod(targets.get("shape", ()))
    whole, classes = "float" not in str(targets.get("dtype")), shape[1] if len(shape) > 1 else 1
    if whole and classes > 1 and samples * classes == math.prod(shape) and low >= 0 and high < classes:
        return ({"log_softmax": "nll", "softmax": "log_likelihood"}.get(str(activation), "cross_entropy"),)
    if samples != math.prod(shape):
        return ()
    op, calls = str(loss.get("op")), set(loss.get("operations", ()))
    mean, std = float(targets.get("mean", 0.5)), float(targets.get("std", 0.5))
    two_classes = low >= 0 and high <= 1 and abs(std**2 - mean * (1 - mean)) < 0.02  # only zeros and ones spread as far
    if two_classes and (whole or op.startswith("bce") or calls & {"log", "log_", "logsigmoid"}):
        shares = activation == "sigmoid" and head.get("min", -1.0) >= 0 and head.get("max", 2.0) <= 1
        return ("bce",) if shares else ("bce_with_logits",)
    return (op,) if op in _NUMBERS else () if whole else ("mse", "smooth_l1")
