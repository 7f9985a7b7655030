"""Hooks of one training, as they fire -> its steps, counted, and a look at those that are due."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from evengrad.monitor import gauges
from evengrad.monitor.cadence import Clock
from evengrad.monitor.guards import Guard
from evengrad.monitor.hooks import hook_calls
from evengrad.monitor.judging import Judge
from evengrad.monitor.layers import samples_in
from evengrad.monitor.log import Log, Value
from evengrad.monitor.looking import Looking
from evengrad.monitor.measures import Measures
from evengrad.monitor.outlets import Outlets
from evengrad.monitor.ranks import Ranks
from evengrad.monitor.replay import Call
from evengrad.monitor.scaling import LossScale, left_out, left_scale
from evengrad.trace.batch import Loss
from evengrad.types import Event, Floats


class Watcher:
    """Follows one training: counts its steps, has those measured that are due, lets the guard act. A `Listener` of the hooks.

    At a plain step, at which nothing is due, it keeps the inputs of the call and looks at one small gradient, in as few lines as can be.

    Args:
        model: What the user calls.
        core: The network inside.
        optimizers: Its optimizers.
        log: Where what is seen goes.
        clock: Which steps are due.
        guard: What steps in, or None.
        scaler: The GradScaler, or None.
        loss_fn: The loss, or None.

    Attributes:
        step: The step in progress.
        last: The last training call of the model; None before the first.
        samples: Samples in the first batch.
        outlets: Told when a step is over, or None.
        wants_backward: True if the end of the coming backward pass is to be told, where gradients before clipping are looked at.
        settled: True if there is nothing to do after the step in progress.
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
        self.step, self.samples = 0, 0
        self.last: Call | None = None
        self.outlets: Outlets | None = None
        self.wants_backward, self.settled = True, False
        self._optimizers = tuple(optimizers)
        self._log, self._clock = log, clock
        self._looking = Looking(model, core, self._optimizers, log, clock)
        self._rows, self._unseen = self._looking.rows, self._looking.unseen
        self._measures = Measures(self._rows, log)
        self._judge = Judge(core, self._optimizers, guard, log)
        self._glances = {id(o): gauges.Glance(o) for o in self._optimizers}
        self._ranks = Ranks.of(model)
        self._scale = LossScale(scaler)
        device = next((p.device for p in core.parameters()), torch.device("cpu"))
        self._call = Call(device, loss_fn)
        self._late: deque[tuple[int, float | Tensor]] | None = deque() if device.type == "cuda" and guard is None else None
        self._unhook_loss = hook_calls(loss_fn, self._on_loss) if isinstance(loss_fn, nn.Module) else None
        self._calm = guard is None and self._late is None and self._ranks is None and scaler is None  # plain steps may come
        self._plain, self._calls = False, 0
        self._stepped: set[int] = set()
        self._observed: list[tuple[str, Value]] = []
        self._inside: dict[str, Floats] = {}
        self._raw: dict[int, gauges.Reading | None] = {}

    def on_forward(self, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
        """A training call of the model is about to run."""
        self.last = call = self._call
        call.note(inputs, options, plain=self._plain)
        if call.autocast or not self._calm:
            self._see_scale(call)
        if self._stepped:
            self.finish()
        self._calls += 1
        if not self._plain and (self._calls == 1 or self._looking.failed):
            self.samples = self.samples or samples_in(inputs, options)
            if self._ranks is not None and self._rows.known and self._clock.parameters_due(self.step):
                self._ranks.listen(self._rows.weights)
            self._looking.begin(call, self.samples, self.step)

    def _on_loss(self, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
        if self.last is not None and len(inputs) > 1:
            self.last.targets = inputs[1]

    def on_backward(self) -> None:
        """Gradients are as autograd left them: before unscaling and clipping."""
        if len(self._stepped) == len(self._optimizers):  # the model is not called as a whole
            self.finish()
        self._raw = {id(o): self._looked_at(o) for o in self._optimizers}

    def before_step(self, optimizer: torch.optim.Optimizer, *, closure: bool) -> None:
        """Looks at the gradients that are about to be used, and lets the guard act.

        Raises:
            TrainingStoppedError: if the guard says so.
        """
        if id(optimizer) in self._stepped:
            self.finish()
        self.settled = self._plain and not closure and self._glances[id(optimizer)].finite()
        if self.settled:
            self._stepped.add(id(optimizer))
            self.wants_backward = self._clock.next_due <= self.step + 1
            return
        due = self._clock.parameters_due(self.step)
        if closure:
            self._unseen["guard, norm before clipping"] = "the optimizer computes gradients inside its step (a closure)"
            if due:
                self._measures.hold(optimizer, closure=True)
        elif left_out(optimizer):
            self._scaler_skip(self._scale.value)
        else:
            self._look(optimizer, left_scale(optimizer), due=due)

    def _look(self, optimizer: torch.optim.Optimizer, scale: float, *, due: bool) -> None:
        norm, taken = self._norm(optimizer, scale), True
        if norm is not None and self._late is not None:
            self._late.append((self.step, norm))
            self._read_late(keep=1)
        elif norm is not None:
            taken = self._judge.before(optimizer, self.step, float(norm), scale=scale, call=self.last)
        if due and taken:
            self._inside.update(self._looking.columns(self.last, self.step, self._scale.value))
            before_clipping = None if self._scale.unknown else norm
            reading = self._raw.get(id(optimizer))
            self._measures.before(optimizer, self.step, scale=scale, norm=before_clipping, reading=reading)
            if self.outlets is not None and self.outlets.histograms and self._rows.known and self._clock.histograms_due():
                self._measures.histograms(self.step, self.outlets)

    def after_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Looks at what the step did."""
        self._stepped.add(id(optimizer))
        self._judge.after(optimizer, self.step)
        self._measures.after(optimizer)
        self._raw.pop(id(optimizer), None)
        self.wants_backward = not self._calm or self._clock.next_due <= self.step + 1

    def observe(self, targets: Any, values: Sequence[tuple[str, Value]]) -> None:
        """Adds values of the step in progress; several of one step are averaged."""
        if self._observed and self._stepped and not dict(values).keys().isdisjoint(dict(self._observed)):
            self.finish()
        if targets is not None and self.last is not None:
            self.last.targets = targets
        self._observed += values

    def unseen(self) -> dict[str, str]:
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
        self._judge.restore()
        self._looking.end()
        if self._unhook_loss is not None:
            self._unhook_loss()
        self.last = None

    def finish(self) -> None:
        """Closes the step in progress, and begins the next."""
        if self._observed:
            self._log.points(self.step, self._observed)
            self._observed = []
        if not self._plain:
            self._finish_looking()
        if self.outlets is not None:
            self.outlets.step(self.step)
        self.step += 1
        self._stepped.clear()
        self._calls = 0
        self._plain = self._calm and self.step < self._clock.next_due
        self.wants_backward = not self._plain
        if not self._plain:
            self._clock.step_begins()

    def _finish_looking(self) -> None:
        self._clock.step_over()
        self._measures.over(self.step, self._inside)
        self._inside = {}
        if self._ranks is not None:
            self._ranks.tell(self.step, len(self._rows.weights))
        self._hear_ranks()
        if self._clock.parameters_due(self.step):
            self._clock.taken(self.step)
        self._looking.end()

    def _hear_ranks(self) -> None:
        if self._ranks is not None:
            self._ranks.planes(lambda step, norms: self._log.add_plane(step, "grad_norm_by_rank", norms))

    def _looked_at(self, optimizer: torch.optim.Optimizer) -> gauges.Reading | None:
        """The norms of all gradients if their turn has come or a glance finds something that is not finite; None if all is well."""
        due = self._judge.guard is not None or self._late is not None or self._clock.norm_due(self.step)
        if not due and self._glances[id(optimizer)].finite():
            return None
        began = time.perf_counter()
        reading = self._measures.read(optimizer, sampled=self._clock.parameters_due(self.step))
        self._clock.norm_took(self.step, time.perf_counter() - began)
        return reading

    def _norm(self, optimizer: torch.optim.Optimizer, scale: float) -> float | Tensor | None:
        """The norm before clipping, without scale; None if it was not measured at this step."""
        if id(optimizer) in self._raw and not self._scale.unknown:
            reading, scale = self._raw[id(optimizer)], self._scale.value
        else:
            reading = self._looked_at(optimizer)
        return None if reading is None else reading.total / scale

    def _read_late(self, *, keep: int) -> None:
        """Reads norms that the device has had a step to compute, so that nothing waits."""
        while self._late is not None and len(self._late) > keep:
            step, norm = self._late.popleft()
            self._judge.late(step, float(norm))

    def _see_scale(self, call: Call) -> None:
        before = self._scale.value
        if self._scale.see(call.autocast.values()) < 1.0 and self._calls and not self._stepped:
            self._scaler_skip(before)
            self.finish()
        if self._scale.value != before:
            self._log.point("loss_scale", self.step, self._scale.value)
        self._calm = self._calm and not self._scale.unknown
        if self._scale.unknown:
            self._unseen["norm before clipping"] = "float16 without scaler=: gradients may be scaled. Give watch the GradScaler"

    def _scaler_skip(self, scale: float) -> None:
        message = f"GradScaler left step {self.step:,} out: its gradients were not finite at a loss scale of {scale:g}"
        self._log.event(Event(step=self.step, kind="scaler_skip", message=message))
        self._log.point("scaler_skip", self.step, 1.0)
