"""A rig at some of its steps -> how it answers in evaluation mode: on the batch at hand, and on validation data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch

from evengrad.errors import EvengradError
from evengrad.rig import Rig
from evengrad.trace.batch import Batch, call, mapped, scalar_loss
from evengrad.trace.capture import tensors_in
from evengrad.trace.isolation import untouched

COUNT = 8
_SAMPLES = 256


class Checkpoints:
    """Evaluates at about eight steps, evenly spaced where the number of steps is known, and ever wider beyond them.

    Args:
        steps: Number of steps that are planned; None spaces them ever wider.
        validation: Epoch number -> batches of validation data, or None.
    """

    def __init__(self, steps: int | None, validation: Callable[[int], Iterator[Batch]] | None) -> None:
        self._every = None if steps is None else max(1, steps // COUNT)
        self._source = validation
        self._validation: Batch | None = None
        self._next = 0
        self.values: dict[str, list[tuple[int, float]]] = {}

    def see(self, rig: Rig, batch: Batch) -> None:
        """Evaluates, if it is time."""
        if rig.step != self._next:
            return
        gap = max(4, rig.step // 3) if self._every is None else max(self._every, rig.step // COUNT)  # a run can go on longer than planned
        self._next = rig.step + gap
        with untouched(rig.model, seed=rig.seed), torch.no_grad():
            rig.model.eval()
            self._put(rig, "eval_loss", None, batch)
            if self._source is not None:
                self._put(rig, "val_loss", "val_accuracy", self._held(rig))

    def _held(self, rig: Rig) -> Batch:
        """The first samples of the validation data, taken once."""
        if self._validation is None:
            assert self._source is not None  # its caller looked
            batch = next(self._source(0)).to(rig.device)
            n = batch.samples
            self._validation = Batch(
                *(mapped(lambda t: t[:_SAMPLES] if t.dim() and len(t) == n else t, p) for p in (batch.inputs, batch.targets))
            )
        return self._validation

    def _put(self, rig: Rig, loss: str, accuracy: str | None, batch: Batch) -> None:
        try:
            output = call(rig.model, batch.inputs)
            with torch.enable_grad():
                value = _loss(output, batch.targets, rig)
        except (EvengradError, RuntimeError):
            return  # a model that cannot be called in evaluation mode: its curves are missing
        self.values.setdefault(loss, []).append((rig.step, value))
        share = right_share(output, batch.targets)
        if accuracy is not None and share is not None:
            self.values.setdefault(accuracy, []).append((rig.step, share))


def _loss(output: Any, targets: Any, rig: Rig) -> float:
    wanted = mapped(lambda t: t.detach().requires_grad_() if t.is_floating_point() else t, output)
    return float(scalar_loss(wanted, targets, rig.loss_fn).detach())


def right_share(output: Any, targets: Any) -> float | None:
    """Share of right answers, in [0, 1]; None where targets are no class labels; NaN where answers are not finite."""
    answers, labels = next(tensors_in(output), None), next(tensors_in(targets), None)
    if answers is None or labels is None or labels.is_floating_point() or labels.dim() != answers.dim() - 1 or answers.shape[1] < 2:
        return None
    if answers.shape[:1] != labels.shape[:1] or answers.shape[2:] != labels.shape[1:]:
        return None
    return float((answers.argmax(1) == labels).double().mean()) if bool(answers.isfinite().all()) else math.nan
