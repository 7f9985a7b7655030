"""A model and a batch, or an experiment -> Report: measure, judge, and intervene on a copy to find causes."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from evengrad.errors import InputError
from evengrad.intervene import Bench, add_causes
from evengrad.judge import chosen_rules, report_of
from evengrad.monitor.replay import Call
from evengrad.recording import Recording, trace_of
from evengrad.report import Report
from evengrad.rig import Rig
from evengrad.rules import Rule
from evengrad.trace.adapters import adapted
from evengrad.trace.batch import Batch, Loss
from evengrad.trace.capture import tensors_in
from evengrad.training import Experiment, TrainResult, build, checked_device, first_batch, loop_facts, train, validation_of
from evengrad.types import SEVERITIES, Event, Finding, Trace

_SHARE = 0.5  # of the planned steps: as many may be trained again in search of causes


def check(
    model: nn.Module,
    inputs: Any,
    targets: Any = None,
    loss_fn: Loss | None = None,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    rules: Sequence[Rule] | None = None,
    device: str | torch.device | None = None,
    seed: int = 0,
    causes: bool = True,
    select: Iterable[str] | None = None,
    ignore: Iterable[str] | None = None,
) -> Report:
    """Measures one forward and backward pass before any training, judges it, and names causes by experiment.

    The model runs in train mode and is left as it was to the bit: parameters, gradients, buffers, generators, mode and hooks.
    Interventions run on a copy.

    Args:
        model: Any module; a compiled one is looked at uncompiled.
        inputs: A tensor is called as model(x), a tuple as model(*x), a mapping as model(**x).
        targets: What the loss compares with.
        loss_fn: `loss_fn(output, targets) -> scalar`; without it the output's own `.loss`, else a fixed random projection is used.
        optimizer: Lets rates and parameters without optimizer be judged.
        rules: Rules with thresholds of one's own.
        device: Device to measure on, on a copy of the model; None measures where the model is.
        seed: Seed of dropout during the pass, and of interventions.
        causes: False leaves the interventions out.
        select: Codes, or beginnings of codes, to look for.
        ignore: Codes, or beginnings of codes, to leave out.

    Raises:
        InputError: if an argument does not fit.
        ForwardError: if the model raises.

    Example:
        >>> report = eg.check(model, x, y, nn.CrossEntropyLoss())
    """
    started = time.perf_counter()
    model = adapted(model)
    if not isinstance(model, nn.Module):
        raise InputError(f"check needs an nn.Module; got {type(model).__name__}. For an Experiment, use diagnose or fix")
    model = getattr(model, "_orig_mod", model)
    batch = _tensors(Batch(inputs, targets))
    if not batch.samples:
        raise InputError("the batch is empty: the inputs hold no sample")
    if not any(p.requires_grad for p in model.parameters()):
        raise InputError("the model has no parameter with requires_grad: no gradient can be looked at. Unfreeze a layer")
    if device is not None:
        model, batch = copy.deepcopy(model).to(checked_device(device)), batch.to(checked_device(device))
    rig = Rig(model, optimizer, loss_fn, lambda epoch: iter((batch,)), seed=seed)
    return check_rig(rig, batch, chosen_rules(rules, select, ignore), causes=causes, started=started)


def check_rig(
    rig: Rig, batch: Batch, rules: Sequence[Rule], *, causes: bool = True, started: float | None = None, name: str = ""
) -> Report:
    """Checks a rig on one batch: what `check` and the first look of `fix` share."""
    started = time.perf_counter() if started is None else started
    trace = trace_of(rig, batch, name=name)
    if (trace.facts.inputs or {}).get("nonfinite_fraction") == 1.0:
        raise InputError("every input value is NaN or infinite: nothing can be measured. Look at how the data are loaded")
    report = report_of(trace, rules)
    if causes:
        report = add_causes(report, Bench(rig, batch, {rule.code: rule for rule in rules}))
    return replace(report, run=replace(trace.run, seconds=time.perf_counter() - started))


def diagnose(
    experiment: Experiment,
    *,
    seed: int = 0,
    max_seconds: float | None = None,
    rules: Sequence[Rule] | None = None,
    select: Iterable[str] | None = None,
    ignore: Iterable[str] | None = None,
) -> Report:
    """Trains the experiment once with every layer watched on sampled steps, judges the run, and intervenes for causes.

    Steps are sampled densely at first, then spaced. A fault that is there before the first step is examined on the first batch; one that
    only training shows by training some steps again with each change. What is tried depends on the seed alone, never on how fast the
    machine is, unless `max_seconds` cuts it short.

    Args:
        experiment: What to train.
        seed: Seed of the run.
        max_seconds: Wall-clock budget of the training and of the search for causes.
        rules: Rules with thresholds of one's own.
        select: Codes, or beginnings of codes, to look for.
        ignore: Codes, or beginnings of codes, to leave out.

    Example:
        >>> report = eg.diagnose(experiment)
        >>> print(report.causes)
    """
    return diagnose_run(experiment, chosen_rules(rules, select, ignore), seed=seed, max_seconds=max_seconds)[0]


def diagnose_run(
    experiment: Experiment, rules: Sequence[Rule], *, seed: int = 0, max_seconds: float | None = None, causes: bool = True, name: str = ""
) -> tuple[Report, TrainResult]:
    """Diagnoses, and returns the training that was watched as well: it is the experiment's own, to the bit."""
    started = time.perf_counter()
    recording = Recording(name=name, loop=loop_facts(experiment), validation=validation_of(experiment))
    result = train(experiment, seed=seed, watcher=recording, max_seconds=max_seconds)
    trace = recording.trace(result.losses, seconds=result.seconds)
    if max_seconds is None or result.seconds < max_seconds:
        trace = _planned(trace)
    if not np.isfinite(result.losses).all():
        trace = replace(trace, events=_first_bad_operation(experiment, seed, int(np.argmin(np.isfinite(result.losses)))))
    report = report_of(trace, rules)
    if causes and report.findings:
        rig = build(experiment, seed)
        by_code, until = {rule.code: rule for rule in rules}, math.inf if max_seconds is None else started + max_seconds
        report = add_causes(report, Bench(rig, first_batch(rig), by_code, experiment, _budget(trace), until, recording.snapshot))
    run = replace(trace.run, seconds=time.perf_counter() - started, verb="diagnose")
    return replace(report, run=run), result


