"""Hooks of one training, as they fire -> what goes into its log."""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evengrad.monitor import gauges
from evengrad.monitor.cadence import Clock
from evengrad.monitor.guards import Guard, Situation
from evengrad.monitor.guards.base import Norms, TrainingStoppedError
from evengrad.monitor.hooks import hook_calls
from evengrad.monitor.layers import samples_in
from evengrad.monitor.log import Log
from evengrad.monitor.looking import Looking
from evengrad.monitor.outlets import Outlets
from evengrad.monitor.ranks import Ranks
from evengrad.monitor.replay import Call
from evengrad.monitor.scaling import LossScale, left_out, left_scale
from evengrad.trace.batch import Loss
from evengrad.types import Event, Floats


class Watcher:
    """Follows one training: counts its steps, measures those that are due, lets the guard act. A `Listener` of the hooks.

    Args:
        model: What the user calls.
        core: The network inside.
        optimizers: Its optimizers.
        log: Where what is seen goes.
        clock: Which steps are due.
        guard: What steps in, or None.
        scaler: The GradScaler, or None.
        loss_fn: The loss, or None.
    """

    def __init__(
        self,
        model: nn.Module,
        core: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        *,
        log: Log,
        clock: Clock,
        guard: Guard | None = None,
        scaler: Any = None,
        loss_fn: Loss | None = None,
    ) -> None:
        self.step = 0  # the one in progress
        self.last: Call | None = None
        self.samples = 0
        self.outlets: Outlets | None = None
        self._core, self._optimizers = core, tuple(optimizers)
        self._log, self._clock, self._guard = log, clock, guard
        self._looking = Looking(model, core, self._optimizers, log, clock)
        self._rows, self._unseen = self._looking.rows, self._looking.unseen
        self._norms = {id(o): Norms() for o in self._optimizers}
        self._ranks = Ranks.of(model)
        self._frame: dict[str, Floats] = {}
        self._observed: dict[str, list[Tensor | float]] = {}
        self._stepped: set[int] = set()
        self._calls = 0
        self._held: dict[int, gauges.Held] = {}
        self._dropped: list[tuple[Tensor, Tensor]] = []
        self._raw: dict[int, Tensor | None] = {}
        self._scale = LossScale(scaler)
        self._found_bad = False
        self._device = next((p.device for p in core.parameters()), torch.device("cpu"))
        self._late: deque[tuple[int, Tensor]] | None = deque() if self._device.type == "cuda" and guard is None else None
        self._loss_fn = loss_fn
        self._unhook_loss = hook_calls(loss_fn, self._on_loss) if isinstance(loss_fn, nn.Module) else None

    @property
    def wants_backward(self) -> bool:
        """True if the end of the coming backward pass is to be told: where gradients before clipping are looked at."""
        return self._guard is not None or self._clock.norm_due(self.step + bool(self._stepped))

    def on_forward(self, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
        """A training call of the model is about to run."""
        with self._clock:
            self._see_scale()
            if self._stepped:
                self.finish()
            self.last = Call.of(self._device, inputs, options, loss_fn=self._loss_fn, random=self._looking.draws_numbers)
            self._calls += 1
            if self._calls == 1 or self._looking.failed:
                self.samples = self.samples or samples_in(inputs, options)
                if self._ranks is not None and self._rows.known and self._clock.parameters_due(self.step):
                    self._ranks.listen(self._rows.weights)
                self._looking.begin(self.last, self.samples, self.step)

    def _on_loss(self, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
        if self.last is not None and len(inputs) > 1:
            self.last.targets = inputs[1]

    def on_backward(self) -> None:
        """Gradients are as autograd left them: before unscaling and clipping."""
        with self._clock:
            self._raw = {id(o): self._looked_at(o) for o in self._optimizers}

    def before_step(self, optimizer: torch.optim.Optimizer, *, closure: bool) -> None:
        """Looks at the gradients that are about to be used, and lets the guard act.

        Raises:
            TrainingStoppedError: if the guard says so.
        """
        with self._clock:
            if id(optimizer) in self._stepped:
                self.finish()
            if closure:
                self._unseen["guard, norm before clipping"] = "the optimizer computes gradients inside its step (a closure)"
                self._hold(optimizer)
                return
            if left_out(optimizer):
                self._scaler_skip(self._scale.value)
                return
            scale = left_scale(optimizer)
            stop, norm = None, self._norm(optimizer, scale)
            if norm is not None and self._late is not None:
                self._late.append((self.step, norm))
                self._read_late(keep=1)
            elif norm is not None:
                self._log.point("grad_norm", self.step, float(norm))
                stop = self._judge(optimizer, float(norm), scale)
            if self._clock.parameters_due(self.step) and not self._dropped:
                self._measure(optimizer, scale, norm)
        if stop is not None:
            self._restore_gradients()
            raise TrainingStoppedError(stop.message)

    def after_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Looks at what the step did."""
        with self._clock:
            self._restore_gradients()
            held = self._held.pop(id(optimizer), None)
            if held is not None:
                self._merge(self._rows.gauge.after(held))
            if self._guard is not None:
                self._guard.after(self._core, optimizer, self.step)
            self._stepped.add(id(optimizer))
            self._raw.pop(id(optimizer), None)
            self._clock.step_over()

    def observe(self, targets: Any, values: Mapping[str, Tensor | float]) -> None:
        """Adds values of the step in progress; several of one step are averaged."""
        if self._stepped and any(name in self._observed for name in values):
            self.finish()
        if targets is not None and self.last is not None:
            self.last.targets = targets
        for name, value in values.items():
            self._observed.setdefault(name, []).append(value.detach() if isinstance(value, Tensor) else float(value))

    def skipped(self) -> dict[str, str]:
        """Returns what was not looked at, and why."""
        found = dict(self._unseen)
        if not self._rows.known:
            found["layers"] = "the model was not called as model(x) while it trained, or its first step is not over"
        if "loss" not in self._log.names:
            found["loss"] = "monitor.observe(loss=loss) was not called"
        return found

    def settle(self) -> None:
        """Closes the step in progress if its optimizer has stepped, so that all of it is in the log."""
        if self._stepped:
            self.finish()
        self._read_late(keep=0)
        self._hear_ranks()

    def close(self) -> None:
        """Ends what is still open."""
        self.settle()
        self._restore_gradients()
        self._looking.end()
        if self._unhook_loss is not None:
            self._unhook_loss()
        self.last = None

    def finish(self) -> None:
        """Closes the step in progress, and begins the next."""
        for name, values in self._observed.items():
            self._log.point(name, self.step, statistics.fmean(float(v) for v in values))
        if self._frame:
            self._log.add(self.step, self._frame)
        if self._ranks is not None:
            self._ranks.tell(self.step, len(self._rows.weights))
        self._hear_ranks()
        if self._clock.parameters_due(self.step):
            self._clock.taken(self.step)
        self._looking.end()
        self._frame, self._observed = {}, {}
        self._stepped.clear()
        self._calls = 0
        if self.outlets is not None:
            self.outlets.step(self.step)
        self.step += 1

    def _hear_ranks(self) -> None:
        if self._ranks is not None:
            self._ranks.planes(lambda step, norms: self._log.add_plane(step, "grad_norm_by_rank", norms))

    def _looked_at(self, optimizer: torch.optim.Optimizer) -> Tensor | None:
        """The norm of all gradients if its turn has come or a quick look finds something that is not finite; None if all is well."""
        due = self._guard is not None or self._late is not None or self._clock.norm_due(self.step)
        if not due and gauges.seems_finite(optimizer):
            return None
        parameters = gauges.with_gradient(optimizer)
        began = time.perf_counter()
        norm = gauges.total_norm(parameters)
        self._clock.norm_took(self.step, time.perf_counter() - began)
        return norm

    def _norm(self, optimizer: torch.optim.Optimizer, scale: float) -> Tensor | None:
        """The norm before clipping, without scale; None if it was not measured at this step."""
        if id(optimizer) in self._raw and not self._scale.unknown:
            raw = self._raw[id(optimizer)]
            return None if raw is None else raw / self._scale.value
        norm = self._looked_at(optimizer)
        return None if norm is None else norm / scale

    def _read_late(self, *, keep: int) -> None:
        """Reads norms that the device has had a step to compute, so that nothing waits."""
        while self._late is not None and len(self._late) > keep:
            step, norm = self._late.popleft()
            self._log.point("grad_norm", step, float(norm))
            if not math.isfinite(float(norm)) and not self._found_bad:
                self._found_bad = True
                message = (
                    f"first gradient that is not finite at step {step:,}, seen when it had been used; guard='skip' finds its operation"
                )
                self._log.event(Event(step=step, kind="bad_operation", message=message))

    def _judge(self, optimizer: torch.optim.Optimizer, norm: float, scale: float) -> Event | None:
        if not math.isfinite(norm) and not self._found_bad:
            self._found_bad = True
            self._log.event(self._first_bad_operation())
        norms = self._norms[id(optimizer)]
        event = None
        if self._guard is not None:
            at = Situation(self._core, optimizer, self.step, norm, norms, scale, lambda: self._drop(optimizer))
            event = self._guard.before(at)
        if event is not None:
            self._log.event(event)
            self._log.point(event.kind, self.step, 1.0)
        if not self._dropped:
            norms.add(norm)
        return event if event is not None and event.kind == "stop" else None

    def _first_bad_operation(self) -> Event:
        found = self.last.first_bad_operation(self._core) if self.last is not None else None
        message = found.message if found is not None else "its operation was not found when the step was run again"
        message = f"first gradient that is not finite at step {self.step:,}: {message}"
        return Event(step=self.step, kind="bad_operation", message=message, where=found.module if found is not None else "")

    def _restore_gradients(self) -> None:
        for parameter, gradient in self._dropped:
            parameter.grad = gradient
        self._dropped = []

    def _drop(self, optimizer: torch.optim.Optimizer) -> None:
        for parameter in gauges.with_gradient(optimizer):
            assert parameter.grad is not None
            self._dropped.append((parameter, parameter.grad))
            parameter.grad = None

    def _measure(self, optimizer: torch.optim.Optimizer, scale: float, norm: Tensor | None) -> None:
        """Looks into the gradients that are used, the weights, and, if it was looked at, the forward pass."""
        self._log.point("lr", self.step, float(optimizer.param_groups[0]["lr"]))
        self._merge(self._looking.columns(self.last, self.step, self._scale.value))
        self._hold(optimizer, scale)
        if self.outlets is not None and self.outlets.histograms and self._rows.known and self._clock.histograms_due():
            self._histograms(self.outlets)
        rows = {id(w) for w in self._rows.weights}
        others = float(gauges.total_norm([p for p in gauges.with_gradient(optimizer) if id(p) not in rows])) / scale
        own = self._frame.get("grad_norm", np.zeros(0, np.float32))[self._own_rows(optimizer)].astype(np.float64)
        consumed = math.hypot(others, *own[~np.isnan(own)])
        self._log.point("grad_norm_used", self.step, consumed)
        if norm is not None and math.isfinite(float(norm)) and not self._scale.unknown:
            self._log.point("clipped", self.step, float(consumed < 0.999 * float(norm)))

    def _hold(self, optimizer: torch.optim.Optimizer, scale: float = 1.0) -> None:
        if not self._rows.known:
            return
        columns, self._held[id(optimizer)] = self._rows.gauge.before(self._own_rows(optimizer), scale)
        self._merge(columns)

    def _own_rows(self, optimizer: torch.optim.Optimizer) -> list[int]:
        owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
        return [i for i, weight in enumerate(self._rows.weights) if id(weight) in owned]

    def _histograms(self, outlets: Outlets) -> None:
        for layer, weight in zip(self._rows.layers, self._rows.weights, strict=True):
            for kind, values in (("gradients", weight.grad), ("weights", weight)):
                found = gauges.histogram(values) if values is not None else None
                if found is not None:
                    outlets.histogram(self.step, kind, layer, *found)

    def _merge(self, columns: Mapping[str, Floats]) -> None:
        """Adds columns to the step's, where each optimizer knows its own rows."""
        for name, values in columns.items():
            before = self._frame.get(name)
            self._frame[name] = values if before is None else np.where(np.isnan(values), before, values)

    def _see_scale(self) -> None:
        before = self._scale.value
        if self._scale.see() < 1.0 and self._calls and not self._stepped:
            self._scaler_skip(before)
            self.finish()
        if self._scale.value != before:
            self._log.point("loss_scale", self.step, self._scale.value)
        if self._scale.unknown:
            self._unseen["norm before clipping"] = "float16 without scaler=: gradients may be scaled. Give watch the GradScaler"

    def _scaler_skip(self, scale: float) -> None:
        message = f"GradScaler left step {self.step:,} out: its gradients were not finite at a loss scale of {scale:g}"
        self._log.event(Event(step=self.step, kind="scaler_skip", message=message))
        self._log.point("scaler_skip", self.step, 1.0)
