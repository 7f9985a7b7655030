"""early_stopping: the weights of the epoch with the lowest validation loss."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from evengrad.errors import InputError
from evengrad.remedies import base
from evengrad.remedies.base import Remedy, Undo
from evengrad.rig import Rig
from evengrad.trace.batch import call
from evengrad.trace.isolation import untouched
from evengrad.types import Finding, Proposal, Trace

_CODE = """+best, kept, waited = float("inf"), None, 0
 for epoch in range({epochs}):
     ...  # train one epoch
+    validation = validation_loss(model)  # model.eval(), torch.no_grad()
+    waited += 1
+    if validation < best:
+        best, kept, waited = validation, copy.deepcopy(model.state_dict()), 0
+    if waited >= {patience}:
+        break
+model.load_state_dict(kept)"""


@dataclass(frozen=True, kw_only=True)
class EarlyStopping(Remedy):
    """Stops when the validation loss has not fallen for some epochs, and puts back the weights of the best one, then as well as at the end.

    Attributes:
        patience: Share of the planned epochs to wait for a lower loss, in [0, 1].
        min_patience: Fewest epochs to wait.

    Reference: Prechelt 1998, Early stopping: but when?
    """

    name: ClassVar[str] = "early_stopping"
    title: ClassVar[str] = "training ends at the lowest validation loss"
    symptoms: ClassVar[tuple[str, ...]] = ("overfitting",)
    change: ClassVar[int] = base.LOOP
    diagnostic: ClassVar[bool] = False
    shows_at_once: ClassVar[bool] = False
    patience: float = 0.2
    min_patience: int = 3

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        epochs = int((trace.facts.loop or {}).get("epochs") or 0)
        if "val_loss" not in trace.curves or epochs < 2:
            return
        patience = max(self.min_patience, round(self.patience * epochs))
        yield Proposal(
            remedy=self.name,
            options={"patience": patience},
            cause="overfitting",
            summary=f"early_stopping after {patience} epochs without a lower validation loss",
            code=_CODE.format(epochs=epochs, patience=patience),
            needs=("validation data",),
        )

    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        if rig.validation is None:
            raise InputError("early_stopping needs validation data; give Experiment a validation=")
        stop = Stop(int(proposal.options["patience"]))
        rig.after_epoch.append(stop)
        return lambda: rig.after_epoch.remove(stop)


class Stop:
    """Judges each epoch; returns True when it is time to end, with the best weights in place."""

    def __init__(self, patience: int) -> None:
        self.patience, self.epochs, self.best_epoch, self.best = patience, 0, 0, math.inf
        self._state: dict[str, Any] | None = None

    def __call__(self, rig: Rig) -> bool:
        self.epochs += 1
        loss = validation_loss(rig)
        if loss < self.best:
            self.best, self.best_epoch = loss, self.epochs
            self._state = {k: v.detach().clone() if isinstance(v, Tensor) else v for k, v in rig.model.state_dict().items()}
        ends = self.epochs - self.best_epoch >= self.patience
        if (ends or self.epochs == rig.epochs) and self._state is not None:
            rig.model.load_state_dict(self._state)
        return ends


def validation_loss(rig: Rig) -> float:
    """Returns the mean loss over the samples of the validation data in evaluation mode; the model is left as it was."""
    assert rig.validation is not None  # apply looked
    assert rig.loss_fn is not None  # an experiment has one
    total, count = 0.0, 0
    with untouched(rig.model, seed=rig.seed), torch.no_grad():
        rig.model.eval()
        for batch in rig.validation(0):
            total += float(rig.loss_fn(call(rig.model, batch.inputs), batch.targets)) * batch.samples
            count += batch.samples
    return total / count if count else math.nan
