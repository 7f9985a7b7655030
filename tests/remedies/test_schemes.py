"""Initialisers give the variance that their papers say, and every layer gets the one that its activation needs."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import evengrad as eg
from evengrad.errors import InputError, UnknownNameError
from evengrad.remedies import schemes

IN, OUT = 700, 300
GLOROT, HE, LECUN = 2 / (IN + OUT), 2 / IN, 1 / IN


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def variance(weight: Tensor) -> float:
    return float(weight.detach().double().var())


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        ("glorot_normal", GLOROT),
        ("glorot_uniform", GLOROT),
        ("he_normal", HE),
        ("he_uniform", HE),
        ("lecun_normal", LECUN),
        ("lecun_uniform", LECUN),
    ],
)
@pytest.mark.parametrize("gain", [1.0, 0.5])
def test_each_scheme_gives_its_variance(scheme: str, expected: float, gain: float) -> None:
    weight = schemes.fill_(torch.empty(OUT, IN), scheme, fans=(IN, OUT), gain=gain, generator=generator())
    assert variance(weight) == pytest.approx(expected * gain**2, rel=0.03)  # 210,000 draws: a standard error of 0.3%
    assert abs(float(weight.mean())) < 5 * math.sqrt(expected / weight.numel())


@pytest.mark.parametrize("distribution", ["normal", "uniform", "truncated"])
@pytest.mark.parametrize(("mode", "fan"), [("fan_in", IN), ("fan_out", OUT), ("fan_avg", (IN + OUT) / 2)])
def test_every_distribution_and_fan_gives_scale_over_fan(distribution: str, mode: str, fan: float) -> None:
    weight = torch.empty(OUT, IN)
    schemes.variance_scaling_(weight, scale=1.5, mode=mode, distribution=distribution, fans=(IN, OUT), generator=generator())
    assert variance(weight) == pytest.approx(1.5 / fan, rel=0.03)
    if distribution != "normal":
        limit = math.sqrt(3) if distribution == "uniform" else 2 / 0.8796  # of a normal cut at two, stretched to unit variance
        assert float(weight.abs().max()) <= limit * math.sqrt(1.5 / fan) * 1.0001


@pytest.mark.parametrize("shape", [(40, 40), (20, 60), (60, 20), (16, 8, 3, 3)])
def test_orthogonal_is_orthogonal(shape: tuple[int, ...]) -> None:
    weight = schemes.fill_(torch.empty(shape), "orthogonal", fans=(1, 1), gain=1.5, generator=generator()).flatten(1)
    wide = weight if weight.shape[0] <= weight.shape[1] else weight.mT
    torch.testing.assert_close(wide @ wide.mT, 2.25 * torch.eye(len(wide)), rtol=0, atol=1e-5)  # float32 QR


def test_delta_orthogonal_keeps_the_norm_of_every_signal() -> None:
    kernel = schemes.fill_(torch.empty(12, 8, 3, 5), "delta_orthogonal", fans=(1, 1), generator=generator())
    assert int((kernel != 0).flatten(2).any(0).any(0).sum()) == 1
    x = torch.randn(4, 8, 9, 9, generator=generator(1))
    z = F.conv2d(x, kernel, padding=(1, 2))
    torch.testing.assert_close(z.norm(), x.norm(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("shape", [(4, 8, 3), (8, 4)])
def test_delta_orthogonal_says_which_kernels_it_takes(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"needs a kernel \(out, in, k\.\.\.\) with out >= in; got \("):
        schemes.fill_(torch.empty(shape), "delta_orthogonal", fans=(1, 1))


def test_plain_schemes_take_their_options() -> None:
    def filled(scheme: str, **options: float) -> Tensor:
        return schemes.fill_(torch.empty(200, 200), scheme, fans=(200, 200), generator=generator(), **options)

    assert torch.equal(filled("constant", value=0.3), torch.full((200, 200), 0.3))
    assert torch.equal(filled("constant"), torch.zeros(200, 200))
    assert variance(filled("normal", std=2.0)) == pytest.approx(4.0, rel=0.03)
    low = filled("uniform", low=-1.0, high=3.0)
    assert float(low.min()) >= -1
    assert variance(low) == pytest.approx(16 / 12, rel=0.03)


def test_weights_of_lower_precision_get_the_same_draw_rounded() -> None:
    single, half = (schemes.fill_(torch.empty(9, 9, dtype=d), "he_normal", fans=(9, 9), generator=generator()) for d in (None, torch.half))
    assert torch.equal(single.half(), half)


# ---------------------------------------------------------------- initialize_


def test_every_layer_gets_the_initialiser_of_the_activation_behind_it() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu, self.selu, self.tanh, self.leaky, self.out = (nn.Linear(400, 400) for _ in range(5))
            self.act = nn.LeakyReLU(0.5)

        def forward(self, x: Tensor) -> Tensor:
            x = F.selu(self.selu(F.relu(self.relu(x))))
            return self.out(self.act(self.leaky(torch.tanh(self.tanh(x)))))

    model = eg.initialize_(Mixed(), seed=0)
    expected = {"relu": 2 / 400, "selu": 1 / 400, "tanh": 1 / 400, "leaky": 2 / (1 + 0.5**2) / 400, "out": 1 / 400}
    for name, value in expected.items():
        layer = model.get_submodule(name)
        assert variance(layer.weight) == pytest.approx(value, rel=0.03), name  # type: ignore[arg-type]
        assert not layer.bias.any()  # type: ignore[operator, union-attr]


def test_unequal_fans_tell_glorot_from_lecun() -> None:
    model = eg.initialize_(nn.Sequential(nn.Linear(IN, OUT), nn.Tanh(), nn.Linear(OUT, IN), nn.SELU(), nn.Linear(IN, OUT)), seed=0)
    weights = [variance(p) for p in model.parameters() if p.dim() > 1]
    assert weights == pytest.approx([GLOROT, 1 / OUT, GLOROT], rel=0.03)


@pytest.mark.parametrize(("act", "expected"), [(nn.ReLU(), 2 / 300), (nn.Tanh(), 2 / (300 + 900))])
def test_fans_of_a_kernel_laid_out_in_out_are_those_of_the_operation(act: nn.Module, expected: float) -> None:
    class Conv1D(nn.Module):
        def __init__(self, out: int, inputs: int) -> None:
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.zeros(inputs, out)), nn.Parameter(torch.ones(out))

        def forward(self, x: Tensor) -> Tensor:
            return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(*x.shape[:-1], -1)

    model = nn.Sequential(Conv1D(900, 300), act, nn.Linear(900, 2))
    eg.initialize_(model, inputs=torch.zeros(2, 300), seed=0)
    assert variance(model[0].weight) == pytest.approx(expected, rel=0.03)  # type: ignore[arg-type]
    assert not model[0].bias.any()  # type: ignore[operator, union-attr]


@pytest.mark.parametrize(
    ("layer", "inputs", "fan_in"),
    [
        (nn.Conv2d(32, 64, 3), (2, 32, 8, 8), 32 * 9),
        (nn.Conv2d(64, 64, 3, groups=4), (2, 64, 8, 8), 16 * 9),
        (nn.ConvTranspose2d(64, 32, 4, stride=2), (2, 64, 8, 8), 64 * 16 // 4),
    ],
    ids=["conv", "grouped", "transposed"],
)
def test_fans_of_convolutions_count_kernels_groups_and_strides(layer: nn.Module, inputs: tuple[int, ...], fan_in: int) -> None:
    model = nn.Sequential(layer, nn.ReLU(), nn.Flatten())
    eg.initialize_(model, inputs=torch.zeros(inputs), seed=0)
    assert variance(layer.weight) == pytest.approx(2 / fan_in, rel=0.04)  # type: ignore[arg-type]  # 9,216 draws: 1.5%


def test_a_seed_gives_the_same_weights_and_leaves_torchs_generator_alone() -> None:
    def made(seed: int | None) -> Tensor:
        return eg.initialize_(nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)), seed=seed)[0].weight.detach()  # type: ignore[index]

    with torch.random.fork_rng():
        torch.manual_seed(5)
        assert torch.equal(made(3), made(3))
        assert not torch.equal(made(3), made(4))
        model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(), nn.Tanh(), nn.Linear(4, 2))
        before = torch.get_rng_state()
        eg.initialize_(model, seed=0)
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(6)
        unseeded = made(None)
        torch.manual_seed(6)
        assert torch.equal(unseeded, made(None))


def test_initialising_leaves_norms_buffers_mode_and_gradients_alone() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).eval()
    norm = {k: v.clone() for k, v in model[1].state_dict().items()}
    eg.initialize_(model, seed=0)
    assert all(torch.equal(v, norm[k]) for k, v in model[1].state_dict().items())
    assert not model.training
    assert all(p.grad is None for p in model.parameters())
    assert not model._forward_hooks


def test_one_scheme_for_all_layers() -> None:
    model = eg.initialize_(nn.Sequential(nn.Linear(30, 30), nn.ReLU(), nn.Linear(30, 30)), "orthogonal", seed=0)
    first, last = (p.detach() for p in model.parameters() if p.dim() > 1)
    torch.testing.assert_close(first @ first.mT, 2 * torch.eye(30), rtol=0, atol=1e-5)  # half of the signal is cut by the ReLU
    torch.testing.assert_close(last @ last.mT, torch.eye(30), rtol=0, atol=1e-5)


def test_inputs_are_guessed_or_asked_for() -> None:
    eg.initialize_(nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(32, 2)), seed=0)
    eg.initialize_(nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU()), seed=0)
    with pytest.raises(InputError, match=r"cannot be guessed .* initialize_\(model, inputs=batch\)"):
        eg.initialize_(nn.Sequential(nn.Flatten()))


# ---------------------------------------------------------------- gain


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tanh", 1.5925),
        ("sigmoid", 1.8462),
        ("relu", 1.4142),
        ("selu", 1.0),
        ("elu", 1.2452),
        ("gelu", 1.5335),
        ("silu", 1.6765),
        ("mish", 1.4868),
    ],
)
def test_gain_keeps_the_second_moment(name: str, value: float) -> None:
    assert eg.gain(name) == pytest.approx(value, abs=1e-3)  # Gauss-Hermite across a kink converges slowly


@pytest.mark.parametrize(
    ("function", "value"), [(lambda z: z, 1.0), (lambda z: 3 * z, 1 / 3), (nn.LeakyReLU(0.2), (2 / 1.04) ** 0.5), (torch.sin, 1.5210)]
)
def test_gain_takes_any_function(function: Callable[[Tensor], Tensor], value: float) -> None:
    assert eg.gain(function) == pytest.approx(value, abs=1e-3)  # sin: E[sin^2] = (1 - exp(-2)) / 2


def test_gain_says_when_there_is_none() -> None:
    with pytest.raises(InputError, match="no second moment"):
        eg.gain(lambda z: 0 * z)


# ---------------------------------------------------------------- names


def test_a_wrong_name_gets_the_nearest() -> None:
    weight = torch.empty(4, 4)
    with pytest.raises(UnknownNameError, match=r"no initialiser is called 'he_norml'\. Did you mean 'he_normal'"):
        schemes.fill_(weight, "he_norml", fans=(4, 4))
    with pytest.raises(UnknownNameError, match=r"no initialiser is called 'ortogonal'\. Did you mean 'orthogonal'"):
        eg.initialize_(nn.Linear(2, 2), "ortogonal")
    with pytest.raises(UnknownNameError, match=r"no mode is called 'fanin'\. Did you mean 'fan_in'"):
        schemes.variance_scaling_(weight, mode="fanin", fans=(4, 4))
    with pytest.raises(UnknownNameError, match=r"no distribution is called 'unifrom'\. Did you mean 'uniform'"):
        schemes.variance_scaling_(weight, distribution="unifrom", fans=(4, 4))
    with pytest.raises(UnknownNameError, match=r"no activation is called 'gellu'\. Did you mean 'gelu'"):
        eg.gain("gellu")
