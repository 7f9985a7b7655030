"""A network as plain data: what it is made of, and the seed that its weights are drawn from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from torch import nn

from evengrad.errors import InputError, unknown


@dataclass(frozen=True, kw_only=True)
class Net(ABC):
    """A kind of network; its fields are its sizes and choices.

    Attributes:
        kind: Name of the kind.
        per_run: Fields in which networks that are trained as one may differ, for they change numbers and no shapes.
    """

    kind: ClassVar[str]
    per_run: ClassVar[frozenset[str]] = frozenset({"initialiser", "init_scale"})

    @abstractmethod
    def build(self, seed: int) -> nn.Module:
        """Returns the network: input (batch, *sample), output (batch, outputs).

        Args:
            seed: Seeds a generator of its own that all weights are drawn from; the global one is left alone.
        """

    def describe(self) -> dict[str, Any]:
        """Returns the kind and every field as JSON values."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {"kind": self.kind} | {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    def shape(self) -> Hashable:
        """Returns what must be equal for networks that are trained as one; of dropout, only where there is any."""
        kept = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in self.per_run}
        return (self.kind, *(_present(v) if name.startswith("dropout") else v for name, v in kept.items()))

    def _tuples(self, *names: str) -> None:
        """Turns lists, which JSON has in place of tuples, into tuples."""
        for name in names:
            if isinstance(value := getattr(self, name), list):
                object.__setattr__(self, name, tuple(value))

    def _at_least(self, least: int, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if not all(isinstance(v, int) and v >= least for v in (value if isinstance(value, tuple) else (value,))):
                raise InputError(f"{type(self).__name__}.{name} must be a whole number of at least {least}; got {value!r}")

    def _one_of(self, name: str, *known: str) -> None:
        if (value := getattr(self, name)) not in known:
            raise unknown(f"{type(self).__name__}.{name}", value, known)


def _present(p: float | tuple[float, ...]) -> bool | tuple[bool, ...]:
    return tuple(map(bool, p)) if isinstance(p, tuple) else bool(p)
