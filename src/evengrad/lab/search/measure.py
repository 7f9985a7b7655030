"""Runs -> the experiment's metric of each."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.func import vmap

from evengrad.batches import batches_of
from evengrad.lab.engine.runs import Runs
from evengrad.rig import Rig
from evengrad.trace.batch import Batch
from evengrad.training import Experiment, evaluate, metric_name
from evengrad.types import Series


def metrics(experiment: Experiment, runs: Runs) -> Series:
    """Returns what `training.evaluate` says of each run (runs,), NaN where that is not finite."""
    if callable(experiment.metric):
        return np.array([evaluate(experiment, Rig(runs.network(k))) for k in range(runs.count)])
    name = metric_name(experiment)
    data = experiment.data if experiment.validation is None else experiment.validation
    tally = _right if name == "accuracy" else _losses
    total, count = torch.zeros(runs.count, dtype=torch.float64), 0
    runs.module.eval()
    with torch.no_grad():
        for batch in (b.to(runs.device) for b in batches_of(data, max(experiment.batch_size, 1024), 0)(0)):
            outputs = runs.module(batch.inputs.expand(runs.count, *batch.inputs.shape))
            part, counted = tally(experiment, outputs, batch)
            total, count = total + part.double().cpu(), count + counted
    runs.module.train()
    found = torch.where(total.isfinite(), total / max(1, count), torch.nan).numpy()
    return -found if name == "-loss" else found


def _losses(experiment: Experiment, outputs: Tensor, batch: Batch) -> tuple[Tensor, int]:
    found: Tensor = vmap(experiment.loss_fn, in_dims=(0, None), randomness="different")(outputs, batch.targets)
    return found.reshape(-1) * batch.samples, batch.samples


def _right(_: Experiment, outputs: Tensor, batch: Batch) -> tuple[Tensor, int]:
    answers = outputs.argmax(2) if outputs.dim() > 2 and outputs.shape[2] > 1 else outputs > 0
    right = (answers.flatten(1) == batch.targets.reshape(1, -1)).sum(1).double()
    return torch.where(outputs.flatten(1).isfinite().all(1), right, torch.nan), batch.targets.numel()
