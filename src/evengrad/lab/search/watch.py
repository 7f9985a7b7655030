"""What is seen of trainings on their way -> who is stopped, and how each ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from evengrad.lab.search.halving import Halving
from evengrad.lab.search.health import Health, Patient

COMPLETE, HEALTH, LOSS, DIVERGED, FAILED = "complete", "health", "loss", "diverged", "failed"


@dataclass(frozen=True)
class End:
    """How a training ended.

    Attributes:
        how: `complete`; stopped by `health` or by `loss`; `diverged`; or `failed`, if building or training it raised.
        steps: Optimizer steps that it took.
        metric: Its metric, NaN unless it is complete.
        reason: Why it was stopped, or what it raised.
        rungs: Epochs trained -> metric, where it was compared.
    """

    how: str
    steps: int
    metric: float = float("nan")
    reason: str = ""
    rungs: dict[int, float] = field(default_factory=dict)


Tell = Callable[[int, End], None]


class Watch:
    """The policies of one search, and the metrics that were seen at each rung.

    Args:
        health: Stops runs with sick gradients; None looks at none.
        halving: Stops runs that fall behind; None compares none.
        epochs: Epochs of a whole training.
        maximize: Whether a larger metric is better.
        before: Metrics at rungs of trainings that ended before, epochs trained -> metric.
    """

    def __init__(
        self, health: Health | None, halving: Halving | None, *, epochs: int, maximize: bool, before: Iterable[dict[int, float]] = ()
    ) -> None:
        self._health, self._halving, self._maximize = health, halving, maximize
        self.looks = frozenset(health.steps if health else ())
        self.rungs = frozenset(halving.epochs(epochs) if halving else ())
        self._seen: dict[int, list[float]] = {epoch: [] for epoch in self.rungs}
        for rungs in before:
            for epoch in self.rungs & rungs.keys():
                self._seen[epoch].append(rungs[epoch])

    def patient(self) -> Patient:
        """Returns what remembers the looks at one run."""
        return Patient(self._health or Health())

    def behind(self, epoch: int, metrics: Sequence[float]) -> list[str | None]:
        """Compares runs at a rung; returns for each why it is to be stopped, or None."""
        assert self._halving is not None  # there are rungs
        seen = self._seen[epoch]
        seen += metrics
        bar = self._halving.bar(seen, self._maximize)
        words = f"after {epoch} epoch{'s' * (epoch > 1)} not among the best {self._halving.kept:.0%} of {len(seen)}"
        return [f"{m:.4g} {words} ({bar:.4g})" if (m < bar if self._maximize else m > bar) else None for m in metrics]
