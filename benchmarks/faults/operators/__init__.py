"""cause -> operators that plant it: one file a family, each a tuple `OPERATORS`."""

from __future__ import annotations

from benchmarks.faults.base import Operator, by_name
from benchmarks.faults.operators import architecture, arithmetic, heads, initial, inputs, loop, losses, rates, regularity, sequences

OPERATORS: dict[str, Operator] = by_name(
    rates, initial, inputs, architecture, heads, losses, regularity, loop, arithmetic, sequences
)  # fmt: skip
