"""Events of a run -> a few lines: what happened seldom is told, what happened often is counted and told thrice."""

from __future__ import annotations

from dataclasses import dataclass

from evengrad.types import Trace

_TOLD = 3


@dataclass(frozen=True, kw_only=True)
class Happenings:
    """The events of one kind.

    Attributes:
        kind: The kind in words: `skip`, `scaler skip`, `bad operation`.
        count: How many there were.
        summary: `37 times, steps 12 to 940` where not all of them are told, else "".
        told: The first three, each as its step and its sentence.
    """

    kind: str
    count: int
    summary: str
    told: tuple[tuple[str, str], ...]


def happenings(trace: Trace | None) -> tuple[Happenings, ...]:
    """Groups what happened by its kind, the first first. A curve of that name counts what the events no longer hold."""
    kinds = dict.fromkeys(event.kind for event in trace.events) if trace is not None else {}
    return tuple(_of_a_kind(trace, kind) for kind in kinds) if trace is not None else ()


def _of_a_kind(trace: Trace, kind: str) -> Happenings:
    events = [event for event in trace.events if event.kind == kind]
    curve = trace.curves.get(kind)
    beyond = curve is not None and len(curve.steps) > len(events)
    steps = [int(s) for s in curve.steps] if curve is not None and beyond else [event.step for event in events]
    return Happenings(
        kind=kind.replace("_", " "),
        count=len(steps),
        summary=f"{len(steps):,} times, steps {min(steps):,} to {max(steps):,}" if len(steps) > _TOLD else "",
        told=tuple((f"step {event.step:,}", event.message) for event in events[:_TOLD]),
    )
