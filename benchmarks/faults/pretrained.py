"""A program -> the same from weights that it was trained to: a network to fine-tune."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

import evengrad as eg
from benchmarks.faults.base import Program


class Pretrained:
    """Trains the program of a name once, and has others of that name begin with its weights.

    Args:
        program: Name -> program.
        seed: Seed of its training.
    """

    def __init__(self, program: Callable[[str], Program], *, seed: int) -> None:
        self._program, self._seed = program, seed
        self._weights: dict[str, dict[str, Tensor]] = {}

    def weights(self, name: str) -> dict[str, Tensor]:
        """Returns the weights of a program after training."""
        if name not in self._weights:
            self._weights[name] = eg.train(self._program(name).experiment(), seed=self._seed).model.state_dict()
        return self._weights[name]

    def __call__(self, program: Program) -> Program:
        """Returns the program with its network trained."""

        def edit(model: nn.Module) -> nn.Module:
            model.load_state_dict(self.weights(program.name))
            return model

        return program.edited(edit)
