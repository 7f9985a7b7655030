"""a tensor -> whether it is finite; if not, how much of it, in which sample, and the sentence that says so."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from evengrad.trace.together import by_sample


@dataclass(frozen=True, kw_only=True)
class BadOperation:
    """The first operation that made a value that is not finite out of values that were.

    Attributes:
        module: Fully qualified name of the module in whose forward it ran ("" is the model itself), `loss`, or the name of the input or
            parameter that was not finite before any operation.
        operation: torch's name of the function (`log`, `div`, `softmax` ...), the class of a custom autograd function, `unknown`, or "".
        direction: `forward`, `backward`, `loss` (the outputs are finite, the loss or its gradient is not), `inputs` or `parameters`.
        kind: `nan`, `inf` or `both`.
        fraction: Share of the value's elements that are not finite, in (0, 1].
        sample: Index in the batch of the first sample that holds one, or None where no axis counts samples.
        low: Least finite value that went in (for a backward: of the gradients; for the loss: of the outputs), or NaN if there was none.
        high: Largest of these.
        elements: Number of elements of the value.
        values: What they are, in words: `nan`, `inf`, `-inf`, `±inf` or `nan and inf`.
        gradient: True if the value is a gradient.
        from_infinite: True if infinities that were written on purpose (a mask) went in, too.
    """

    module: str
    operation: str
    direction: str
    kind: str
    fraction: float
    sample: int | None
    low: float
    high: float
    elements: int
    values: str
    gradient: bool = False
    from_infinite: bool = False

    @property
    def where(self) -> str:
        """The place as findings have it: `inputs`, `targets`, or what `module` says."""
        if self.direction != "inputs":
            return self.module
        return "targets" if self.module.startswith("targets") else "inputs"

    @property
    def message(self) -> str:
        """One sentence: the operation, the place, how much, from what."""
        sample = "" if self.sample is None else f" (first at sample {self.sample})"
        count = round(self.fraction * self.elements)
        if self.direction in {"inputs", "parameters"}:
            verb = "is" if count == 1 else "are"
            return f"{count:,} of {self.elements:,} values of {self.module} {verb} {self.values}{sample} before any operation"
        what = "gradients" if self.gradient else "values"
        name = f"the backward of {self.operation}" if self.gradient else self.operation
        return f"{name} in {self._place} made {count:,} of {self.elements:,} {what} {self.values}{sample}{self._source}"

    @property
    def _place(self) -> str:
        return "the loss" if self.direction == "loss" else self.module or "the model's own forward"

    @property
    def _source(self) -> str:
        seen = not math.isnan(self.low)
        span = f"in [{self.low:.3g}, {self.high:.3g}]"
        if self.direction == "loss":
            return ": born in the loss" + (f", after outputs {span}" if seen else "")
        what = "gradients" if self.gradient else "inputs"
        if not seen:
            return f" from {what} that are all infinite" if self.from_infinite else ""
        return f" from {what} {span}" + (" and infinities" if self.from_infinite else "")


@dataclass(frozen=True)
class Flaw:
    """What is not finite in one tensor."""

    elements: int
    count: int
    nan: bool
    values: str
    sample: int | None

    @property
    def kind(self) -> str:
        """`nan`, `inf` or `both`."""
        return "both" if self.values == "nan and inf" else "nan" if self.nan else "inf"


def numbers(tensor: Tensor) -> Tensor | None:
    """Returns what can be looked at: the local part of a distributed tensor, the entries of a sparse one, pairs for complex numbers."""
    if tensor.is_nested or torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        return None
    local = tensor.detach()
    if hasattr(local, "to_local"):
        local = local.to_local()
    if local.layout == torch.sparse_coo:
        local = local._values()
    elif local.layout != torch.strided:
        return None
    if local.is_meta or not local.numel() or local.dtype.itemsize == 1 or not (local.is_floating_point() or local.is_complex()):
        return None
    return torch.view_as_real(local.resolve_conj()) if local.is_complex() else local


def is_finite(tensor: Tensor) -> bool:
    """True if no element is NaN or infinite, by one pass that makes no copy; also for what cannot be looked at."""
    values = numbers(tensor)
    if values is None:
        return True
    low, high = torch.aminmax(values)
    return math.isfinite(float(high - low)) or bool(values.isfinite().all())  # a finite range can overflow


def flaw_of(tensor: Tensor, samples: int | None) -> Flaw:
    """Returns what is not finite in a tensor that is known not to be; `samples` None means that no axis counts them."""
    values = numbers(tensor)
    assert values is not None
    bad = ~values.isfinite()
    nan, positive, negative = (bool(found.any()) for found in (values.isnan(), values == math.inf, values == -math.inf))
    infinite = "±inf" if positive and negative else "inf" if positive else "-inf"
    words = ("nan and inf" if positive or negative else "nan") if nan else infinite
    bad = bad.any(-1) if tensor.is_complex() else bad
    rows = by_sample(bad, samples) if samples else bad.reshape(1, -1)
    counted = samples is not None and len(rows) == samples
    return Flaw(bad.numel(), int(bad.sum()), nan, words, int(rows.any(1).int().argmax()) if counted else None)


def range_of(tensors: Iterable[Tensor]) -> tuple[float, float]:
    """Returns the least and largest finite value, or NaN twice where there is none."""
    low, high = math.inf, -math.inf
    for tensor in tensors:
        values = numbers(tensor)
        if values is None:
            continue
        ends = torch.aminmax(values)
        if not all(math.isfinite(float(end)) for end in ends):
            finite = values[values.isfinite()]
            if not finite.numel():
                continue
            ends = torch.aminmax(finite)
        low, high = min(low, float(ends[0])), max(high, float(ends[1]))
    return (low + 0.0, high + 0.0) if low <= high else (math.nan, math.nan)  # -0.0 reads badly
