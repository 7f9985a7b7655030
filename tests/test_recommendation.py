"""What is recommended wins by trials, is proved on other seeds, and is told with the numbers it rests on."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evengrad.errors import InputError
from evengrad.recommendation import Recommendation, Row, recommend
from evengrad.recommendation.comparison import effects, inversions, measured_order, smallest
from evengrad.recommendation.options import Option, options, present
from evengrad.recommendation.result import AS_IT_IS, FACTORS, TEXTBOOK
from evengrad.recording import trace_of
from evengrad.training import Experiment, build, first_batch, train

NAN = math.nan


def points(n: int = 32) -> tuple[Tensor, Tensor]:
    x = torch.randn(n, 6, generator=torch.Generator().manual_seed(0))
    return x, (x[:, 0] + x[:, 1] > 0).long()


def deep(activation: Callable[[], nn.Module], layers: int, width: int = 8) -> nn.Module:
    sizes = [6, *[width] * layers]
    hidden = [m for a, b in itertools.pairwise(sizes) for m in (nn.Linear(a, b), activation())]
    return nn.Sequential(*hidden, nn.Linear(width, 2))


def normed(activation: Callable[[], nn.Module] = nn.ReLU, width: int = 4) -> nn.Module:
    """A network that has a norm: a third as many options."""
    return nn.Sequential(nn.Linear(6, width), nn.BatchNorm1d(width), activation(), nn.Linear(width, 2))


def experiment(model: Callable[[], nn.Module], **changes: Any) -> Experiment:
    given: dict[str, Any] = {"data": points(), "loss_fn": nn.CrossEntropyLoss(), "epochs": 30, "batch_size": 32}
    given |= {"optimizer": lambda m: torch.optim.SGD(m.parameters(), 0.1, momentum=0.9)}
    return Experiment(model, **given | changes)


def grid(given: Experiment) -> dict[str, Option]:
    rig = build(given)
    return {option.label: option for option in options(trace_of(rig, first_batch(rig)))}


def levels(found: dict[str, Option], factor: str) -> list[str]:
    return list(dict.fromkeys(option.factors[factor] for option in found.values()))


# ---------------------------------------------------------------- options


def test_every_combination_is_an_option_and_the_network_as_it_is_comes_first() -> None:
    found = grid(experiment(lambda: deep(nn.ReLU, 2)))
    assert len(found) == 6 * 3 * 3 * 3  # labels are distinct, too: they are the keys
    assert next(iter(found)) == AS_IT_IS
    assert found[AS_IT_IS].proposals == ()
    assert levels(found, "activation") == [AS_IT_IS, "selu", "elu", "leaky_relu", "tanh", "sigmoid"]
    assert levels(found, "initialiser") == [AS_IT_IS, "matching", "orthogonal"]
    assert levels(found, "norm") == [AS_IT_IS, "batch_norm", "layer_norm"]
    assert levels(found, "rate") == [AS_IT_IS, "×0.1", "×10"]


class Functional(nn.Module):
    """Its hidden activation is the one of its output, and both run in one module."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.last(torch.sigmoid(self.second(torch.sigmoid(self.first(x))))))


class Convolutions(nn.Module):
    def __init__(self, hidden: bool) -> None:
        super().__init__()
        self.first, self.second, self.hidden = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(64, 8) if hidden else None
        self.last = nn.Linear(8 if hidden else 64, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.second(F.relu(self.first(x)))).flatten(1)
        return self.last(x if self.hidden is None else F.relu(self.hidden(x)))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.states, self.last = nn.LSTM(3, 8, batch_first=True), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.states(x)[0][:, -1])


