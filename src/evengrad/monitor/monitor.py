"""A model and its optimizer, in a loop of the user's own -> a monitor that sees every step and changes nothing."""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from evengrad.errors import InputError
from evengrad.judge import chosen_rules, report_of
from evengrad.monitor.cadence import Cadence, Clock
from evengrad.monitor.console import Panel
from evengrad.monitor.guards import Guard, resolved
from evengrad.monitor.guards.base import TrainingStoppedError
from evengrad.monitor.hooks import attach
from evengrad.monitor.log import Log, Value
from evengrad.monitor.outlets import Outlets
from evengrad.monitor.watcher import Watcher
from evengrad.report import Report
from evengrad.rules import Rule
from evengrad.sinks import Sink
from evengrad.sinks import resolved as resolved_sinks
from evengrad.store import RunFile, default_folder
from evengrad.trace.adapters import adapted
from evengrad.trace.batch import Loss
from evengrad.types import Event, Finding, Run, Trace


def watch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
    *,
    loss_fn: Loss | None = None,
    scaler: Any = None,
    name: str | None = None,
    every: int | Cadence | None = None,
    guard: str | Guard | None = None,
    store: str | Path | bool | None = None,
    sinks: Sequence[str | Sink] = (),
    live: bool = False,
    rules: Sequence[Rule] | None = None,
    select: Iterable[str] | None = None,
    ignore: Iterable[str] | None = None,
) -> Monitor:
    """Watches a training loop that stays as it is; the run does not change by a bit.

    Steps are seen through the optimizer's own hooks. At sampled steps gradients, weights and true updates of every layer are measured, and,
    as the budget allows, what flows through the layers. Nothing is hooked inside the model.

    Args:
        model: The network, as the loop calls it (also compiled, or wrapped in DistributedDataParallel).
        optimizer: Its optimizer, or several.
        loss_fn: The loss, so that a step that goes wrong can be run again to its end; an `nn.Module` is asked for its targets, too.
        scaler: The GradScaler, if the loop has one.
        name: What the run is called; the model's class name otherwise.
        every: Steps between looks; a `Cadence` says more. By default steps are dense at first, then spaced, for 1% of the time.
        guard: `warn`, `clip`, `skip`, `rollback` or `stop` (or a guard of one's own): what to do about a bad step. None watches only.
        store: Folder in which the run gets a file of its own (`evengrad report` reads it); True takes the usual one (EVENGRAD_STORE).
        sinks: Other places to write to: `"tensorboard"`, `"csv"`, `"parquet"`, or sinks made by hand.
        live: True shows a panel in the terminal while it trains.
        rules: Rules with thresholds of one's own.
        select: Codes, or beginnings of codes, to look for.
        ignore: Codes, or beginnings of codes, to leave out.

    Raises:
        InputError: if an argument does not fit.
        StoreError: if the run's file cannot be made.

    Example:
        >>> with eg.watch(model, optimizer) as monitor:
        ...     for x, y in loader:
        ...         optimizer.zero_grad()
        ...         loss = loss_fn(model(x), y)
        ...         loss.backward()
        ...         optimizer.step()
        ...         monitor.observe(loss=loss)
        >>> print(monitor.report())
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"watch needs an nn.Module; got {type(model).__name__}")
    optimizers = (optimizer,) if isinstance(optimizer, torch.optim.Optimizer) else tuple(optimizer)
    for one in optimizers:
        if not isinstance(one, torch.optim.Optimizer):
            raise InputError(
                f"watch needs a torch.optim.Optimizer, or several; got {type(one).__name__}. Give the optimizer that the loop steps"
            )
    owned = {id(p) for p in model.parameters()}
    if not any(id(p) in owned for one in optimizers for group in one.param_groups for p in group["params"]):
        raise InputError(
            "the optimizer has none of the model's parameters: its steps say nothing of this model. Give the two that belong together"
        )
    cadence = Cadence(parameters=every, layers=every) if isinstance(every, int) else every or Cadence()
    return Monitor(
        model,
        optimizers,
        loss_fn=loss_fn,
        scaler=scaler,
        name=name,
        cadence=cadence,
        guard=copy.deepcopy(resolved(guard)),
        rules=chosen_rules(rules, select, ignore),
        store=None if store is None or store is False else default_folder() if store is True else Path(store),
        sinks=resolved_sinks(sinks),
        live=live,
    )


class Monitor:
    """What `watch` returns: sees a training until it is detached, and reports at any time.

    Attributes:
        detached: True once nothing is watched any more.
        path: The run's file, or None.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: tuple[torch.optim.Optimizer, ...],
        *,
        loss_fn: Loss | None,
        scaler: Any,
        name: str | None,
        cadence: Cadence,
        guard: Guard | None,
        rules: Sequence[Rule],
        store: Path | None,
        sinks: Sequence[Sink],
        live: bool,
    ) -> None:
        self.detached = self._faulted = False
        self._core = adapted(core_of(model))
        self._rules = rules
        self._log, self._clock = Log(fresh=store is not None or bool(sinks)), Clock(cadence)
        self._watcher = Watcher(
            model, self._core, optimizers, log=self._log, clock=self._clock, guard=guard, scaler=scaler, loss_fn=loss_fn
        )
        self._began, self._ended = time.perf_counter(), math.nan
        parameters = sum(p.numel() for p in self._core.parameters() if p.requires_grad)
        device = str(next((p.device for p in self._core.parameters()), "cpu"))
        kind = type(self._core).__name__
        self._run = Run(name=name or kind, model=kind, parameters=parameters, samples=0, device=device, verb="watch")
        self._judged: tuple[int, tuple[Finding, ...]] = (0, ())
        panel = Panel(title=self._run.name) if live else None
        file = RunFile.create(store, self._run.name) if store is not None else None
        self.path = file.path if file is not None else None
        if file is not None or sinks or panel is not None:
            self._watcher.outlets = Outlets(
                self._log, lambda: self._about, file=file, sinks=sinks, panel=panel, judged=self._judge_sometimes
            )
        self._remove = attach(model, optimizers, self._watcher, clock=self._clock, failed=self._failed)

    def observe(self, *, targets: Any = None, **values: Tensor | float) -> None:
        """Adds numbers of the step in progress to the run's curves; no tensor is read before it has to be.

        Args:
            targets: What the loss compares with, so that a bad step can be run again to its end.
            values: `loss=loss`, `val_loss=...`, `accuracy=...`: scalars, tensors or numbers; several of one step are averaged.

        Raises:
            InputError: if a value is no scalar.
        """
        began = time.perf_counter()
        told = [(name, _scalar(name, value)) for name, value in values.items()]
        if not self.detached:
            try:
                self._watcher.observe(targets, told)
            except Exception as error:
                self._failed(error)
            self._clock.spent += time.perf_counter() - began

    @property
    def trace(self) -> Trace:
        """What has been seen so far."""
        self._safely(self._watcher.settle)
        return self._log.trace(self._about)

    @property
    def _about(self) -> Run:
        seconds = (self._ended if self.detached else time.perf_counter()) - self._began
        return replace(self._run, samples=self._watcher.samples, seconds=seconds, unseen=self._watcher.unseen())

    def _judge_sometimes(self) -> tuple[Trace, tuple[Finding, ...]]:
        """For the panel: a trace, and findings that are judged anew when a tenth more has been sampled."""
        trace = self._log.trace(self._about)
        if len(trace.steps) >= 1.1 * self._judged[0] + 1:
            self._judged = len(trace.steps), report_of(trace, self._rules).findings
        return trace, self._judged[1]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What the rules say of it."""
        return self.report().findings

    @property
    def overhead(self) -> float:
        """Share of the time since the watch began that went into watching, in [0, 1]."""
        return self._clock.spent / max(self._clock.elapsed, 1e-9)

    def report(self) -> Report:
        """Judges what has been seen so far; the training can go on."""
        return report_of(self.trace, self._rules)

    def _repr_html_(self) -> str:
        from evengrad.report.notebook import shown

        return shown(self.report())

    def detach(self) -> None:
        """Ends the watch and removes every hook; can be called twice."""
        if not self.detached:
            self.detached, self._ended = True, time.perf_counter()
            self._remove()
            self._safely(self._watcher.close)
            if self._watcher.outlets is not None:
                self._watcher.outlets.close(self._log.trace(self._about))

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> bool:
        self.detach()
        return isinstance(error, TrainingStoppedError)

    def _safely(self, work: Callable[[], None]) -> None:
        """Runs our own code so that its faults never stop the training."""
        try:
            work()
        except Exception as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        """Ends the watch after a fault of our own, and tells the user once; a guard that stops the training is none."""
        if isinstance(error, TrainingStoppedError):
            raise error
        if self._faulted:
            return  # what ends a watch can meet the same fault
        self._faulted = True
        message = f"watching stopped at step {self._watcher.step:,}: {type(error).__name__}: {error}. The training goes on as it is"
        self._log.event(Event(step=self._watcher.step, kind="fault", message=message))
        self.detach()
        warnings.warn(f"evengrad: {message}", RuntimeWarning, stacklevel=3)


def _scalar(name: str, value: Tensor | float) -> Value:
    """The value as a number; on a GPU, where reading it would wait, as it is."""
    number: Any = value
    if isinstance(value, Tensor):
        if not value.is_cpu and value.numel() == 1:
            return value.detach()
        if value.is_cpu:
            number = value.tolist()  # a number, and not of the cost of item(), which asks torch's dispatcher
            number = value.item() if isinstance(number, list) and value.numel() == 1 else number
    if isinstance(number, (int, float)):
        return number
    got = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
    raise InputError(f"observe takes scalars; {name} is {got}")


def core_of(model: nn.Module) -> nn.Module:
    """Returns the network inside what the user calls: without torch.compile's wrapper and without DataParallel's."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = model.module
        if inner is None:
            return model
        model = inner
