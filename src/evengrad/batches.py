"""Data in any form that an Experiment takes -> its batches, in an order that depends on seed and epoch only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evengrad.errors import EvengradError, ForwardError, InputError
from evengrad.trace.batch import Batch


def batches_of(data: Any, batch_size: int, seed: int) -> Callable[[int], Iterator[Batch]]:
    """Returns a function from the epoch to its batches; their order depends on seed and epoch only, never on torch's generators.

    Raises:
        InputError: if the data are empty, or of another kind than an Experiment takes.
    """
    if isinstance(data, torch.utils.data.Dataset):
        return lambda epoch: _guarded(lambda: _dataset_batches(data, batch_size, seed, epoch))
    if callable(data):
        return lambda epoch: _guarded(lambda: map(_pair, data()))
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        hint = ". Write lambda: loader" if isinstance(data, Iterable) else ""
        raise InputError(f"data must be (x, y), a Dataset, or a function that returns batches; got {type(data).__name__}{hint}")
    x, y = (_array(name, part) for name, part in zip("xy", data, strict=True))
    y = y if y.is_floating_point() else y.long()
    if not x.numel():
        raise InputError(f"the data are empty: expected at least one sample, got x of shape {tuple(x.shape)}. Look at how they are loaded")
    if len(x) != len(y):
        raise InputError(f"x has {len(x)} samples but y has {len(y)}: expected as many targets as inputs")
    return lambda epoch: (Batch(x[i], y[i]) for i in epoch_order(len(x), seed, epoch).split(batch_size))


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """Returns the order (count,) in which an epoch meets the samples: of its own generator, so that no extra layer changes it."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))


@contextmanager
def users(part: str) -> Iterator[None]:
    """Marks what the user's own code raises, so that it is shown as theirs."""
    try:
        yield
    except EvengradError:
        raise
    except Exception as error:
        raise ForwardError(f"Experiment's {part} raised {type(error).__name__}: {error}") from error


def _guarded(batches: Callable[[], Iterable[Batch]]) -> Iterator[Batch]:
    with users("data"):
        yield from batches()


def _array(name: str, part: Any) -> Tensor:
    if isinstance(part, np.ndarray) and (not part.flags.writeable or min(part.strides, default=0) < 0):
        part = part.copy()  # torch shares memory with an array, and can share neither kind
    try:
        tensor = torch.as_tensor(part)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{name} must be numbers, an array or a tensor with samples first; got {type(part).__name__}. "
            f"For several inputs, give a Dataset or a function that returns batches"
        ) from error
    if not tensor.dim():
        raise InputError(f"{name} must be an array or a tensor with samples first; got the single number {tensor.item()}")
    return tensor.float() if tensor.dtype == torch.float64 else tensor


def _dataset_batches(data: Any, batch_size: int, seed: int, epoch: int) -> Iterator[Batch]:
    if isinstance(data, torch.utils.data.IterableDataset) or not hasattr(data, "__len__"):
        samples: Iterable[Any] = torch.utils.data.DataLoader(data, batch_size=batch_size)
        yield from (_pair(batch) for batch in samples)
        return
    for indices in epoch_order(len(data), seed, epoch).split(batch_size):
        yield _pair(torch.utils.data.default_collate([data[int(i)] for i in indices]))


def _pair(batch: Any) -> Batch:
    if isinstance(batch, Batch):
        return batch
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        return Batch(batch[0], batch[1])
    got = f"a {type(batch).__name__} of {len(batch)}" if isinstance(batch, (tuple, list, dict)) else f"a {type(batch).__name__}"
    raise InputError(f"a batch must be a pair (inputs, targets); got {got}. Inputs can be a tuple or a mapping: ((a, b), targets)")
