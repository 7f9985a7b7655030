"""Facts about activations: their values, and their derivatives as autograd gives them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from evengrad.errors import InputError, UnknownNameError
from evengrad.lab.models import ACTIVATIONS, mlp
from evengrad.lab.models.parts import activation

X = torch.linspace(-8, 8, 1602, dtype=torch.float64)  # 0 is not among them: kinks have no derivative there
SMOOTH_OR_KINKED = sorted(set(ACTIVATIONS) - {"softmax", "hardmax"})


def slope(name: str, x: Tensor = X) -> Tensor:
    x = x.detach().requires_grad_()
    (found,) = torch.autograd.grad(activation(name).double().eval()(x).sum(), x)
    return found


@pytest.mark.parametrize("name", SMOOTH_OR_KINKED)
def test_the_derivative_is_the_slope_of_the_value(name: str) -> None:
    phi, h = activation(name).double().eval(), 1e-5
    with torch.no_grad():
        difference = (phi(X + h) - phi(X - h)) / (2 * h)
    torch.testing.assert_close(slope(name), difference, rtol=1e-6, atol=1e-8)  # central difference: h^2 and 1e-16 / h


def test_sigmoid_passes_at_most_a_quarter() -> None:
    s = torch.sigmoid(X)
    torch.testing.assert_close(slope("sigmoid"), s * (1 - s))
    assert slope("sigmoid").max() < 0.25
    assert slope("sigmoid", torch.zeros(1, dtype=torch.float64)).item() == 0.25


def test_sigmoids_mean_is_a_half_so_that_layers_spread_until_the_top_saturates() -> None:
    z = torch.randn(1000, 10, generator=torch.Generator().manual_seed(0))
    outputs = []
    for module in mlp([10, *[100] * 4, 1], "sigmoid", "normal_1", seed=0)[:-1]:
        z = module(z)
        outputs.append(z.detach())
    first, top = outputs[0], outputs[-2]
    assert torch.sigmoid(first).mean().item() == pytest.approx(0.5, abs=0.05)
    assert top.square().mean() > 2 * first.square().mean()
    flat = [(s * (1 - s) < 0.05 * 0.25).float().mean().item() for s in outputs[1::2]]
    assert flat[-1] > 2 * flat[0] > 0


def test_tanh_passes_at_most_one() -> None:
    assert slope("tanh").max() < 1
    assert slope("tanh", torch.zeros(1, dtype=torch.float64)).item() == 1


def test_relu_passes_all_or_nothing() -> None:
    assert torch.equal(slope("relu"), (X > 0).double())


@pytest.mark.parametrize(
    ("name", "left"), [("leaky_relu", 0.01), ("leaky_relu(0.2)", 0.2), ("rrelu", (1 / 8 + 1 / 3) / 2), ("prelu", 0.25)]
)
def test_leaky_forms_pass_a_part_on_the_left(name: str, left: float) -> None:
    assert slope(name)[X < 0].unique().tolist() == pytest.approx([left])
    assert slope(name)[X > 0].unique().tolist() == [1]


def test_prelu_learns_its_slope() -> None:
    phi = activation("prelu(0.1)")
    phi(torch.tensor([-2.0, 3.0])).sum().backward()
    assert phi.weight.tolist() == pytest.approx([0.1])
    assert phi.weight.grad.tolist() == [-2.0]


def test_elu_is_smooth_at_zero_for_alpha_one_only() -> None:
    sides = torch.tensor([-1e-9, 1e-9], dtype=torch.float64)
    left, right = slope("elu", sides).tolist()
    assert left == pytest.approx(right, abs=1e-8)
    left, right = slope("elu(2)", sides).tolist()
    assert left == pytest.approx(2 * right, abs=1e-8)


def test_selu_is_a_scaled_elu_with_the_fixed_point_mean_0_variance_1() -> None:
    z = torch.linspace(-12, 12, 240001, dtype=torch.float64)
    density, h = (-z.square() / 2).exp() / math.sqrt(2 * math.pi), activation("selu")(z)
    assert torch.trapezoid(h * density, z).item() == pytest.approx(0, abs=1e-8)  # of a kink at 0: the square of the step
    assert torch.trapezoid(h.square() * density, z).item() == pytest.approx(1, abs=1e-8)
    scale, alpha = 1.0507009873554805, 1.6732632423543772  # Klambauer et al. 2017
    torch.testing.assert_close(activation("selu")(X), scale * activation(f"elu({alpha})")(X))


def test_gelu_and_its_tanh_form_differ_by_little() -> None:
    exact, tanh = activation("gelu")(X), activation("gelu_tanh")(X)
    torch.testing.assert_close(exact, X * 0.5 * (1 + torch.erf(X / 2**0.5)))
    torch.testing.assert_close(tanh, 0.5 * X * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (X + 0.044715 * X**3))))
    assert 1e-5 < (exact - tanh).abs().max() < 1e-3


def test_silu_and_mish_dip_below_zero_and_come_back() -> None:
    torch.testing.assert_close(activation("silu")(X), X * torch.sigmoid(X))
    torch.testing.assert_close(activation("mish")(X), X * torch.tanh(torch.log1p(X.exp())))
    for name in ("silu", "mish"):
        assert slope(name).min() < 0 < slope(name).max()


def test_softmax_answers_with_shares_and_hardmax_with_the_largest_and_no_gradient() -> None:
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    shares, hard = activation("softmax")(x), activation("hardmax")(x)
    torch.testing.assert_close(shares.sum(-1), torch.ones(5))
    assert torch.equal(hard, (shares == shares.max(-1, keepdim=True).values).float())
    assert shares.requires_grad
    assert not hard.requires_grad


def test_a_stack_without_activation_collapses_to_one_linear_layer() -> None:
    network = mlp([3, 7, 5, 2], "linear", seed=0).double()
    weight, bias = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for layer in network:
        if isinstance(layer, nn.Linear):
            weight, bias = layer.weight @ weight, layer.weight @ bias + layer.bias
    x = torch.randn(9, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(network(x), x @ weight.mT + bias)


def test_an_unknown_activation_offers_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'leaky_relu'"):
        activation("leaky_rely(0.2)")


@pytest.mark.parametrize("name", ["relu(0.2)", "leaky_relu(a)", "elu(1, 2)", "leaky_relu()"])
def test_an_option_that_is_not_taken_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="option"):
        activation(name)