@pytest.mark.parametrize(
    ("model", "shape", "activations", "norms"),
    [
        (lambda: nn.Linear(6, 2), (6,), 1, []),
        (lambda: nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)), (6,), 6, []),
        (lambda: nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 2)), (6,), 7, ["batch_norm", "layer_norm"]),
        (
            lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2)),
            (6,),
            7,
            ["batch_norm", "layer_norm"],
        ),
        (lambda: Convolutions(hidden=False), (1, 8, 8), 6, ["batch_norm", "group_norm"]),
        (lambda: Convolutions(hidden=True), (1, 8, 8), 6, ["batch_norm"]),
        (Recurrent, (5, 3), 1, []),
    ],
    ids=["linear", "normed", "gelu", "two activations", "convolutions", "convolutions and linear", "recurrent"],
)
def test_only_what_the_network_takes_is_an_option(
    model: Callable[[], nn.Module], shape: tuple[int, ...], activations: int, norms: list[str]
) -> None:
    x = torch.randn(8, *shape, generator=torch.Generator().manual_seed(0))
    found = grid(experiment(model, data=(x, torch.arange(8) % 2)))
    assert len(levels(found, "activation")) == activations
    assert levels(found, "norm") == [AS_IT_IS, *norms]


def test_an_option_is_built_as_its_factors_say() -> None:
    given = experiment(lambda: deep(nn.ReLU, 3))
    found = grid(given)
    rig = build(given.repaired(found["sigmoid + orthogonal initialiser + layer_norm + rate ×10"].proposals))
    trace = trace_of(rig, first_batch(rig))
    assert [x.activation for x in trace.layers if x.depth is not None] == ["sigmoid"] * 3 + ["none"]
    assert [x.norm for x in trace.layers if x.depth is not None] == ["layer_norm"] * 3 + ["none"]
    weight = rig.model.get_parameter("2.weight")
    torch.testing.assert_close(weight @ weight.mT, torch.eye(8), atol=1e-5, rtol=0)
    assert rig.optimizer is not None
    assert rig.optimizer.param_groups[0]["lr"] == pytest.approx(1.0)
    assert len(rig.optimizer.param_groups[0]["params"]) == 8 + 6  # those of the norms have joined


def test_an_activation_alone_leaves_the_weights_as_they_are() -> None:
    given = experiment(lambda: deep(nn.ReLU, 3))
    before, after = (build(given.repaired(grid(given)[label].proposals)).model for label in (AS_IT_IS, "selu"))
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))
    assert isinstance(after[1], nn.SELU)  # type: ignore[index]


def test_the_initialiser_matches_the_new_activation_not_the_old_one() -> None:
    given = experiment(lambda: deep(nn.ReLU, 3))
    (_, fill) = grid(given)["selu + matching initialiser"].proposals
    assert [p["scheme"] for p in fill.options["plans"]] == ["lecun_normal"] * 3 + ["glorot_normal"]
    assert fill.code == "+eg.initialize_(model)  # lecun_normal, glorot_normal"


def test_the_activation_of_the_output_stays() -> None:
    x, y = points()
    given = experiment(Functional, data=(x, y.float()[:, None]), loss_fn=nn.BCELoss())
    rig = build(given.repaired(grid(given)["tanh"].proposals))
    assert [x.activation for x in trace_of(rig, first_batch(rig)).layers] == ["tanh", "tanh", "sigmoid"]
    assert rig.model(x).min() > 0


def test_all_hidden_activations_change_where_there_are_several() -> None:
    given = experiment(lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2)))
    found = grid(given)
    assert len(found["elu"].proposals) == 2
    assert len(found["tanh"].proposals) == 1  # one of them is it already
    rig = build(given.repaired(found["tanh"].proposals))
    assert present(trace_of(rig, first_batch(rig))) == ("tanh",)


# ---------------------------------------------------------------- comparing


def factors(**changed: str) -> dict[str, str]:
    return dict.fromkeys(FACTORS, AS_IT_IS) | changed


def test_an_effect_is_the_median_over_the_other_factors_and_counts_who_wins() -> None:
    tried = [
        (factors(), 0.5),
        (factors(norm="batch_norm"), 0.6),
        (factors(rate="×10"), 0.7),
        (factors(norm="batch_norm", rate="×10"), 0.9),
        (factors(rate="×0.1"), NAN),
        (factors(norm="batch_norm", rate="×0.1"), 0.1),
    ]
    norm, rate = effects(tried, maximize=True)
    assert (norm.factor, norm.best, norm.against) == ("norm", "batch_norm", AS_IT_IS)
    assert norm.levels == {AS_IT_IS: 0.5, "batch_norm": 0.6}
    assert (norm.wins, norm.settings) == (3, 3)  # a number wins against one that diverged
    assert norm.gain == pytest.approx(0.1)
    assert (rate.best, rate.levels["×10"], rate.levels["×0.1"]) == ("×10", pytest.approx(0.8), -math.inf)
    assert (rate.wins, rate.settings) == (2, 2)
    smaller = effects(tried, maximize=False)
    assert [(e.best, e.against, e.wins, e.settings) for e in smaller] == [("batch_norm", AS_IT_IS, 1, 3), (AS_IT_IS, "×10", 2, 2)]


