"""Operators and programs -> cases, and what each case's truth is."""

from __future__ import annotations

from functools import cache

from benchmarks.faults.base import Case
from benchmarks.faults.fifth.operators import OPERATORS as FIFTH
from benchmarks.faults.fourth.operators import OPERATORS as FOURTH
from benchmarks.faults.held_out.operators import OPERATORS as HELD_OUT
from benchmarks.faults.operators import OPERATORS
from benchmarks.faults.programs import program
from benchmarks.faults.sixth.operators import OPERATORS as SIXTH


@cache
def candidates() -> dict[str, Case]:
    """Returns every case, by name, whether it bites or not."""
    made = [
        Case(name=f"{o.cause}/{o.name}/{name}", operator=o, program=o.mutate(program(name)), twin=program(name))
        for o in (*OPERATORS.values(), *HELD_OUT.values(), *FOURTH.values(), *FIFTH.values(), *SIXTH.values())
        for name in o.on
    ]
    return {case.name: case for case in made}
