"""Trials are paired, the smallest set that works is chosen, and the verdict is honest."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import evengrad as eg
from evengrad.errors import InputError
from evengrad.repair import FixResult, fix
from evengrad.training import Experiment, build, evaluate, train
from evengrad.trial import Trainings, compared, is_better, middle
from evengrad.types import Outcome, Proposal

NAN, INF = math.nan, math.inf


def run_seeds(experiment: Experiment, seeds: Sequence[int]) -> tuple[float, ...]:
    return tuple(train(experiment, seed=seed).metric for seed in seeds)


def trial(experiment: Experiment, proposals: tuple[Proposal, ...], seeds: tuple[int, ...], before: tuple[float, ...]) -> Outcome:
    return compared(experiment, proposals, seeds, before, run_seeds(experiment.repaired(proposals), seeds))


def points(n: int = 128) -> tuple[Tensor, Tensor]:
    x = torch.randn(n, 6, generator=torch.Generator().manual_seed(0))
    return x, (x[:, 0] + x[:, 1] > 0).long()


def deep(activation: Callable[[], nn.Module], layers: int, width: int = 16) -> nn.Module:
    sizes = [6, *[width] * layers]
    hidden = [m for a, b in itertools.pairwise(sizes) for m in (nn.Linear(a, b), activation())]
    return nn.Sequential(*hidden, nn.Linear(width, 2))


def sgd(rate: float) -> Callable[[nn.Module], torch.optim.Optimizer]:
    return lambda model: torch.optim.SGD(model.parameters(), rate, momentum=0.9)


def stuck_experiment(**changes: Any) -> Experiment:
    """Twelve logistic layers: the gradient vanishes, the accuracy is that of the larger class."""
    given: dict[str, Any] = {"optimizer": sgd(0.05), "epochs": 6, "batch_size": 32}
    given |= {"model": lambda: deep(nn.Sigmoid, 12), "data": points(), "loss_fn": nn.CrossEntropyLoss()}
    return Experiment(**given | changes)


@pytest.fixture(scope="module")
def said() -> list[str]:
    return []


@pytest.fixture(scope="module")
def fixed(said: list[str]) -> FixResult:
    return fix(stuck_experiment(), seeds=2, progress=said.append, name="stuck")


# ---------------------------------------------------------------- comparing


@pytest.mark.parametrize(
    ("before", "after", "maximize", "better"),
    [
        (0.5, 0.6, True, True),
        (0.5, 0.5, True, False),
        (0.5, 0.4, True, False),
        (0.5, 0.4, False, True),
        (0.5, 0.6, False, False),
        (NAN, 0.1, True, True),
        (NAN, 0.1, False, True),
        (0.1, NAN, True, False),
        (0.1, NAN, False, False),
        (NAN, NAN, True, False),
        (INF, -1e9, True, True),
        (-1e9, INF, True, False),
    ],
)
def test_what_is_not_finite_is_the_worst(before: float, after: float, maximize: bool, better: bool) -> None:
    assert is_better(before, after, maximize) is better


@pytest.mark.parametrize(
    ("values", "maximize", "expected"),
    [
        ((1.0, 9.0, 2.0), True, 2.0),
        ((1.0, 3.0), True, 2.0),
        ((NAN, 1.0, 2.0), True, 1.0),
        ((NAN, 1.0, 2.0), False, 2.0),
        ((7.0,), True, 7.0),
    ],
)
def test_the_median_takes_what_is_not_finite_as_the_worst(values: tuple[float, ...], maximize: bool, expected: float) -> None:
    assert middle(values, maximize) == expected


# ---------------------------------------------------------------- trials


def test_a_trial_is_paired_seed_by_seed() -> None:
    experiment, change = stuck_experiment(epochs=1), Proposal(remedy="clip_norm", options={"max_norm": 1e9}, summary="clip_norm 1e9")
    before = run_seeds(experiment, (4, 7))
    outcome = Trainings(experiment, train(experiment, seed=4)).outcome((change,), (4, 7))
    assert outcome.before == before
    assert outcome.after == before  # a change that changes nothing gives the same numbers to the bit: same weights, same order
    assert outcome.seeds == (4, 7)
    assert outcome.verdict == "no_better"
    assert outcome.metric == "accuracy"
    assert outcome.seconds > 0


def test_a_trial_is_better_only_if_every_seed_is() -> None:
    experiment = stuck_experiment(epochs=1, metric=lambda model: 0.5)
    outcome = trial(experiment, (), (0, 1), (0.4, 0.6))
    assert (outcome.after, outcome.verdict) == ((0.5, 0.5), "no_better")
    assert trial(experiment, (), (0, 1), (0.4, 0.49)).verdict == "improved"
    assert trial(replace(experiment, maximize=False), (), (0, 1), (0.6, 0.7)).verdict == "improved"


def test_a_number_in_place_of_nan_is_no_improvement_if_the_untrained_network_is_as_good() -> None:
    given = stuck_experiment(epochs=1)
    untrained = [evaluate(given, build(given, seed)) for seed in (0, 1)]

    def scored(value: float) -> str:
        def constant(model: nn.Module) -> float:
            return untrained[0] if not model.training and sum(p.grad is not None for p in model.parameters()) == 0 else value

        return trial(replace(given, metric=constant), (), (0,), (NAN,)).verdict

    assert scored(untrained[0]) == "no_better"
    assert scored(untrained[0] - 0.1) == "no_better"
    assert scored(untrained[0] + 0.1) == "improved"


# ---------------------------------------------------------------- verdicts


def test_a_vanishing_gradient_is_fixed_and_every_seed_is_better(fixed: FixResult) -> None:
    assert fixed.verdict == "fixed"
    assert fixed.fixed
    assert fixed.report.verdict == "fixed"
    assert fixed.report.causes[0] == "bad_hidden_activation"
    best = next(o for o in fixed.outcomes if o.proposals == fixed.chosen)
    assert best.verdict == "fixed"
    assert best.findings == ()
    assert all(a > b + 0.1 for b, a in zip(best.before, best.after, strict=True))


def test_the_report_holds_everything(fixed: FixResult, said: list[str]) -> None:
    report = fixed.report
    assert report.run.verb == "fix"
    assert report.run.name == "stuck"
    assert report.outcomes == fixed.outcomes
    assert report.chosen == fixed.chosen
    assert report.trace is not None
    assert report.after is not None
    before, after = (t.column("grad_out_norm")[-1] for t in (report.trace, report.after))
    assert before[0] / before[-1] < 1e-4  # before: vanished
    assert after[0] / after[-1] > 1e-2
    assert report.patch == fixed.patch
    assert "+" in fixed.patch
    assert fixed.changes.text == fixed.patch
    assert eg.Report.from_json(report.to_json()).outcomes == report.outcomes
    assert any(line.startswith("works: ") for line in said)
    assert any(line.endswith(": seed 1") for line in said)  # the proof


def test_every_trial_has_the_same_baseline_on_the_same_seeds(fixed: FixResult) -> None:
    before = run_seeds(stuck_experiment(), (0, 1))
    assert {o.before for o in fixed.outcomes} <= {before, before[:1]}  # what came no further was tried on the first seed alone
    assert all(o.before == before for o in fixed.outcomes if o.proposals == fixed.chosen)


def test_the_fixed_experiment_gives_the_same_numbers_when_it_is_trained_again(fixed: FixResult) -> None:
    best = next(o for o in fixed.outcomes if o.proposals == fixed.chosen)
    assert fixed.experiment.repairs == fixed.chosen
    assert run_seeds(fixed.experiment, (0, 1)) == best.after


def test_one_change_is_chosen_where_one_is_enough(fixed: FixResult) -> None:
    assert len(fixed.chosen) == 1


def test_the_original_experiment_and_its_functions_stay_as_they_were() -> None:
    built: list[nn.Module] = []

    def model() -> nn.Module:
        built.append(deep(nn.Sigmoid, 8))
        return built[-1]

    experiment = stuck_experiment(model=model, epochs=1)
    data = [t.clone() for t in experiment.data]
    copied = replace(experiment)
    result = fix(experiment, seeds=1)
    assert experiment == copied
    assert experiment.repairs == ()
    assert result.experiment.model is model
    assert all(torch.equal(a, b) for a, b in zip(experiment.data, data, strict=True))
    assert all(isinstance(built[0][i], nn.Sigmoid) for i in range(1, 16, 2))  # type: ignore[index]


def test_a_healthy_network_has_nothing_wrong_and_nothing_is_tried() -> None:
    healthy = Experiment(lambda: deep(nn.Tanh, 2), points(), nn.CrossEntropyLoss(), sgd(0.05), epochs=15, batch_size=32)
    result = fix(healthy, seeds=2)
    assert result.verdict == "nothing_wrong"
    assert not result.fixed
    assert (result.outcomes, result.chosen, result.patch) == ((), (), "")
    assert result.experiment == healthy
    assert result.report.after is None


def test_a_change_that_cannot_better_the_metric_is_not_called_a_fix() -> None:
    result = fix(stuck_experiment(metric=lambda model: 0.5, epochs=1), seeds=2)
    assert result.verdict == "nothing_helped"
    assert result.chosen == ()
    assert result.experiment.repairs == ()
    assert result.outcomes
    assert {o.verdict for o in result.outcomes} == {"no_better"}
    assert result.report.after is None


def test_a_network_that_learns_more_but_keeps_an_error_is_improved_not_fixed() -> None:
    class Cut(nn.Module):
        """No gradient passes its product with zero, which no remedy takes out."""

        def __init__(self) -> None:
            super().__init__()
            self.before, self.after = deep(nn.Tanh, 3, 8), nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))

        def forward(self, x: Tensor) -> Tensor:
            return self.after(self.before(x) * 0 + x[:, :2])

    x, y = points()
    experiment = Experiment(Cut, (x * 1e-3, y), nn.CrossEntropyLoss(), sgd(0.05), epochs=4, batch_size=32)
    result = fix(experiment, seeds=2)
    assert "VAN002" in {f.code for f in result.report.findings}
    assert result.verdict == "improved"
    assert result.chosen
    best = next(o for o in result.outcomes if o.proposals == result.chosen)
    assert best.findings
    assert all(is_better(b, a, True) for b, a in zip(best.before, best.after, strict=True))


@pytest.mark.parametrize(("swapped", "normed", "size"), [(0.3, 0.01, 1), (0.1, 0.3, 2)], ids=["hardly better", "much better"])
def test_a_larger_set_is_chosen_only_if_it_is_much_better(swapped: float, normed: float, size: int) -> None:
    class Bypassed(nn.Module):
        """The error stays whatever is done, so that the search goes on."""

        def __init__(self) -> None:
            super().__init__()
            self.deep, self.short = deep(nn.Sigmoid, 4), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.deep(x) * 0 + self.short(x)

    def metric(model: nn.Module) -> float:
        kinds = {type(m) for m in model.modules()}
        return 0.5 + swapped * bool(kinds & {nn.Tanh, nn.ReLU}) + normed * (nn.BatchNorm1d in kinds)

    result = fix(stuck_experiment(model=Bypassed, metric=metric, epochs=1), seeds=1, max_remedies=2)
    assert result.verdict == "improved"
    assert len(result.chosen) == size
    assert max(len(o.proposals) for o in result.outcomes) == 2


def test_a_minimised_metric_is_fixed_downwards() -> None:
    def loss(model: nn.Module) -> float:
        with torch.no_grad():
            x, y = points()
            return float(F.cross_entropy(model(x), y))

    result = fix(stuck_experiment(metric=loss, maximize=False), seeds=[5])
    assert result.verdict == "fixed"
    best = next(o for o in result.outcomes if o.proposals == result.chosen)
    assert not best.maximize
    assert best.metric == "loss"
    assert best.after[0] < best.before[0] - 0.1


# ---------------------------------------------------------------- a fault that only training shows


def test_a_rate_that_is_too_high_is_found_by_replay_and_lowered() -> None:
    x, _ = points()
    experiment = Experiment(
        lambda: deep(nn.ReLU, 2),
        (x, x[:, :2].sin()),
        nn.MSELoss(),
        lambda m: torch.optim.SGD(m.parameters(), 1e3),
        epochs=100,
        batch_size=32,
    )
    report = eg.diagnose(experiment)
    finding = next(f for f in report.findings if f.code == "NUM001")
    assert finding.steps[0] > 0
    assert finding.cause == "lr_too_high"
    result = fix(experiment, seeds=2)
    assert all(math.isnan(b) for b in result.outcomes[0].before)
    assert [p.remedy for p in result.chosen] == ["lower_rate"]
    assert result.verdict == "fixed"
    best = next(o for o in result.outcomes if o.proposals == result.chosen)
    assert all(-0.4 < a < 0 for a in best.after)  # the targets' variance is 0.43: it learned, it did not merely stay finite


# ---------------------------------------------------------------- arguments


def test_seeds_can_be_a_number_or_the_seeds() -> None:
    given = stuck_experiment(epochs=1)
    assert {o.seeds for o in fix(given, seeds=[7, 3], max_remedies=1).outcomes} <= {(7,), (7, 3)}
    assert {o.seeds for o in fix(given, seeds=1, max_remedies=1).outcomes} == {(0,)}


@pytest.mark.parametrize(
    "arguments", [{"seeds": 0}, {"seeds": []}, {"seeds": -1}, {"max_remedies": 0}], ids=["none", "empty", "negative", "no remedies"]
)
def test_no_seed_or_no_remedy_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="at least one seed and max_remedies >= 1; got seeds="):
        fix(stuck_experiment(), **arguments)


def test_a_budget_stops_the_trials_and_still_returns_a_report() -> None:
    result = fix(stuck_experiment(epochs=40), seeds=3, max_seconds=0.01)
    assert result.outcomes == ()
    assert result.verdict == "nothing_helped"
    assert result.report.findings
    assert result.report.proposals
