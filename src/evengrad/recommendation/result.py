"""What was tried -> the value that `recommend` returns: rows, effects, orders, verdict."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from evengrad.types import Outcome, Proposal

if TYPE_CHECKING:
    from evengrad.training import Experiment

AS_IT_IS = "as it is"
FACTORS = ("activation", "initialiser", "norm", "rate")
TEXTBOOK = ("selu", "elu", "leaky_relu", "relu", "tanh", "sigmoid")
"""Activations, best first (Géron 2019, ch. 11)."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One way to build the network, and how far it came.

    Attributes:
        label: What is changed; `as it is` for nothing.
        factors: Factor -> its level.
        seeds: Seeds (K,) of its longest trial.
        metrics: Metric of each of them (K,); NaN where training diverged.
        low, median, high: Smallest, middle and largest metric; one that is not finite counts as the worst.
        share: Share of a whole training that its longest trial took, in (0, 1].
        better: True if it was trained to the end on all seeds and beats the network as it is on every one, and on those of its proof.
        gradient_gain: Factor of the gradient from one layer to the next before training, from the output towards the input; None under
            three comparable layers, and where it was not trained to the end.
        trainability: Probability in [0, 1] that some rate trains it, predicted before training; None outside what was calibrated.
        proposals: What makes the network so.
    """

    label: str
    factors: dict[str, str]
    seeds: tuple[int, ...]
    metrics: tuple[float, ...]
    low: float
    median: float
    high: float
    share: float
    better: bool = False
    gradient_gain: float | None = None
    trainability: float | None = None
    proposals: tuple[Proposal, ...] = ()

    @property
    def changes(self) -> int:
        """Number of factors that are changed."""
        return sum(level != AS_IT_IS for level in self.factors.values())


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What one factor does in the first short trials, whatever the levels of the others.

    Attributes:
        factor: `activation`, `initialiser`, `norm` or `rate`.
        levels: Level -> median metric over the levels of the other factors.
        best: The level with the best median; `as it is` where no other is better.
        against: The level it is compared with: `as it is`, or the second best where that is the best.
        wins: Settings of the other factors in which `best` has a better metric than `against`.
        settings: Settings in which both were tried.
    """

    factor: str
    levels: dict[str, float]
    best: str
    against: str
    wins: int
    settings: int

    @property
    def gain(self) -> float:
        """Median of `best` minus median of `against`, in the unit of the metric."""
        return self.levels[self.best] - self.levels[self.against]


@dataclass(frozen=True, kw_only=True)
class Inversion:
    """Two activations that stand the other way round than in the textbook: every seed of `better` beats every seed of `worse`.

    Attributes:
        better: The one that the textbook has behind the other.
        worse: The other.
        better_worst: Worst metric of `better` over seeds.
        worse_best: Best metric of `worse` over seeds.
    """

    better: str
    worse: str
    better_worst: float
    worse_best: float


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """What `recommend` found out.

    Attributes:
        verdict: `change` (something beats the network as it is on every seed), `keep` (nothing does), or `not_decided` (the time was over
            before anything was trained to the end on every seed beside the network as it is).
        rows: Every option that was tried, those that came furthest first, among them the best median first.
        chosen: The smallest change that reaches nine tenths of the best gain; the network as it is where the verdict is not `change`.
        proofs: Label -> its comparison with the network as it is on other seeds: that of the chosen change, if the time was enough,
            and of those that were no better there.
        effects: What each factor does in the first short trials.
        present: Activations of the hidden layers as they are.
        order: Activations of the textbook, each at its best, in the order measured here, best first.
        best_of: Activation -> label of the row that shows it at its best.
        inversions: Pairs that stand the other way round than in the textbook, beyond the spread of seeds.
        metric: Name of the metric.
        maximize: True if larger is better.
        seeds: The seeds.
        options: Number of combinations that there are.
        steps: Steps of a whole training.
        late: True if the time was over before all was tried.
        skipped: Label -> why it could not be trained.
        seconds: Wall-clock seconds.
        experiment: The original with the chosen change among its repairs.
        name: What the experiment is called.
    """

    verdict: str
    rows: tuple[Row, ...]
    chosen: Row
    experiment: Experiment = field(repr=False)
    proofs: dict[str, Outcome] = field(default_factory=dict)
    effects: tuple[Effect, ...] = ()
    present: tuple[str, ...] = ()
    order: tuple[str, ...] = ()
    best_of: dict[str, str] = field(default_factory=dict)
    inversions: tuple[Inversion, ...] = ()
    metric: str = "accuracy"
    maximize: bool = True
    seeds: tuple[int, ...] = (0,)
    options: int = 1
    steps: int = 1
    late: bool = False
    skipped: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    name: str = ""

    @property
    def as_it_is(self) -> Row:
        """The network without a change."""
        return next(row for row in self.rows if row.label == AS_IT_IS)

    @property
    def finals(self) -> tuple[Row, ...]:
        """Rows that were trained to the end on every seed."""
        return tuple(row for row in self.rows if row.share == 1 and row.seeds == self.seeds)

    @property
    def patch(self) -> str:
        """What to change in one's own code; empty where nothing is to be changed."""
        return "\n".join(f"# {p.summary}\n{p.code}" for p in self.chosen.proposals)

    def to_json(self) -> str:
        """Returns everything but the experiment as one JSON document; numbers that are not finite are null."""
        parts = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in {"experiment", "chosen"}}
        parts |= {"chosen": self.chosen.label, "textbook": TEXTBOOK, "patch": self.patch}
        parts["proofs"] = {label: asdict(proof) for label, proof in self.proofs.items()}
        parts |= {name: [asdict(x) for x in parts[name]] for name in ("rows", "effects", "inversions")}
        return json.dumps({"schema": "evengrad/recommendation/1", **_strict(parts)}, allow_nan=False, ensure_ascii=False)

    def __str__(self) -> str:
        from evengrad.recommendation.text import plain

        return plain(self)


def _strict(value: Any) -> Any:
    """Puts null in the place of numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _strict(x) for key, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(x) for x in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
