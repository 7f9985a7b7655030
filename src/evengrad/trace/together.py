"""tensors of many sizes -> one call for all that are small: each call of an operation has its price, whatever its size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

_SMALL = 16_384  # elements up to which tensors are copied side by side
_KEPT = 1_048_576  # elements that wait to be looked at


def by_sample(tensor: Tensor, samples: int) -> Tensor:
    """Returns the tensor as (samples, everything else); as (1, all) where no axis counts the samples."""
    if tensor.dim() and tensor.shape[0] == samples:
        return tensor.reshape(samples, -1)
    if tensor.dim() > 1 and tensor.shape[1] == samples:
        return tensor.transpose(0, 1).reshape(samples, -1)
    if tensor.dim() and tensor.shape[0] % samples == 0:
        return tensor.reshape(samples, -1)  # (samples * time, features)
    return tensor.reshape(1, -1)


def wide(tensor: Tensor) -> Tensor:
    """Half precision becomes single; double stays, since it holds what single rounds to zero; complex numbers count as pairs."""
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def side_by_side(tensors: Sequence[Tensor], function: Callable[[Tensor, Tensor], Tensor]) -> list[Tensor]:
    """Applies a function of (k, ..., n) and counts (k,) to tensors (..., n): small ones together, the shorter filled up with zeros.

    A large tensor is looked at alone, without a copy.
    """
    found: list[Tensor] = list(tensors)
    for indices in _groups(tensors):
        stacked = alone(tensors[indices[0]]) if len(indices) == 1 else _filled_up([tensors[i] for i in indices])
        for i, result in zip(indices, function(*stacked).unbind(0), strict=True):
            found[i] = result
    return found


def _groups(tensors: Sequence[Tensor]) -> Iterator[list[int]]:
    """Which small tensors stand side by side: of one kind, and without many more zeros than elements."""
    kinds: dict[object, list[int]] = {}
    for i, t in enumerate(tensors):
        kinds.setdefault((t.shape[:-1], t.dtype, t.device) if t.numel() <= _SMALL else i, []).append(i)
    for kind in kinds.values():
        group: list[int] = []
        elements = 0
        for i in sorted(kind, key=lambda i: -tensors[i].numel()):
            elements += tensors[i].numel()
            if group and (len(group) + 1) * tensors[group[0]].numel() > 4 * elements + _SMALL:
                yield group
                group, elements = [], tensors[i].numel()
            group.append(i)
        yield group


def _filled_up(tensors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Tensors (..., n) of several n as (k, ..., n) with zeros at the end, and how many elements each had (k,)."""
    counts, widest = [t.numel() for t in tensors], max(t.shape[-1] for t in tensors)
    padded = [t if t.shape[-1] == widest else torch.nn.functional.pad(t, (0, widest - t.shape[-1])) for t in tensors]
    return torch.stack(padded), torch.tensor(counts, dtype=tensors[0].dtype, device=tensors[0].device)


def alone(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """One tensor (..., n) as (1, ..., n), and how many elements it has (1,)."""
    return tensor[None], tensor.new_full((1,), tensor.numel())


class Together:
    """Small tensors that are kept until they can be looked at side by side; a large one is looked at when it comes.

    Args:
        function: (k, samples, n) and counts (k,) -> (k, ...).
        samples: Number of samples of the batch.
    """

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], samples: int) -> None:
        self._function, self._samples = function, samples
        self._found: list[Tensor] = []
        self._waiting: list[tuple[int, Tensor]] = []
        self._elements = 0

    def add(self, tensor: Tensor) -> int:
        """Takes one more tensor, and returns its place in `found`."""
        flat = by_sample(wide(tensor), self._samples)
        place = len(self._found)
        if flat.numel() > _SMALL:
            self._found.append(self._function(*alone(flat))[0])
        else:
            self._waiting.append((place, flat.clone()))  # what comes next can work in place
            self._found.append(flat)
            self._elements += flat.numel()
        if self._elements > _KEPT:
            self._look()
        return place

    def found(self) -> list[Tensor]:
        """Returns what the function says of each."""
        self._look()
        return self._found

    def _look(self) -> None:
        for (place, _), result in zip(self._waiting, side_by_side([t for _, t in self._waiting], self._function), strict=True):
            self._found[place] = result
        self._waiting, self._elements = [], 0
