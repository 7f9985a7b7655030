"""What a user writes about a number, `(low, high, "log")` or `[choices]` -> an axis of the search."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

from evengrad.errors import InputError, unknown

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Numbers = Mapping[str, Any]
_ZERO = 1e-5  # share of the upper end under which a logarithmic range that includes zero is zero
_BELOW = 1e-6  # where such a range really begins: one sixth of it is zero
_DIGITS = 3  # significant digits of what is tried, so that what is shown is what was tried
_FORMS = "(low, high), (low, high, 'log') or a list of choices"


class Axis(ABC):
    """One number or choice of the search.

    What the sampler draws is a *draw*; `value` makes of it what is tried.
    """

    @abstractmethod
    def distribution(self) -> BaseDistribution:
        """Returns what the sampler draws from."""

    @abstractmethod
    def value(self, draw: Any) -> Any:
        """Returns what is tried for a draw."""

    @abstractmethod
    def holds(self, value: Any) -> bool:
        """Whether some draw gives this value."""

    @abstractmethod
    def draw(self, value: Any) -> Any:
        """Returns a draw that gives this value, which the axis must hold."""

    @abstractmethod
    def describe(self) -> Any:
        """Returns the axis as JSON values."""

    @abstractmethod
    def ends(self) -> Sequence[Any]:
        """Returns all choices, or both ends of a range."""


@dataclass(frozen=True)
class Range(Axis):
    """Numbers from `low` to `high`, whole if both are; `log` spreads them evenly over magnitudes, and low = 0 then adds zero itself."""

    low: float
    high: float
    log: bool = False

    @property
    def whole(self) -> bool:
        """True for whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int) and not self._zero

    @property
    def _zero(self) -> bool:
        return self.log and self.low == 0

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(self.high * _BELOW if self._zero else self.low, self.high, log=self.log)

    def value(self, draw: Any) -> Any:
        if self.whole:
            return int(draw)
        if self._zero and draw < self.high * _ZERO:
            return 0.0
        return min(max(float(f"{draw:.{_DIGITS}g}"), self.low), self.high)

    def holds(self, value: Any) -> bool:
        number = isinstance(value, Real) and not isinstance(value, bool)
        return number and self.low <= value <= self.high and (not self.whole or value == int(value))

    def draw(self, value: Any) -> Any:
        if self.whole:
            return int(value)
        return float(value) or self.high * math.sqrt(_ZERO * _BELOW) if self._zero else float(value)

    def describe(self) -> Any:
        return [self.low, self.high, *(["log"] if self.log else [])]

    def ends(self) -> Sequence[Any]:
        return self.low, self.high


@dataclass(frozen=True)
class Choice(Axis):
    """One of several values; what is not a number, text, bool or None goes by its name."""

    values: tuple[Any, ...]

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution([label(v) for v in self.values])

    def value(self, draw: Any) -> Any:
        return next(v for v in self.values if _same(label(v), draw))

    def holds(self, value: Any) -> bool:
        return any(v is value or _same(label(v), label(value)) for v in self.values)

    def draw(self, value: Any) -> Any:
        return label(value)

    def describe(self) -> Any:
        return {"choices": [label(v) for v in self.values]}

    def ends(self) -> Sequence[Any]:
        return self.values


def axis(name: str, written: Any) -> Axis:
    """Reads what a user wrote.

    Raises:
        InputError: if it is of another form, or holds nothing.
    """
    if isinstance(written, Axis):
        return written
    if isinstance(written, list):
        labels = [label(v) for v in written]
        if not written:
            raise InputError(f"the space's {name!r} has no choices; expected at least one, such as [16, 32, 64]")
        if any(_same(a, b) for i, a in enumerate(labels) for b in labels[:i]):
            raise InputError(f"the space's {name!r} has a choice twice, or two of one name: {', '.join(map(str, labels))}. Give each once")
        return Choice(tuple(written))
    if not isinstance(written, tuple) or len(written) not in {2, 3} or (len(written) == 3 and written[2] != "log"):
        raise InputError(f"the space's {name!r} must be {_FORMS}; got {written!r}")
    low, high = written[:2]
    for end in (low, high):
        if isinstance(end, bool) or not isinstance(end, Real) or not math.isfinite(end):
            raise InputError(f"the space's {name!r} must run between two finite numbers; got {written!r}")
    if not low < high:
        raise InputError(f"the space's {name!r} is empty: low must be below high; got {low} and {high}")
    if len(written) == 3 and low < 0:
        raise InputError(f"the space's {name!r} is logarithmic: low must be above 0, or 0 to include zero itself; got {low}")
    return Range(low, high, len(written) == 3)


def label(value: Any) -> Any:
    """Returns what stands for a choice in storage and tables: itself, or its name."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return getattr(value, "__name__", None) or repr(value)


def checked(space: Mapping[str, Any], known: Sequence[str]) -> dict[str, Axis]:
    """Reads a whole space.

    Args:
        space: Name -> what the user wrote.
        known: Names that can be searched in this experiment.

    Raises:
        UnknownNameError: for a name that is not known.
        InputError: for a range that is empty, or values that this name cannot take.
    """
    if not isinstance(space, Mapping) or not space:
        raise InputError(f"a space is a dictionary such as {{'lr': (1e-4, 1e-1, 'log')}}; got {space!r}")
    found = {}
    for name, written in space.items():
        if name not in known:
            raise unknown("number of this experiment", str(name), known)
        found[name] = axis(name, written)
        if name in _BOUNDS:
            _check_bounds(name, found[name])
    return found


Bound = tuple[str, Callable[[Any], bool]]
_BELOW_ONE: Bound = ("in [0, 1)", lambda v: 0 <= v < 1)
_ABOVE_ZERO: Bound = ("above 0", lambda v: v > 0)
_BOUNDS: dict[str, Bound] = {
    "lr": ("at least 0", lambda v: v >= 0),
    "weight_decay": ("at least 0", lambda v: v >= 0),
    "eps": ("at least 0", lambda v: v >= 0),
    "momentum": ("at least 0", lambda v: v >= 0),
    "beta1": _BELOW_ONE,
    "beta2": _BELOW_ONE,
    "alpha": _BELOW_ONE,
    "rho": _BELOW_ONE,
    "init_scale": _ABOVE_ZERO,
    "clip_norm": ("above 0, or None", lambda v: v is None or v > 0),
    "clip_value": ("above 0, or None", lambda v: v is None or v > 0),
    "batch_size": ("a whole number of at least 1", lambda v: isinstance(v, int) and v >= 1),
}


def _check_bounds(name: str, found: Axis) -> None:
    words, fits = _BOUNDS[name]
    for value in found.ends():
        if isinstance(value, (bool, str)) or (value is None and "None" not in words) or not fits(value):
            raise InputError(f"the space's {name!r} must be {words}; got {value!r}")


def _same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and a == b