def _planned(trace: Trace) -> Trace:
    """Takes the steps of a run that ended by itself for those that were planned, where data without a length told nothing before."""
    loop, losses = trace.facts.loop or {}, trace.curves["loss"].values
    if "steps" in loop or not np.isfinite(losses).all():
        return trace
    return replace(trace, facts=replace(trace.facts, loop={**loop, "steps": len(losses)}))


def _budget(trace: Trace) -> int:
    """Steps that may be trained again: a share of those that are planned."""
    taken = len(trace.curves["loss"].steps)
    return int(_SHARE * max(taken, int((trace.facts.loop or {}).get("steps", taken))))


class _Scan:
    """A `Watcher` that runs the last two steps before a loss that is not finite with instruments, and keeps the first bad operation."""

    def __init__(self, last: int) -> None:
        self.found: tuple[Event, ...] = ()
        self._steps = range(last - 1, last + 1)

    def before(self, rig: Rig, batch: Batch) -> None:
        if self.found or rig.step not in self._steps:
            return
        inputs = batch.inputs
        named = inputs if isinstance(inputs, Mapping) else {}
        args = () if named else tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
        step = Call(rig.device, rig.loss_fn)
        step.note(args, named)
        step.targets = batch.targets
        bad = step.first_bad_operation(rig.model)
        if bad is not None:
            message = f"first value that is not finite at step {rig.step:,}: {bad.message}"
            self.found = (Event(step=rig.step, kind="bad_operation", message=message, where=bad.where),)

    def after(self, rig: Rig, batch: Batch, loss: torch.Tensor) -> None:
        pass


def _first_bad_operation(experiment: Experiment, seed: int, step: int) -> tuple[Event, ...]:
    """Trains again to the step whose loss is not finite: gradients of the step before may have spoiled the weights."""
    scan = _Scan(step)
    train(experiment, seed=seed, watcher=scan, max_steps=step + 1)
    return scan.found


def errors(findings: Iterable[Finding], at_least: str = "error") -> list[Finding]:
    """Returns the findings of this severity and above."""
    return [f for f in findings if SEVERITIES.index(f.severity) <= SEVERITIES.index(at_least)]


def _tensors(batch: Batch) -> Batch:
    """Lets numpy arrays in: float64 becomes float32, as in an Experiment."""

    def convert(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            tensor = torch.as_tensor(value)
            return tensor.float() if tensor.dtype == torch.float64 else tensor
        return value

    converted = Batch(convert(batch.inputs), convert(batch.targets))
    if next(tensors_in(converted.inputs), None) is None and not isinstance(converted.inputs, dict):
        raise InputError(f"inputs must be a tensor, a tuple or a mapping of tensors; got {type(batch.inputs).__name__}")
    return converted
