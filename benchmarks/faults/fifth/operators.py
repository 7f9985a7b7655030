"""name -> the fifth set's operators, of all families."""

from __future__ import annotations

from benchmarks.faults.base import Operator, by_name
from benchmarks.faults.fifth import (
    operators_data,
    operators_held,
    operators_layers,
    operators_losses,
    operators_rates,
    operators_sequences,
    operators_start,
    operators_steps,
)

OPERATORS: dict[str, Operator] = by_name(
    operators_rates, operators_start, operators_data, operators_layers, operators_losses, operators_steps, operators_held,
    operators_sequences,
)  # fmt: skip
