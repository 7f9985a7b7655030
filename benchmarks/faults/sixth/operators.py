"""name -> the sixth set's operators, of all families."""

from __future__ import annotations

from benchmarks.faults.base import Operator
from benchmarks.faults.sixth import (
    operators_data,
    operators_held,
    operators_layers,
    operators_losses,
    operators_rates,
    operators_start,
    operators_steps,
)

OPERATORS: dict[str, Operator] = {
    operator.name: operator
    for family in (
        operators_rates, operators_start, operators_data, operators_layers, operators_losses, operators_steps, operators_held,
    )
    for operator in family.OPERATORS
}  # fmt: skip
