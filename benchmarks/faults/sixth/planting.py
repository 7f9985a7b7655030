"""What operators of the sixth set share: how one is made, and changes of a network written as a class."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.faults.base import DataEdit, Program
from benchmarks.faults.edits import drawn
from benchmarks.faults.fifth.planting import edited, is_classes, is_numbers, is_scheduled, is_sgd, is_standard, losing, stepping
from benchmarks.faults.fourth import planting as fourth
from benchmarks.faults.fourth.networks import with_options

__all__ = ["edited", "filled", "is_classes", "is_numbers", "is_scheduled", "is_sgd", "is_standard", "losing", "options", "planted",
           "sizes", "stepping", "with_data"]  # fmt: skip

planted = partial(fourth.planted, half="sixth")


def options(**values: Any) -> Callable[[Program], Program]:
    """Returns a mutation that changes options of the network's class."""
    return lambda program: with_options(program, **values)


def sizes(*values: int) -> Callable[[Program], Program]:
    """Returns a mutation that changes the sizes of `Layers`."""
    return options(sizes=values)


def filled(fill: Callable[[Any], object]) -> Callable[[Program], Program]:
    """Returns a mutation that fills each weight anew, and sets biases to zero, as `model.apply(init_weights)` does."""
    return edited(drawn(fill))


def with_data(*edits: DataEdit) -> Callable[[Program], Program]:
    """Returns a mutation that changes data."""
    return lambda program: program.with_data(*edits)
