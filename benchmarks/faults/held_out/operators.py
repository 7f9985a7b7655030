"""cause -> the held-out half's operators, of all families."""

from __future__ import annotations

from benchmarks.faults.base import Operator, by_name
from benchmarks.faults.held_out import (
    operators_data,
    operators_loop,
    operators_losses,
    operators_rates,
    operators_sequences,
    operators_shape,
    operators_start,
)

OPERATORS: dict[str, Operator] = by_name(
    operators_rates, operators_start, operators_data, operators_shape, operators_losses, operators_loop, operators_sequences,
)  # fmt: skip
