"""How much watching has cost so far -> which steps are looked into."""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from dataclasses import dataclass

from evengrad.errors import InputError

_ENOUGH_STEPS = 5  # plain steps from which it is known how long one takes
_RAREST = 16  # steps between two norms of all gradients, at most


@dataclass(frozen=True, kw_only=True)
class Cadence:
    """Which steps are looked into, and how far.

    Gradients, weights and updates are looked into at every step at first, then at steps that lie ever further apart (10% each): 64 of the
    first 1,000. What flows through the layers costs more; it is looked into at those of these steps for which half of the budget has
    room. A quarter of it is for the norm of all gradients, which is measured at every step where that fits (and always under a guard).
    Where a step takes only milliseconds, the hooks alone can cost more than the budget.

    Attributes:
        parameters: Steps between looks at gradients, weights and updates; None spaces them as said.
        layers: Steps between looks at what flows through the layers; None asks the budget.
        budget: Share of the training's time that looking may take, in (0, 1].
        dense: First steps that are all looked into.
        growth: Factor from one sampled step to the next after these.

    Raises:
        InputError: if a number is out of range.
    """

    parameters: int | None = None
    layers: int | None = None
    budget: float = 0.01
    dense: int = 20
    growth: float = 1.1

    def __post_init__(self) -> None:
        for name in ("parameters", "layers"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise InputError(f"Cadence's {name} must be a whole number of at least 1, or None; got {value!r}")
        if not 0 < self.budget <= 1:
            raise InputError(f"Cadence's budget is a share of the training's time in (0, 1]; got {self.budget!r}")
        if self.dense < 1 or self.growth <= 1:
            raise InputError(f"Cadence needs dense of at least 1 and growth above 1; got {self.dense!r} and {self.growth!r}")


class Clock:
    """Applies a cadence to one run; a context manager that keeps time of what watching costs."""

    def __init__(self, cadence: Cadence) -> None:
        self.cadence = cadence
        self.spent = 0.0  # seconds in watching's own code
        self._started = time.perf_counter()
        self._next, self._layer_cost, self._layers_spent = 0, 0.0, 0.0
        self._norm_last, self._norm_every, self._norm_cost, self._step_cost = -1, 1, math.inf, 0.0
        self._depth, self._entered = 0, 0.0
        self._histograms = 0
        self._plain: deque[float] = deque(maxlen=31)
        self._looked: float | None = None
        self._step_began, self._spent_then = time.perf_counter(), 0.0

    def __enter__(self) -> None:
        """Counts the time until the exit as watching's; may be nested."""
        self._depth += 1
        if self._depth == 1:
            self._entered = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            self.spent += time.perf_counter() - self._entered

    @property
    def elapsed(self) -> float:
        """Seconds since the watch began."""
        return time.perf_counter() - self._started

    def parameters_due(self, step: int) -> bool:
        """True if gradients, weights and updates of this step are looked into."""
        every = self.cadence.parameters
        return step % every == 0 if every is not None else step >= self._next

    def layers_due(self, step: int) -> bool:
        """True if what flows through the layers at this step is looked into, too: the first, and then as half of the budget allows."""
        if self.cadence.layers is not None:
            return step % self.cadence.layers == 0
        room = 0.5 * self.cadence.budget * self.elapsed - self._layers_spent
        return self.parameters_due(step) and (step == 0 or (len(self._plain) >= _ENOUGH_STEPS and self._layer_cost <= room))

    def norm_due(self, step: int) -> bool:
        """True if the norm of all gradients is measured at this step: at each, or as often as a quarter of the budget allows."""
        return step - self._norm_last >= self._norm_every or self.parameters_due(step)

    def norm_took(self, step: int, seconds: float) -> None:
        """Remembers the step, and the quickest such measurement."""
        self._norm_last, self._norm_cost = step, min(self._norm_cost, seconds)

    def _plain_took(self, seconds: float) -> None:
        """Remembers how long a step of the training takes by itself."""
        self._step_cost = seconds if self._step_cost == 0 else 0.9 * self._step_cost + 0.1 * seconds
        allowed = 0.25 * self.cadence.budget * self._step_cost
        self._norm_every = max(1, min(_RAREST, math.ceil(self._norm_cost / allowed))) if allowed > 0 else 1

    def histograms_due(self) -> bool:
        """True at every eighth step that is looked into, or as often as the layers where a cadence for them is given."""
        self._histograms += 1
        return self.cadence.layers is not None or self._histograms % 8 == 1

    def taken(self, step: int) -> None:
        """Plans the next sampled step."""
        self._next = step + 1 if step < self.cadence.dense else max(step + 1, int(step * self.cadence.growth))

    def looked_inside(self, seconds: float) -> None:
        """Notes a look from inside the step's own pass, and what evaluating it took; the rest shows when the step is over."""
        self._looked = seconds

    def step_over(self) -> None:
        """Compares a step that was looked at from inside with those that were not, since a function mode's cost has no place of its own."""
        now, spent = time.perf_counter(), self.spent + time.perf_counter() - self._entered
        own = (now - self._step_began) - (spent - self._spent_then)
        self._step_began, self._spent_then = now, spent
        looked, self._looked = self._looked, None
        if looked is None:
            self._plain.append(own)
            self._plain_took(own)
        elif len(self._plain) >= _ENOUGH_STEPS:
            extra = max(0.0, own - statistics.median(self._plain))
            self.spent += extra
            self.layers_took(extra + looked)

    def layers_took(self, seconds: float) -> None:
        """Remembers what the last look at the layers cost; the first, which reads the structure, is no measure of those to come."""
        self._layer_cost = seconds
        self._layers_spent += seconds
