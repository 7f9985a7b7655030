"""A trained job -> Trace: what the engine recorded of one run, for the same rules that judge a `check`."""

from __future__ import annotations

import numpy as np
import torch

from evengrad.lab.job import Trained
from evengrad.trace.batch import call
from evengrad.trace.capture import Capture
from evengrad.trace.isolation import untouched
from evengrad.trace.structure import read_structure
from evengrad.types import Curve, Facts, Layer, Run, Trace

_OWN = {"steps", "record_steps", "weight_change", "boundary", "boundary_epochs", "boundary_box"}  # no columns or curves of a trace


def trace_of(trained: Trained) -> Trace:
    """Returns the trace of a job that recorded gradients; what was not recorded is absent, and the rules that need it are skipped.

    Raises:
        KeyError: if the job recorded nothing (`record=0`).
    """
    job, series = trained.job, trained.series
    layers = _layers(trained)
    steps = series["record_steps"]
    places = {name: i for i, name in enumerate(trained.layers)}
    rows = [places[layer.weight.removesuffix(".weight")] for layer in layers]
    columns = {
        name: v[:, rows].astype(np.float32) for name, v in series.items() if name not in _OWN and v.shape[:1] == steps.shape and v.ndim == 2
    }
    curves = {name: Curve(series["steps"], v.astype(np.float64)) for name, v in series.items() if name not in _OWN and v.ndim == 1}
    network = job.net.kind
    run = Run(name=f"{network} on {job.data.name}", model=network, parameters=sum(x.parameters for x in layers), samples=job.batch_size)
    return Trace(
        run=run,
        layers=layers,
        facts=Facts(mode="train"),
        steps=steps.astype(np.int64),
        columns=columns,
        curves=curves if "steps" in series else {},
    )


def _layers(trained: Trained) -> tuple[Layer, ...]:
    model = trained.job.net.build(trained.job.seed)
    x = trained.job.data.split().x_train[:2]
    with untouched(model, seed=0), torch.no_grad(), (capture := Capture(model)):
        capture.inputs(x)
        found = read_structure(capture, call(model, x)).layers
    known = set(trained.layers)
    return tuple(layer for layer in found if layer.weight.removesuffix(".weight") in known)
