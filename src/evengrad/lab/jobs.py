"""Trainings as plain data -> trained networks: jobs of one shape are trained as one network."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from evengrad.errors import InputError
from evengrad.lab import data as sources
from evengrad.lab.engine.boundary import Boundaries
from evengrad.lab.engine.evaluate import evaluate
from evengrad.lab.engine.fit import fit
from evengrad.lab.engine.losses import RunsLoss, runs_loss
from evengrad.lab.engine.plan import History, Plan, Samples
from evengrad.lab.engine.runs import Runs
from evengrad.lab.job import Data, Job, Trained
from evengrad.training import checked_device

__all__ = ["Data", "Job", "Trained", "chunks", "run_jobs"]

Array = npt.NDArray[Any]
_BUDGET = 2 * 2**30  # bytes that a chunk may take; a constant, since the size of a chunk is part of what a result is
Progress = Callable[[int, int], None]


def run_jobs(
    jobs: Sequence[Job], *, chunk: int = 64, device: str = "cpu", keep: bool = False, progress: Progress | None = None
) -> list[Trained]:
    """Trains every job and returns what each came to, in order.

    Jobs of one shape (the same network but for initialiser, scale and dropout, the same data, optimizer and sizes) are trained as one
    network, at most `chunk` at a time.

    Args:
        jobs: What to train.
        chunk: Largest number of runs in one network.
        device: Device to train on.
        keep: Return the trained networks, too.
        progress: `progress(done, total)`, called after each chunk.

    Raises:
        InputError: if data are missing, a network does not fit them, or one run does not fit into memory.
    """
    found: dict[int, Trained] = {}
    for places in chunks(jobs, chunk, device):
        found |= zip(places, _train([jobs[i] for i in places], device, keep), strict=True)
        if progress is not None:
            progress(len(found), len(jobs))
    return [found[i] for i in range(len(jobs))]


def chunks(jobs: Sequence[Job], chunk: int = 64, device: str = "cpu") -> list[list[int]]:
    """Returns the places of the jobs that are trained together, at most `chunk` and what fits into memory."""
    groups: dict[Hashable, list[int]] = {}
    for place, job in enumerate(jobs):
        groups.setdefault(job.shape(), []).append(place)
    cut = []
    for places in groups.values():
        size = min(chunk, _fitting(jobs[places[0]], device))
        cut += [places[i : i + size] for i in range(0, len(places), size)]
    return cut


def _fitting(job: Job, device: str) -> int:
    """How many runs like this fit into the budget; one, where batching does not pay: convolutions on a CPU."""
    size, convolutions = _probed(job)
    return 1 if convolutions and torch.device(device).type == "cpu" else max(1, _BUDGET // size)


def memory(job: Job) -> int:
    """Estimates the bytes that one run like this takes in training: weights, gradients, the optimizer's state, activations.

    Raises:
        InputError: if the network does not fit the data, or its weights alone do not fit into memory.
    """
    return _probed(job)[0]


@lru_cache(maxsize=256)  # chunks, their memory and their training ask for the same job
def _probed(job: Job) -> tuple[int, bool]:
    """Builds the network and calls it once: the bytes that training it takes, and whether it convolves."""
    x = job.data.split().x_train[:2]
    seen = [0]
    try:
        network = job.net.build(0)
        for module in network.modules():
            module.register_forward_hook(lambda _m, _i, output: seen.append(output.numel() if isinstance(output, Tensor) else 0))
        with torch.no_grad():
            network(x)
    except (RuntimeError, ValueError) as error:
        if "allocate memory" in str(error):
            raise InputError(
                f"a network of this size is too large for memory: {job.net.describe()}. Take a smaller width or depth"
            ) from error
        shape = tuple(x.shape[1:])
        raise InputError(
            f"the network does not fit the data set {job.data.name!r}, whose samples have the shape {shape}: {error}"
        ) from error
    weights = sum(p.numel() for p in network.parameters())
    convolutions = any(isinstance(m, nn.modules.conv._ConvNd) for m in network.modules())
    return 4 * (6 * weights + 4 * sum(seen) * job.batch_size // 2), convolutions


def _train(jobs: Sequence[Job], device: str, keep: bool) -> list[Trained]:
    first, count = jobs[0], len(jobs)
    where = checked_device(device)
    split = first.data.split()
    runs = Runs([job.net.build(job.seed) for job in jobs], where)
    train, validation = _samples(jobs, split, where)
    test = Samples(x=split.x_test.to(where), y=split.y_test.to(where))
    runs.module.eval()
    with torch.no_grad():
        outputs = runs.module(train.x[:2].expand(count, -1, *train.x.shape[1:])).shape[-1]
    loss = runs_loss(first.loss, train.y, outputs)
    boundaries = Boundaries.of([job.boundary for job in jobs], train.x)
    watched = (test if validation is None else validation).first(first.evaluate_samples)
    history = fit(runs, train, _plan(jobs, loss, train.count), validation=watched, probe=boundaries)
    ends = {"train_": train.first(first.evaluate_samples), "test_": test} | ({} if validation is None else {"val_": watched})
    final: dict[str, Array] = {}
    for prefix, samples in ends.items():
        final |= {name: value.double().cpu().numpy() for name, value in evaluate(runs, samples, loss, prefix).items()}
    watch = "test_" if validation is None else "val_"
    curves = {k.replace("val_", watch): np.stack(v) for k, v in history.curves.items()}
    return [
        Trained(
            job=job,
            values=_values(job, k, final=final, curves=curves, history=history, watch=watch),
            series=_series(k, curves, history) | (boundaries.series(k) if boundaries else {}),
            layers=runs.layers,
            network=runs.network(k) if keep else None,
        )
        for k, job in zip(range(count), jobs, strict=True)
    ]


def _samples(jobs: Sequence[Job], split: sources.Split, device: torch.device) -> tuple[Samples, Samples | None]:
    parts = [job.data.parts(split, job.seed) for job in jobs]
    x, y = split.x_train.to(device), split.y_train.to(device)
    train, held = (None if p[0] is None else torch.from_numpy(np.stack(p)).to(device) for p in zip(*parts, strict=True))
    return Samples(x=x, y=y, index=train), None if held is None else Samples(x=x, y=y, index=held)


def _plan(jobs: Sequence[Job], loss: RunsLoss, samples: int) -> Plan:
    first = jobs[0]
    per_epoch = math.ceil(samples / first.batch_size)
    return Plan(
        loss=loss,
        optimizers=tuple(job.optimizer for job in jobs),
        seeds=tuple(job.seed for job in jobs),
        epochs=first.epochs,
        batch_size=first.batch_size,
        clips=tuple(job.clip for job in jobs if job.clip is not None),
        schedule=first.schedule,
        l1=tuple(job.l1 for job in jobs),
        patience=first.patience,
        evaluate_every=first.evaluate_steps or first.evaluate_every * per_epoch,
        record_every=first.record_steps or first.record * per_epoch,
        signals=first.signals,
    )


def _values(job: Job, k: int, *, final: dict[str, Array], curves: dict[str, Array], history: History, watch: str) -> dict[str, float]:
    values = {name: float(v[k]) for name, v in final.items()}
    values |= {"diverged": float(not math.isfinite(values["train_loss"])), "stopped_at": float(history.stopped_at[k])}
    if job.target is not None:
        reached = np.flatnonzero(curves[watch + "accuracy"][:, k] >= job.target)
        values["steps_to_target"] = float(history.steps[reached[0]]) if len(reached) else math.nan
    return values


def _series(k: int, curves: dict[str, Array], history: History) -> dict[str, Array]:
    found: dict[str, Array] = {}
    if curves:
        found |= {"steps": np.array(history.steps)} | {name: v[:, k] for name, v in curves.items()}
    if history.record_steps:
        found |= {"record_steps": np.array(history.record_steps)} | {name: np.stack(v)[:, :, k] for name, v in history.columns.items()}
    return found
