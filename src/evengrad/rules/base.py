"""A trace -> findings: what a rule is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from evengrad.types import Evidence, Finding, Series, Steps, Trace

_JUDGED = 64  # sampled steps that a rule looks at, evenly spaced


@dataclass(frozen=True)
class Examples:
    """Traces that a rule must flag and traces that it must not; near misses on both sides."""

    sick: tuple[Trace, ...]
    healthy: tuple[Trace, ...]


@dataclass(frozen=True, kw_only=True)
class Rule(ABC):
    """One way in which a network fails to train; its fields are its thresholds.

    A rule is one file in `evengrad/rules` (or an entry point of the group `evengrad.rules`): found, tested and documented from it.

    Attributes:
        code: Stable code, never reused.
        symptom: Word of the symptom vocabulary.
        title: What it looks for, in a few words.
        causes: Causes it can have, words of the vocabulary.
        needs: Columns (`grad_out_norm`), curves (`curves.loss`), planes (`planes.grad_through_time`) and facts (`facts.inputs`) without
            which it is skipped.
        signal: The number that decides, and its unit.
        helps: What helps, for `evengrad explain`.
        scale_dependent: True if it judges the loss's own scale.
    """

    code: ClassVar[str]
    symptom: ClassVar[str | None]
    title: ClassVar[str]
    causes: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[tuple[str, ...]] = ()
    signal: ClassVar[tuple[str, str]]
    helps: ClassVar[str] = ""
    scale_dependent: ClassVar[bool] = False

    @abstractmethod
    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yields what is wrong with the trace."""

    @abstractmethod
    def value(self, trace: Trace) -> float:
        """Returns the deciding signal at the last sampled step, at its worst place; NaN where nothing can be said."""

    @classmethod
    @abstractmethod
    def examples(cls) -> Examples:
        """Returns sick and healthy traces."""

    def missing(self, trace: Trace) -> str | None:
        """Returns why the rule cannot judge this trace, or None."""
        for need in self.needs:
            kind, _, name = need.rpartition(".")
            if kind == "facts":
                if getattr(trace.facts, name) is None:
                    return f"nothing is known of the {name}"
            elif kind == "curves":
                if name not in trace.curves or not len(trace.curves[name].steps):
                    return f"no {name} was seen during training"
            elif kind == "planes":
                if name not in trace.planes or np.isnan(trace.planes[name]).all():
                    return f"no layer has a {name}"
            elif not trace.has(need).any():
                return f"no layer has a {need}"
        return None

    def finding(
        self, trace: Trace, severity: str, message: str, *, evidence: tuple[Evidence, ...], where: tuple[str, ...], at: tuple[int, int]
    ) -> Finding:
        """Builds a finding of this rule; `at` are the numbers of the first and last sampled step at which it was seen."""
        steps = (int(trace.steps[at[0]]), int(trace.steps[at[1]]))
        return Finding(
            code=self.code, symptom=self.symptom, severity=severity, message=message, evidence=evidence, where=where, steps=steps
        )

    def evidence_at(self, trace: Trace, rows: Sequence[int], values: Series, relation: str, threshold: float) -> tuple[Evidence, ...]:
        """Builds the evidence of each row: its value of the deciding signal beside the threshold."""
        name, unit = self.signal
        return tuple(
            Evidence(signal=name, value=float(values[i]), relation=relation, threshold=threshold, unit=unit, where=trace.layers[i].name)
            for i in rows
        )


def sick_span(trace: Trace, is_sick: Callable[[int], bool]) -> tuple[int, int] | None:
    """Returns the numbers of the first and last sampled step that is sick, or None if the run is healthy by its end."""
    sick = [int(i) for i in judged(trace) if is_sick(int(i))]
    return (sick[0], sick[-1]) if sick and sick[-1] == len(trace.steps) - 1 else None


def names(trace: Trace, rows: Iterable[int]) -> tuple[str, ...]:
    """Returns the rows' names."""
    return tuple(trace.layers[i].name for i in rows)


def judged(trace: Trace) -> Steps:
    """Returns the numbers of the sampled steps that a rule looks at: all, or 64 evenly spaced with the first and the last."""
    count = len(trace.steps)
    return np.unique(np.linspace(0, count - 1, min(count, _JUDGED)).round().astype(np.int64))


def deep_rows(trace: Trace) -> list[int]:
    """Returns the rows that enter a slope, input first."""
    return [i for i, layer in enumerate(trace.layers) if layer.depth is not None]


def place(trace: Trace, row: int) -> str:
    """Names a row: `layer 1 of 20 (net.0)`."""
    layer = trace.layers[row]
    total = sum(x.depth is not None for x in trace.layers)
    return f"layer {layer.depth} of {total} ({layer.name})" if layer.depth is not None else layer.name
