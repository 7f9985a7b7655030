"""Local gradients of each rank of a data-parallel training -> their norms side by side: a plane of ranks.

What ranks tell each other goes through the key-value store that torch.distributed was started with: nothing waits, so that a rank whose
watch has ended holds up no other.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from evengrad.types import Floats

_HELD = 64  # steps that other ranks may lag behind
_watches = itertools.count()


class Ranks:
    """The ranks of one watched training.

    Args:
        model: A DistributedDataParallel model.
    """

    def __init__(self, model: nn.parallel.DistributedDataParallel) -> None:
        self._rank, self.count = torch.distributed.get_rank(model.process_group), torch.distributed.get_world_size(model.process_group)
        self._store = torch.distributed.distributed_c10d._get_default_store()
        self._prefix = f"evengrad/{next(_watches)}"  # watches begin in the same order on every rank
        self._norms: dict[int, Tensor] = {}
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []
        self._told: list[tuple[int, int]] = []  # steps and their numbers of rows, not yet complete

    @staticmethod
    def of(model: nn.Module) -> Ranks | None:
        """Returns the ranks of a data-parallel model of several; None for any other."""
        if isinstance(model, nn.parallel.DistributedDataParallel) and torch.distributed.get_world_size(model.process_group) > 1:
            return Ranks(model)
        return None

    def listen(self, weights: Sequence[Tensor]) -> None:
        """Notes the norms of this rank's own gradients in the coming backward pass, before they are averaged."""
        self._norms = {}
        self._hooks = [w.register_post_accumulate_grad_hook(self._noting(i)) for i, w in enumerate(weights) if w.requires_grad]

    def _noting(self, row: int) -> Callable[[Tensor], None]:
        def note(weight: Tensor) -> None:
            if weight.grad is not None:
                self._norms[row] = torch.linalg.vector_norm(weight.grad.detach().float())

        return note

    def tell(self, step: int, rows: int) -> None:
        """Tells the other ranks what was noted."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        if not self._norms:
            return
        values = np.full(rows, np.nan, "<f4")
        values[list(self._norms)] = torch.stack(list(self._norms.values())).cpu().numpy()
        self._store.set(f"{self._prefix}/{step}/{self._rank}", values.tobytes())  # type: ignore[arg-type]  # takes bytes, too
        self._told = [*self._told[-_HELD:], (step, rows)]

    def planes(self, tell: Callable[[int, Floats], None]) -> None:
        """Calls `tell(step, norms)` with a plane (rows, ranks) for each step that all ranks have told of."""
        left = []
        for step, rows in self._told:
            keys = [f"{self._prefix}/{step}/{rank}" for rank in range(self.count)]
            if self._store.check(keys):
                tell(step, np.stack([np.frombuffer(self._store.get(key), "<f4", rows) for key in keys], axis=1))
            else:
                left.append((step, rows))
        self._told = left