def test_equal_levels_leave_the_network_as_it_is() -> None:
    (effect,) = effects([(factors(), 0.5), (factors(norm="batch_norm"), 0.5)], maximize=True)
    assert (effect.best, effect.wins) == (AS_IT_IS, 0)


SCORES = {
    "tanh": (0.90, 0.92, 0.91),
    "selu": (0.95, 0.96, 0.97),
    "relu": (0.80, 0.91, 0.82),
    "sigmoid": (0.93, 0.94, 0.93),
    "elu": (NAN, 0.98, 0.99),
}


def test_activations_are_ordered_by_their_medians() -> None:
    assert measured_order(SCORES, maximize=True) == ("elu", "selu", "sigmoid", "tanh", "relu")
    losses = {name: tuple(-v for v in values) for name, values in SCORES.items()}
    assert measured_order(losses, maximize=False) == ("elu", "selu", "sigmoid", "tanh", "relu")
    assert measured_order({"tanh": (0.9,), "selu": (0.9,)}, maximize=True) == ("selu", "tanh")  # a tie is as in the textbook


@pytest.mark.parametrize("sign", [1, -1], ids=["larger is better", "smaller is better"])
def test_a_pair_is_inverted_only_if_the_seeds_of_the_two_do_not_overlap(sign: int) -> None:
    found = inversions({name: tuple(sign * v for v in values) for name, values in SCORES.items()}, maximize=sign == 1)
    assert [(pair.better, pair.worse) for pair in found] == [("sigmoid", "relu"), ("sigmoid", "tanh")]  # tanh and relu overlap
    assert (found[1].better_worst, found[1].worse_best) == (sign * 0.93, sign * 0.92)


def test_what_diverged_on_every_seed_is_behind_what_did_not() -> None:
    (pair,) = inversions({"selu": (NAN, NAN), "tanh": (0.1, 0.2)}, maximize=True)
    assert (pair.better, pair.worse) == ("tanh", "selu")
    assert inversions({"selu": (NAN, 0.1), "tanh": (0.1, 0.2)}, maximize=True) == ()


def test_one_seed_inverts_nothing() -> None:
    assert inversions({"selu": (0.1,), "tanh": (0.9,)}, maximize=True) == ()


def row(median: float, *, better: bool = True, **changed: str) -> Row:
    return Row(
        label=str(median),
        factors=factors(**changed),
        seeds=(0,),
        metrics=(median,),
        low=median,
        median=median,
        high=median,
        share=1,
        better=better,
    )


def test_the_smallest_change_that_reaches_nine_tenths_of_the_gain_is_chosen() -> None:
    base = row(0.5, better=False)
    large, near, small = row(0.9, activation="selu", norm="batch_norm"), row(0.87, activation="selu"), row(0.8, rate="×10")
    assert smallest([base, large, near, small], base, maximize=True) is near
    assert smallest([base, large, small], base, maximize=True) is large
    assert smallest([large, near], row(NAN, better=False), maximize=True) is large  # counted from the worst that did not diverge
    assert smallest([base, row(0.99, better=False)], base, maximize=True) is None


# ---------------------------------------------------------------- networks whose best choice is known


