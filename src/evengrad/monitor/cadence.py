"""How much watching has cost so far -> which steps are looked into."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass

from evengrad.errors import InputError

_ENOUGH_STEPS = 5  # steps from which it is known how long one takes
_RAREST = 64  # steps between two norms of all gradients, at most
_NORMS, _LAYERS = 0.15, 0.05  # parts of the budget: for these norms, and for the layers however much the rest has taken


@dataclass(frozen=True, kw_only=True)
class Cadence:
    """Which steps are looked into, and how far.

    Gradients, weights and updates are looked into at every step at first, then at steps that lie ever further apart (11% each): 60 of the
    first 1,000. What flows through the layers costs more; it is looked into at those of these steps for which the budget has room after all
    else, or at least for 5% of it. The norm of all gradients is measured at every step where that fits into 15% of the budget (and
    always under a guard), at least at every 64th. What the first steps cost is made up for later: the budget holds over a thousand steps,
    over some thousand where a step takes but milliseconds, since the hooks alone take a tenth of one.

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
    growth: float = 1.11

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
    """Applies a cadence to one run, and keeps account of what watching costs.

    Attributes:
        cadence: The cadence.
        spent: Seconds in watching's own code, as far as it has a place of its own.
        next_due: First step at which anything is to be measured.
    """

    def __init__(self, cadence: Cadence) -> None:
        self.cadence = cadence
        self.spent, self.next_due = 0.0, 0
        self._started = self._turned = time.perf_counter()
        self._spent_then = 0.0
        self._next_parameters = self._next_norm = 0
        self._norms, self._norms_spent = 0, 0.0
        self._layer_cost, self._layers_spent = 0.0, 0.0
        self._histograms = 0
        self._own: deque[float] = deque(maxlen=31)  # seconds of the training's own at steps not looked at from inside
        self._looked: float | None = None

    @property
    def elapsed(self) -> float:
        """Seconds since the watch began."""
        return time.perf_counter() - self._started

    def parameters_due(self, step: int) -> bool:
        """True if gradients, weights and updates of this step are looked into."""
        return step >= self._next_parameters

    def layers_due(self, step: int) -> bool:
        """True if what flows through the layers at this step is looked into, too: the first, and then as the budget allows."""
        if self.cadence.layers is not None:
            return step % self.cadence.layers == 0 and self.parameters_due(step)
        if not self.parameters_due(step) or (step and len(self._own) < _ENOUGH_STEPS):
            return step == 0
        allowed = self.cadence.budget * self.elapsed
        room = max(allowed - self.spent, _LAYERS * allowed - self._layers_spent)
        return step == 0 or self._layer_cost <= room

    def norm_due(self, step: int) -> bool:
        """True if the norm of all gradients is measured at this step: at each, or as often as its part of the budget allows."""
        return step >= self.next_due

    def norm_took(self, step: int, seconds: float) -> None:
        """Notes what such a measurement cost, and plans the next for when their part of the budget has room for one more."""
        self._norms, self._norms_spent = self._norms + 1, self._norms_spent + seconds
        needed = self._norms_spent * (1 + 1 / self._norms) / (_NORMS * self.cadence.budget)
        usual = self._usual()
        steps = (needed - self.elapsed) / usual if usual else 1.0
        self._next_norm = step + max(1, min(_RAREST, math.ceil(steps)))
        self.next_due = min(self._next_norm, self._next_parameters)

    def histograms_due(self) -> bool:
        """True at every eighth step that is looked into, or as often as the layers where a cadence for them is given."""
        self._histograms += 1
        return self.cadence.layers is not None or self._histograms % 8 == 1

    def taken(self, step: int) -> None:
        """Plans the next sampled step."""
        every = self.cadence.parameters
        if every is not None:
            self._next_parameters = (step // every + 1) * every
        else:
            self._next_parameters = step + 1 if step < self.cadence.dense else max(step + 1, int(step * self.cadence.growth))
        self.next_due = min(self._next_norm, self._next_parameters)

    def looked_inside(self, seconds: float) -> None:
        """Notes a look from inside the step's own pass, and what evaluating it took; the rest shows when the step is over."""
        self._looked = seconds

    def step_begins(self) -> None:
        """Notes that a step begins at which something is due; the others are not timed."""
        self._turned, self._spent_then = time.perf_counter(), self.spent

    def step_over(self) -> None:
        """Compares a step that was looked at from inside with those that were not, since a function mode's cost has no place of its own."""
        own = (time.perf_counter() - self._turned) - (self.spent - self._spent_then)
        looked, self._looked = self._looked, None
        if looked is None:
            self._own.append(own)
        else:
            extra = max(0.0, own - self._usual()) if len(self._own) >= _ENOUGH_STEPS else 0.0
            self.spent += extra
            self.layers_took(extra + looked)

    def _usual(self) -> float:
        """Seconds that a step of the training takes by itself: the median, since an evaluation between two steps is no part of it."""
        return sorted(self._own)[len(self._own) // 2] if self._own else 0.0

    def layers_took(self, seconds: float) -> None:
        """Remembers what the last look at the layers cost."""
        self._layer_cost = seconds
        self._layers_spent += seconds
