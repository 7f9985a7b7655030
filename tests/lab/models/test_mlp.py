"""evengrad.lab.models, and the stacked training in benchmarks/trainability that starts from its networks."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from evengrad.errors import InputError, UnknownNameError
from evengrad.lab.models import ACTIVATIONS, INITIALISERS, NORMS, mlp

ROOT = Path(__file__).parents[3]
N = 400  # a square layer of 160,000 weights: a standard deviation is known to 0.2% (one sigma)
DEVIATIONS = {
    "default": (3 * N) ** -0.5,  # U(+-1/sqrt(fan_in))
    "glorot_normal": N**-0.5,
    "glorot_uniform": N**-0.5,
    "he_normal": (2 / N) ** 0.5,
    "he_uniform": (2 / N) ** 0.5,
    "lecun_normal": N**-0.5,
    "lecun_uniform": N**-0.5,
    "orthogonal": N**-0.5,
    "orthogonal_gain": (2 / N) ** 0.5,
    "delta_orthogonal": N**-0.5,
    "uniform_01": 12**-0.5,
    "normal_001": 0.01,
    "normal_1": 1.0,
    "zeros": 0.0,
}
CHECKSUMS = {  # of `mlp([3, 20, 7, 2], "tanh", ..., seed=5)` when labels were first drawn with it
    "default": -2.5129774,
    "glorot_normal": -0.54990454,
    "glorot_uniform": -0.44081992,
    "he_normal": 4.9730566,
    "he_uniform": -3.5755463,
    "lecun_normal": 3.5164818,
    "orthogonal": -1.522794,
    "orthogonal_gain": -2.53799,
    "uniform_01": -0.62257573,
    "normal_001": -0.030860796,
    "normal_1": -3.0860792,
}


def linears(model: nn.Sequential) -> list[nn.Linear]:
    return [m for m in model if isinstance(m, nn.Linear)]


def test_alternates_linear_and_activation_and_ends_with_a_linear() -> None:
    kinds = [type(m) for m in mlp([3, 5, 4, 2], "gelu", seed=0)]
    assert kinds == [nn.Linear, nn.GELU, nn.Linear, nn.GELU, nn.Linear]


def test_two_sizes_are_one_linear_layer() -> None:
    assert [type(m) for m in mlp([3, 2], seed=0)] == [nn.Linear]


@pytest.mark.parametrize("norm", NORMS)
def test_norm_stands_before_each_activation_and_not_after_the_head(norm: str) -> None:
    kinds = [type(m) for m in mlp([3, 5, 4, 2], "tanh", norm=norm, seed=0)]
    assert kinds == [nn.Linear, type(NORMS[norm](1)), nn.Tanh] * 2 + [nn.Linear]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("initialiser", INITIALISERS)
def test_every_network_is_finite_and_named_by_its_seed(activation: str, initialiser: str) -> None:
    first, again, other = (mlp([4, 6, 3], activation, initialiser, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert torch.equal(first["0.weight"], other["0.weight"]) == (initialiser == "zeros")
    assert all(value.isfinite().all() for value in first.values())


@pytest.mark.parametrize("initialiser", INITIALISERS)
def test_a_seed_leaves_the_global_generator_alone(initialiser: str) -> None:
    before = torch.get_rng_state()
    mlp([4, 6, 3], "tanh", initialiser, norm="batch", seed=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_without_a_seed_the_global_generator_is_drawn_from() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        first = mlp([4, 3], initialiser="he_normal")[0].weight
        torch.manual_seed(3)
        assert torch.equal(first, mlp([4, 3], initialiser="he_normal")[0].weight)


@pytest.mark.parametrize(("initialiser", "checksum"), CHECKSUMS.items())
def test_draws_are_those_that_published_labels_were_made_with(initialiser: str, checksum: float) -> None:
    parameters = [p.detach().double().flatten() for p in mlp([3, 20, 7, 2], "tanh", initialiser, seed=5).parameters()]
    found = torch.cat([p * torch.arange(1, len(p) + 1).cos() for p in parameters]).sum().item()
    # float32 weights differ by an ulp between processors (BLAS, vectorised logarithms); any other draw is off by 1% and more
    assert found == pytest.approx(checksum, rel=1e-4)


def test_default_is_torchs_own_draw_number_for_number() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        expected = [nn.Linear(4, 6), nn.Linear(6, 3)]
    for ours, theirs in zip(linears(mlp([4, 6, 3], "relu", "default", seed=7)), expected, strict=True):
        assert torch.equal(ours.weight, theirs.weight)
        assert torch.equal(ours.bias, theirs.bias)


@pytest.mark.parametrize("initialiser", INITIALISERS)
def test_weights_have_the_published_deviation(initialiser: str) -> None:
    weight = linears(mlp([N, N, 1], "relu", initialiser, seed=0))[0].weight
    assert weight.std().item() == pytest.approx(DEVIATIONS[initialiser], rel=0.01)  # five sigma


def test_rectangular_layers_scale_with_their_fans() -> None:
    def deviation(initialiser: str) -> float:
        return linears(mlp([900, 300], "relu", initialiser, seed=0))[0].weight.std().item()

    assert deviation("glorot_normal") == pytest.approx((2 / 1200) ** 0.5, rel=0.01)
    assert deviation("he_normal") == pytest.approx((2 / 900) ** 0.5, rel=0.01)
    assert deviation("lecun_normal") == pytest.approx((1 / 900) ** 0.5, rel=0.01)


@pytest.mark.parametrize(("activation", "gain"), [("tanh", 5 / 3), ("relu", math.sqrt(2)), ("selu", 0.75), ("gelu", 1), ("sigmoid", 1)])
def test_orthogonal_gain_is_torchs_where_torch_has_one(activation: str, gain: float) -> None:
    weight = linears(mlp([16, 16, 1], activation, "orthogonal_gain", seed=0))[0].weight
    values = torch.linalg.svdvals(weight.double())
    assert torch.allclose(values, torch.tensor(gain, dtype=torch.float64), rtol=1e-5)  # the weight is float32


def test_biases_are_zero_except_by_default() -> None:
    for name in INITIALISERS:
        biased = any(m.bias.any() for m in linears(mlp([4, 6, 3], "tanh", name, seed=0)))
        assert biased == (name == "default"), name


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("relo", "default"), "no activation is called 'relo'. Did you mean 'relu'?"),
        (("relu", "he_norml"), "no initialiser is called 'he_norml'. Did you mean 'he_normal'?"),
    ],
)
def test_an_unknown_name_offers_the_nearest(arguments: tuple[str, str], hint: str) -> None:
    with pytest.raises(UnknownNameError) as error:
        mlp([2, 2], *arguments)
    assert str(error.value).startswith(hint)


def test_an_unknown_norm_offers_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'batch'"):
        mlp([2, 2], norm="batc")


@pytest.mark.parametrize("sizes", [[], [3], [3, 0, 2]])
def test_sizes_that_make_no_network_are_refused(sizes: list[int]) -> None:
    with pytest.raises(InputError, match="sizes must be two or more"):
        mlp(sizes)


@pytest.fixture
def labels(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("benchmarks.trainability.labels")


@pytest.mark.parametrize("activation", ["tanh", "relu", "selu", "gelu", "sigmoid"])
def test_stacked_training_is_plain_training_of_each_network(activation: str, labels: ModuleType) -> None:
    # float64 rounding only (measured 1e-15 after 20 steps); a missing momentum or a wrong rate gives 1e-3 and more
    assert labels.check_against_torch(activation) < 1e-12


def test_a_run_that_diverges_scores_zero_and_leaves_its_neighbour_alone(labels: ModuleType) -> None:
    x, y = torch.eye(4), torch.tensor([0, 1, 0, 1])

    def scores(rates: list[float]) -> object:
        stack = labels.Stack([mlp([4, 8, 2], "relu", "he_normal", seed=0) for _ in rates], "relu")
        return labels.train(stack, torch.tensor(rates), labels.batches(4, 40, 0)[:, None], x, y)

    alone, beside = scores([0.1]), scores([0.1, 1e30])
    assert beside.best.tolist() == [1.0, 0.0]
    assert beside.final.tolist() == [1.0, 0.0]
    assert beside.loss[1].isnan()
    assert beside.loss[0].item() == pytest.approx(alone.loss[0].item(), rel=1e-4)  # float32, another kernel for one run


def test_a_seed_names_the_batches_and_an_epoch_repeats_no_sample(labels: ModuleType) -> None:
    order = labels.batches(150, 5, seed=3)
    assert torch.equal(order, labels.batches(150, 5, seed=3))
    assert not torch.equal(order, labels.batches(150, 5, seed=4))
    assert order.shape == (5, 64)
    assert len(order[:2].unique()) == len(order[2:4].unique()) == 128


@pytest.mark.parametrize(("above_chance", "expected"), [(False, [True, False, True]), (True, [True, False, False])])
def test_trained_means_nine_tenths_of_the_best_at_some_rate(above_chance: bool, expected: list[bool], labels: ModuleType) -> None:
    def row(seed: int, score: float) -> dict[str, str]:
        cell = {"data": "circles", "width": "16", "activation": "tanh", "initialiser": "default", "depth": "1"}
        return cell | {"seed": str(seed), "score": str(score), "chance": "0.5"}

    # the bar is 0.9 * 0.9 = 0.81, or 0.5 + 0.9 * (0.9 - 0.5) = 0.86 above chance; seed 2 has two rates
    verdicts = labels.trained([row(0, 0.9), row(1, 0.80), row(2, 0.5), row(2, 0.83)], above_chance=above_chance)
    assert [verdicts["circles", "16", "tanh", "default", "1", seed] for seed in "012"] == expected