class Judged(nn.Module):
    """Knows the seed that it was drawn with, so that a metric can say anything."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.seed = torch.initial_seed()
        self.first, self.norm, self.between, self.last = nn.Linear(6, 4), norm, nn.Tanh(), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(self.norm(self.first(x))))


def judged(score: Callable[[type[nn.Module], bool, int], float], norm: type[nn.Module] = nn.LayerNorm, **changes: Any) -> Experiment:
    """An experiment whose metric is a function of activation, batch norm and seed alone; a network without a norm has more options."""

    def metric(model: nn.Module) -> float:
        assert isinstance(model, Judged)
        normed = any(isinstance(m, nn.BatchNorm1d) for m in model.modules())
        return score(type(model.between), normed, model.seed)

    return experiment(lambda: Judged(norm(4)), metric=metric, **{"epochs": 1} | changes)


def test_what_the_gain_does_not_need_is_taken_out() -> None:
    found = recommend(judged(lambda kind, normed, seed: 0.5 + 0.2 * (kind is nn.SELU) + 0.2 * normed, nn.Identity), seeds=2)
    assert found.verdict == "change"
    assert found.chosen.label == "selu + batch_norm"
    assert found.chosen.metrics == pytest.approx((0.9, 0.9))
    assert found.as_it_is.metrics == (0.5, 0.5)
    assert [p.remedy for p in found.experiment.repairs] == ["swap_activation", "batch_norm"]
    assert found.order[0] == "selu"
    assert {e.factor: e.best for e in found.effects} == factors(activation="selu", norm="batch_norm")


def test_what_is_better_on_every_seed_by_luck_is_refuted_on_others() -> None:
    found = recommend(judged(lambda kind, normed, seed: 0.5 if kind is nn.Tanh or seed > 1 else 0.6), seeds=2)
    assert found.verdict == "keep"
    assert found.chosen is found.as_it_is
    assert found.experiment.repairs == ()
    assert all(proof.verdict == "no_better" for proof in found.proofs.values())
    assert [len(proof.seeds) for proof in found.proofs.values()] == [3, 6, 9]  # each has to do more than the one before it
    assert all(proof.seeds[0] == 2 for proof in found.proofs.values())
    assert "what is better on each of 2 seeds is not on others" in " ".join(str(found).split())
    assert "on 3 seeds more: 0.5, as it is 0.5; better on 0 of 3" in " ".join(str(found).split())


def test_the_next_best_takes_the_turn_of_what_was_refuted() -> None:
    def score(kind: type[nn.Module], normed: bool, seed: int) -> float:
        return 0.5 + {nn.SELU: 0.3 * (seed < 2), nn.ELU: 0.2, nn.ReLU: -0.1}.get(kind, 0.0)

    found = recommend(judged(score), seeds=2)
    assert (found.verdict, found.chosen.label) == ("change", "elu")
    assert {label: proof.verdict for label, proof in found.proofs.items()} == {"selu": "no_better", "elu": "improved"}
    assert not any(row.better for row in found.rows if "selu" in row.label)  # what holds the refuted change went with it


def test_what_is_better_on_all_seeds_but_one_is_not_recommended() -> None:
    found = recommend(judged(lambda kind, normed, seed: 0.5 + 0.3 * (kind is nn.SELU) * (-1 if seed == 2 else 1)), seeds=3)
    assert found.verdict == "keep"
    assert "better on 2 of 3 seeds" in str(found)
    assert found.proofs == {}


def test_where_the_textbook_does_not_hold_is_told_with_the_seeds() -> None:
    places = (nn.Sigmoid, nn.Tanh, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SELU)  # the textbook upside down
    found = recommend(judged(lambda kind, normed, seed: 0.9 - 0.1 * places.index(kind) + 0.01 * seed), seeds=2)
    assert found.order == TEXTBOOK[::-1]
    assert len(found.inversions) == 15
    assert found.best_of["tanh"] == AS_IT_IS  # the network's own counts for its activation
    assert "not as in the textbook: sigmoid beats selu here; its worst seed 0.9, the other's best 0.41" in str(found)


def test_a_smaller_metric_can_be_better() -> None:
    found = recommend(judged(lambda kind, normed, seed: 0.5 - 0.2 * (kind is nn.ELU), maximize=False), seeds=2)
    assert (found.verdict, found.chosen.label) == ("change", "elu")
    assert found.order[0] == "elu"


def test_a_number_in_the_place_of_a_diverged_training_wins() -> None:
    def score(kind: type[nn.Module], normed: bool, seed: int) -> float:
        return 0.8 if kind is nn.SELU else NAN

    found = recommend(judged(score), seeds=1)
    assert found.rows[0].factors["activation"] == "selu"
    assert math.isnan(found.as_it_is.median) or math.isinf(found.as_it_is.median)
    document = json.loads(found.to_json())
    assert next(r for r in document["rows"] if r["label"] == AS_IT_IS)["metrics"] == [None]


@pytest.fixture(scope="module")
def sick() -> Recommendation:
    """Logistic layers behind a norm of the inputs: no other norm is an option, so that there is a third as much to try."""
    return recommend(experiment(lambda: nn.Sequential(nn.BatchNorm1d(6), deep(nn.Sigmoid, 5)), epochs=40), seeds=2, name="stuck")


def test_deep_logistic_layers_are_replaced(sick: Recommendation) -> None:
    assert sick.verdict == "change"
    assert sick.chosen.factors["activation"] in TEXTBOOK
    assert all(a > b + 0.1 for a, b in zip(sick.chosen.metrics, sick.as_it_is.metrics, strict=True))
    assert sick.proofs[sick.chosen.label].verdict == "improved"
    assert sick.present == ("sigmoid",)
    gain, healthier = sick.as_it_is.gradient_gain, sick.chosen.gradient_gain
    assert gain is not None
    assert healthier is not None
    assert gain < 0.3 < healthier


def test_the_recommended_experiment_gives_the_numbers_that_it_was_recommended_for(sick: Recommendation) -> None:
    assert tuple(train(sick.experiment, seed=seed).metric for seed in sick.seeds) == sick.chosen.metrics


def test_every_option_is_a_row_and_says_how_far_it_came(sick: Recommendation) -> None:
    assert len(sick.rows) == sick.options == 54
    assert len({r.label for r in sick.rows}) == 54
    assert [r.share for r in sick.rows] == sorted((r.share for r in sick.rows), reverse=True)
    assert min(r.share for r in sick.rows) == pytest.approx(30 / 40)  # thirty steps at least
    activations = {r.factors["activation"] for r in sick.finals}
    assert activations == {AS_IT_IS, "selu", "elu", "leaky_relu", "relu", "tanh"}  # each comes to the end
    assert set(sick.order) == set(TEXTBOOK)
    assert len(sick.finals) < 20


def test_the_text_says_what_it_rests_on(sick: Recommendation) -> None:
    text = str(sick)
    for words in (
        "stuck: 54 options",
        f"change it to {sick.chosen.label}: accuracy",
        "better on each of 2 seeds",
        "on 3 seeds more:",
        "before training, the gradient is multiplied by",
        "what matters in the first short trials:",
        "  rate: ",
        "activations, each at its best:",
        "in your code:",
    ):
        assert words in text
    assert sick.chosen.proposals[-1].code.splitlines()[-1] in text
    assert max(map(len, text.splitlines())) <= 100


def test_the_document_holds_everything(sick: Recommendation) -> None:
    document = json.loads(sick.to_json())
    assert document["schema"] == "evengrad/recommendation/1"
    assert document["verdict"] == "change"
    assert document["chosen"] == sick.chosen.label
    assert document["textbook"] == list(TEXTBOOK)
    assert document["order"] == list(sick.order)
    assert len(document["rows"]) == 54
    assert document["rows"][0]["proposals"] == [] or document["rows"][0]["proposals"][0]["remedy"]
    assert document["proofs"][sick.chosen.label]["verdict"] == "improved"
    assert document["patch"] == sick.patch
    assert "experiment" not in document


def test_a_healthy_network_is_kept_where_nothing_beats_it_on_every_seed() -> None:
    found = recommend(experiment(lambda: normed(nn.Tanh, 16), epochs=60), seeds=2)
    assert found.verdict == "keep"
    assert found.as_it_is.median == 1.0  # it cannot be better
    assert found.chosen is found.as_it_is
    assert found.patch == ""
    assert str(found).splitlines()[2].startswith("keep it as it is: none of")
    assert "in your code:" not in str(found)


def test_a_network_without_anything_to_change_is_kept() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(2))

        def forward(self, x: Tensor) -> Tensor:
            return x[:, :2] * self.scale

    found = recommend(experiment(Scaled, epochs=2, optimizer=lambda m: torch.optim.Rprop(m.parameters(), 0.0)), seeds=2)
    assert (found.verdict, found.options) == ("keep", 1)
    assert "nothing was found to change" in str(found)


# ---------------------------------------------------------------- budget, resume, wrong input


def test_a_budget_that_is_over_leaves_it_undecided() -> None:
    found = recommend(experiment(lambda: deep(nn.ReLU, 2)), seeds=2, max_seconds=0.0)
    assert (found.verdict, found.late) == ("not_decided", True)
    assert [r.label for r in found.rows] == [AS_IT_IS]
    assert found.experiment.repairs == ()
    assert str(found).splitlines()[2].startswith("not decided: the time was over")
    json.loads(found.to_json())


def test_kept_trainings_are_not_done_again(tmp_path: Path) -> None:
    built: list[int] = []

    def model() -> nn.Module:
        built.append(1)
        return normed()

    given, file = experiment(model, epochs=1), tmp_path / "kept.jsonl"
    first = recommend(given, seeds=1, keep=file)
    count, lines = len(built), file.read_text().splitlines()
    again = recommend(given, seeds=1, keep=file)
    assert again.rows == first.rows
    assert again.chosen == first.chosen
    assert file.read_text().splitlines() == [*lines, lines[1]]  # the first training tells whose file it is, and is noted again
    assert len(built) - count < count / 2 + 5  # what is left is measuring, no training


def test_a_run_that_was_cut_off_goes_on_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "kept.jsonl"
    given = experiment(normed, epochs=1)

    def stop(line: str) -> None:
        if line.startswith("30 of"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recommend(given, seeds=1, keep=file, progress=stop)
    held = len(file.read_text().splitlines())
    assert 30 < held < 40
    assert recommend(given, seeds=1, keep=file).rows == recommend(given, seeds=1).rows


def test_several_workers_give_the_same_answer() -> None:
    given = experiment(normed, epochs=1)
    assert recommend(given, seeds=2, workers=3).rows == recommend(given, seeds=2).rows


def test_an_option_that_cannot_be_trained_is_told_with_its_reason() -> None:
    x, y = points(33)  # the last batch of an epoch has one sample, which batch norm refuses
    found = recommend(experiment(lambda: deep(nn.ReLU, 1), data=(x, y), epochs=1), seeds=1)
    assert len(found.skipped) == 54
    assert all("batch_norm" in label for label in found.skipped)
    assert not any("batch_norm" in r.label for r in found.rows)
    assert "and 53 more (the model's forward raised ValueError" in " ".join(str(found).split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"seeds": 0}, "at least one seed and one worker; got seeds=0, workers=1"),
        ({"seeds": []}, "at least one seed"),
        ({"workers": 0}, "got seeds=3, workers=0"),
    ],
)
def test_no_seed_or_no_worker_is_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        recommend(experiment(lambda: deep(nn.ReLU, 1)), **arguments)


def test_a_model_in_the_place_of_an_experiment_is_refused() -> None:
    with pytest.raises(InputError, match="recommend needs an Experiment, since it trains; got Linear"):
        recommend(nn.Linear(2, 2))  # type: ignore[arg-type]


def test_a_file_of_another_experiment_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "kept.jsonl"
    recommend(experiment(lambda: deep(nn.ReLU, 1), epochs=1), seeds=1, keep=file, max_seconds=0.0)
    with pytest.raises(InputError, match="holds trainings of another experiment"):
        recommend(experiment(lambda: deep(nn.ReLU, 2), epochs=1), seeds=1, keep=file)


def test_the_original_stays_as_it_was() -> None:
    given = experiment(lambda: deep(nn.ReLU, 1), epochs=1)
    x = given.data[0].clone()
    state = torch.get_rng_state()
    recommend(given, seeds=1, max_seconds=1.0)
    assert given.repairs == ()
    assert torch.equal(given.data[0], x)
    assert torch.equal(torch.get_rng_state(), state)
