"""A model and a batch -> nothing, or a failed test that says why the model cannot train."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from evengrad.errors import unknown
from evengrad.examine import check, errors
from evengrad.trace.batch import Loss
from evengrad.types import SEVERITIES


def assert_trainable(
    model: nn.Module,
    batch: Any,
    loss_fn: Loss | None = None,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    fail_on: str = "error",
    select: Iterable[str] | None = None,
    ignore: Iterable[str] | None = None,
    min_trainability: float | None = None,
    seed: int = 0,
) -> None:
    """Checks a model before training, for use in a test; the model is left as it was.

    Args:
        model: Any module, or a Keras model on the torch backend.
        batch: `(inputs, targets)`, or inputs alone: a tensor or a mapping.
        loss_fn: `loss_fn(output, targets) -> scalar`; None as in `check`.
        optimizer: Lets rates and parameters without optimizer be judged.
        fail_on: Weakest severity that fails: `error`, `warning` or `note`.
        select: Codes, or beginnings of codes, to look for.
        ignore: Codes, or beginnings of codes, to leave out.
        min_trainability: Least probability of learning, in [0, 1]; a network for which none is known fails, too.
        seed: Seed of dropout during the pass, and of interventions.

    Raises:
        AssertionError: with the report's text, if a finding is as strong as `fail_on` or the probability of learning is too low.
        UnknownNameError: for another severity.

    Example:
        >>> def test_my_network_can_train():
        ...     eg.assert_trainable(MyNetwork(), (x, y), nn.CrossEntropyLoss())
    """
    __tracebackhide__ = True
    if fail_on not in SEVERITIES:
        raise unknown("severity", fail_on, SEVERITIES)
    inputs, targets = batch if isinstance(batch, (tuple, list)) and len(batch) == 2 else (batch, None)
    report = check(model, inputs, targets, loss_fn, optimizer=optimizer, seed=seed, select=select, ignore=ignore)
    found = errors(report.findings, fail_on)
    if found:
        raise AssertionError(f"{len(found)} finding{'s' * (len(found) > 1)} of severity {fail_on!r} or above\n\n{report}")
    chance = report.trainability
    if min_trainability is not None and (chance is None or chance < min_trainability):
        got = "is not known for this network" if chance is None else f"is {chance:.0%}"
        raise AssertionError(f"the chance to train {got}; expected at least {min_trainability:.0%}\n\n{report}")
