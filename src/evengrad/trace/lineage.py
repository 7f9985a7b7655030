"""values that are not finite -> the operation where that began: computed, or written on purpose.

An infinity that was written (a mask) is innocent while it is masked with, added to or taken the exponential of. What turns it into NaN is
to blame; a weight operation that takes it in puts the blame on whoever wrote it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from evengrad.trace import operations as ops
from evengrad.trace.nonfinite import BadOperation, Flaw, flaw_of, is_finite, numbers, range_of

_WRITES = set(
    "masked_fill masked_fill_ where full full_like new_full fill_ tensor new_tensor as_tensor scalar_tensor __setitem__ index_fill "
    "index_fill_ index_put index_put_ masked_scatter masked_scatter_ scatter scatter_ constant_ pad "
    "empty empty_like new_empty empty_strided new_empty_strided".split()  # memory as it was found
)
_WEIGHT_OPERATIONS = ops.LINEAR | ops.CONV | ops.CONV_TRANSPOSE | ops.RECURRENT.keys() | ops.NORMS.keys() | ops.EMBEDDING
_SHOWN = {
    "rdiv": "div",
    "truediv": "div",
    "rtruediv": "div",
    "rsub": "sub",
    "rpow": "pow",
    "rmatmul": "matmul",
    "radd": "add",
    "rmul": "mul",
}


@contextmanager
def unseen() -> Iterator[None]:
    """Runs what looks at tensors, so that no function mode and no graph sees it."""
    with torch.no_grad(), torch._C.DisableTorchFunction():
        yield


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value stopped being finite; `deliberate` if an infinity was written there, not computed."""

    order: int
    found: BadOperation
    deliberate: bool = False


@dataclass(frozen=True)
class Given:
    """What went into an operation: where its values that are not finite come from, and the range of the others."""

    sources: tuple[Origin, ...]
    nan: bool
    low: float
    high: float


def shown(name: str) -> str:
    """Returns the name of a function as one would call it: `div` for `__rdiv__`."""
    bare = name.strip("_") if name.startswith("__") else name
    return _SHOWN.get(bare, bare)


def earliest(origins: Iterable[Origin]) -> Origin | None:
    """Returns the origin that was met first."""
    return min(origins, key=lambda origin: origin.order, default=None)


class Lineage:
    """Remembers, for each memory that holds values that are not finite, where that began. Holds no memory itself."""

    def __init__(self, samples: int | None) -> None:
        self.samples = samples
        self.outputs = (math.nan, math.nan)  # range of what the network returned
        self._count = 0
        self._of: dict[StorageWeakRef, Origin] = {}

    def of(self, tensor: Tensor) -> Origin | None:
        """Returns where a tensor stopped being finite, or None if that was out of sight."""
        memory = memory_of(tensor)
        return None if memory is None else self._of.get(memory)

    def mark(self, tensor: Tensor, origin: Origin) -> None:
        """Says where a tensor, and all that share its memory, stopped being finite."""
        memory = memory_of(tensor)
        if memory is not None:
            self._of[memory] = origin

    def born(
        self,
        flaw: Flaw,
        place: tuple[str, str, str],
        span: tuple[float, float],
        *,
        deliberate: bool = False,
        gradient: bool = False,
        from_infinite: bool = False,
    ) -> Origin:
        """Returns a new origin at `place` (module, operation, direction), made of finite values in `span`."""
        found = BadOperation(
            module=place[0],
            operation=place[1],
            direction=place[2],
            kind=flaw.kind,
            fraction=flaw.count / flaw.elements,
            sample=flaw.sample,
            low=span[0],
            high=span[1],
            elements=flaw.elements,
            values=flaw.values,
            gradient=gradient,
            from_infinite=from_infinite,
        )
        self._count += 1
        return Origin(self._count, found, deliberate)

    def declare(self, name: str, tensor: Tensor, direction: str, *, mask: bool = False) -> Origin | None:
        """Looks at an input or parameter before anything runs; one that holds -inf and else only what a mask holds is a deliberate one."""
        if is_finite(tensor) or self.of(tensor) is not None:
            return None
        flaw = flaw_of(tensor, self.samples if direction == "inputs" else None)
        span = range_of([tensor])
        deliberate = flaw.values == "-inf" and (mask or not any(span) or math.isnan(span[0]) or "mask" in name or "bias" in name)
        origin = self.born(flaw, (name, "", direction), span, deliberate=deliberate)
        self.mark(tensor, origin)
        return origin

    def judge(self, name: str, given: Given, flaw: Flaw, place: tuple[str, str, str], span: tuple[float, float]) -> Origin:
        """Returns where it began that the function `name` gave a value that is not finite."""
        computed = earliest(origin for origin in given.sources if not origin.deliberate)
        if computed is not None:
            return computed
        written = earliest(given.sources)
        if written is not None:
            if name in _WEIGHT_OPERATIONS:
                return replace(written, deliberate=False)
            if (given.nan or not flaw.nan) and not _is_loss(name):
                return written
        deliberate = written is None and name in _WRITES
        return self.born(flaw, place, span, deliberate=deliberate, from_infinite=written is not None)


def memory_of(tensor: Tensor) -> StorageWeakRef | None:
    """Returns a weak reference to the memory of a tensor, equal for all views of it; None for what cannot be looked at."""
    values = numbers(tensor)
    return None if values is None else StorageWeakRef(values.untyped_storage())


def overwrites(name: str, kwargs: dict[str, Any]) -> bool:
    """True if a call may change what it is given, so that this must be looked at before."""
    by_name = name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))
    return by_name or (name.startswith("__i") and name in ops.ADDITIONS | ops.SCALINGS) or bool(kwargs.get("inplace")) or "out" in kwargs


def operands(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """Returns what a call computes with: not where it writes to, nor running statistics that a norm does not use while it trains."""
    own_statistics = {"batch_norm": "training", "instance_norm": "use_input_stats"}.get(name)
    if own_statistics and kwargs.get(own_statistics, args[5] if len(args) > 5 else name == "instance_norm"):
        return (args[0], *args[3:]), {k: v for k, v in kwargs.items() if not k.startswith("running_")}
    return args, {k: v for k, v in kwargs.items() if k != "out"}


def _is_loss(name: str) -> bool:
    return name.endswith("_loss") or "cross_entropy" in name or name == "kl_div"
