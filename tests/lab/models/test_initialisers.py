"""evengrad.lab.models.initialisers: names with options, and fans of convolutions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from evengrad.errors import InputError, UnknownNameError
from evengrad.lab.models import MLP
from evengrad.lab.models.drawing import Drawer
from evengrad.lab.models.initialisers import initialiser


def drawn(name: str, *shape: int, seed: int = 0) -> Tensor:
    weight = torch.empty(shape)
    initialiser(name)(weight, "relu", torch.Generator().manual_seed(seed))
    return weight


@pytest.mark.parametrize(
    ("name", "alias"),
    [
        ("uniform(0, 1)", "uniform_01"),
        ("normal(0.01)", "normal_001"),
        ("normal(1)", "normal_1"),
        ("constant(0)", "zeros"),
        ("variance_scaling(1, fan_in, uniform)", "lecun_uniform"),
        ("variance_scaling(2)", "he_normal"),
        ("variance_scaling(1, fan_avg)", "glorot_normal"),
    ],
)
def test_a_name_with_options_draws_as_its_short_form(name: str, alias: str) -> None:
    torch.testing.assert_close(drawn(name, 20, 30), drawn(alias, 20, 30))


@pytest.mark.parametrize(
    ("name", "mean", "deviation"),
    [
        ("uniform(-0.5, 1.5)", 0.5, 2 / 12**0.5),
        ("constant(0.3)", 0.3, 0.0),
        ("variance_scaling(2, fan_avg, uniform)", 0.0, (2 / 300) ** 0.5),
        ("variance_scaling(1, fan_out, truncated)", 0.0, 400**-0.5),
    ],
)
def test_options_mean_what_they_say(name: str, mean: float, deviation: float) -> None:
    weight = drawn(name, 400, 200)
    assert weight.mean().item() == pytest.approx(mean, abs=5 * deviation / 80000**0.5 + 1e-7)  # five sigma
    assert weight.std().item() == pytest.approx(deviation, rel=0.013, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "variance"),
    [
        ("he_normal", 2 / 288),
        ("he_uniform", 2 / 288),
        ("lecun_uniform", 1 / 288),
        ("glorot_normal", 2 / (288 + 576)),
        ("default", 1 / (3 * 288)),
    ],
)
def test_convolutions_are_scaled_by_channels_times_kernel(name: str, variance: float) -> None:
    weight = drawn(name, 64, 32, 3, 3)
    assert weight.var().item() == pytest.approx(variance, rel=0.05)  # five sigma of 18,432 weights


def test_default_convolutions_are_torchs_own_draw() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        expected = nn.Conv2d(2, 4, 3)
    ours = Drawer.seeded("default", "relu", 1.0, 3).conv(2, 4, 3)
    assert torch.equal(ours.weight, expected.weight)
    assert torch.equal(ours.bias, expected.bias)


def test_delta_orthogonal_keeps_the_norm_of_images() -> None:
    x = torch.randn(2, 6, 9, 9, generator=torch.Generator().manual_seed(0))
    y = nn.functional.conv2d(x, drawn("delta_orthogonal", 8, 6, 3, 3), padding=1)
    torch.testing.assert_close(y.norm(dim=1), x.norm(dim=1))


def test_delta_orthogonal_is_orthogonal_for_linear_layers() -> None:
    weight = drawn("delta_orthogonal", 3, 9)
    torch.testing.assert_close(weight @ weight.mT, torch.eye(3), rtol=0, atol=1e-6)


def test_init_scale_multiplies_every_weight_but_the_heads() -> None:
    plain, scaled = (MLP(inputs=3, outputs=2, depth=2, width=5, init_scale=s).build(0) for s in (1.0, 0.5))
    for ours, other, factor in zip(scaled[::2], plain[::2], (0.5, 0.5, 1.0), strict=True):
        assert torch.equal(ours.weight, factor * other.weight)
        assert torch.equal(ours.bias, other.bias)


@pytest.mark.parametrize(
    "name", ["normal", "normal(a)", "uniform(1)", "uniform(1, 0)", "he_normal(2)", "variance_scaling(1, fan)", "constant(1, 2)"]
)
def test_options_that_do_not_fit_are_refused_with_those_that_do(name: str) -> None:
    with pytest.raises(InputError, match=r"uniform\(low, high\)"):
        initialiser(name)


@pytest.mark.parametrize(("name", "hint"), [("lecun_unform", "lecun_uniform"), ("varience_scaling(2)", "variance_scaling")])
def test_an_unknown_name_offers_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(UnknownNameError, match=f"Did you mean '{hint}'"):
        initialiser(name)
