"""What operators of the fifth set share: how one is made, a loader of one's own, and tests of where a mistake fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import evengrad as eg
from benchmarks.faults.base import Loss, ModelEdit, Program
from benchmarks.faults.fourth import planting as fourth
from benchmarks.faults.fourth.planting import is_classes, is_numbers, is_sgd, is_standard
from evengrad.training import TrainStep

__all__ = ["Limited", "changing", "edited", "is_classes", "is_numbers", "is_scheduled", "is_sgd", "is_standard", "limited", "losing",
           "planted", "stepping"]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Limited(Program):
    """A program whose loader stops after so many batches of each epoch."""

    batches: int = 1

    def steps(self) -> int:
        """Returns how many steps it takes."""
        return self.epochs * self.batches

    def experiment(self) -> eg.Experiment:
        """Returns what `diagnose` takes; the batches of an epoch are drawn from all data."""
        x, y = self.split().train

        def epoch(number: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
            order = torch.randperm(len(x), generator=torch.Generator().manual_seed(next(drawn)))
            for part in order.split(self.batch_size)[: self.batches]:
                yield x[part], y[part]

        drawn = iter(range(10**9))
        return replace(super().experiment(), data=epoch)


def limited(program: Program, **options: Any) -> Program:
    """Returns the program with such a loader."""
    return Limited(**{f.name: getattr(program, f.name) for f in fields(Program)} | options)


planted = partial(fourth.planted, half="fifth")


def stepping(step: TrainStep, **options: Any) -> Callable[[Program], Program]:
    """Returns a mutation that gives the program a step of its own."""
    return lambda program: program.having(train_step=step, **options)


def losing(loss: Loss) -> Callable[[Program], Program]:
    """Returns a mutation that gives the program another loss."""
    return lambda program: program.having(loss=loss)


def edited(edit: ModelEdit) -> Callable[[Program], Program]:
    """Returns a mutation that changes the built network."""
    return lambda program: program.edited(edit)


def changing(change: Callable[[nn.Module], None]) -> ModelEdit:
    """Returns an edit by a function that works in place, without gradients."""

    @torch.no_grad()
    def edit(model: nn.Module) -> nn.Module:
        change(model)
        return model

    return edit


def is_scheduled(program: Program) -> bool:
    """True if the rate has a schedule."""
    return program.schedule is not None
