from __future__ import annotations

import copy
import itertools
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evengrad.errors import InputError
from evengrad.trace.jacobian import jacobian_spectrum
from evengrad.types import Series


def mlp(*widths: int, activation: type[nn.Module] = nn.Tanh, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), activation()]
    return nn.Sequential(*layers)


def exact(model: nn.Module, x: Tensor) -> Series:
    """Singular values by forming the Jacobian row by row."""

    def output(flat: Tensor) -> Tensor:
        found = model(flat.reshape(x.shape))
        first: Tensor = found[0] if isinstance(found, tuple) else found
        return first.reshape(-1)

    model.eval()
    values: Series = torch.linalg.svdvals(torch.func.jacrev(output)(x.reshape(-1)).double()).detach().numpy()
    return values


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU, nn.GELU, nn.Sigmoid])
@pytest.mark.parametrize("widths", [(20, 30, 25), (25, 30, 20), (100, 40, 8), (8, 40, 100)])
def test_agrees_with_the_svd_of_the_whole_jacobian(widths: tuple[int, ...], activation: type[nn.Module]) -> None:
    model, x = mlp(*widths, activation=activation), torch.randn(1, widths[0])
    found, expected = jacobian_spectrum(model, x, k=6), exact(model, x)
    assert found.exact
    assert found.shape == (widths[-1], widths[0])
    np.testing.assert_allclose(found.largest, expected[:6], rtol=1e-4, atol=1e-6 * expected[0])  # float32 products
    assert found.median == pytest.approx(np.median(expected), rel=1e-3)
    assert found.smallest == pytest.approx(expected[-1], rel=1e-2, abs=1e-6 * expected[0])
    assert found.error_bound.tolist() == [0] * 6


def test_few_steps_find_the_largest_values_of_a_wide_network() -> None:
    model, x = mlp(784, 256, 128, 64), torch.randn(1, 784)
    found, expected = jacobian_spectrum(model, x, k=5, steps=30), exact(model, x)
    assert not found.exact
    np.testing.assert_allclose(found.largest, expected[:5], rtol=1e-4)
    assert (found.error_bound < 1e-3).all()
    assert found.median == pytest.approx(np.median(expected), rel=0.3)  # one start vector in 64 dimensions
    assert found.smallest >= expected[-1] * (1 - 1e-4)


def test_error_bound_holds_before_convergence() -> None:
    model, x = mlp(200, 200, 200).double(), torch.randn(1, 200).double()
    found, expected = jacobian_spectrum(model, x, k=8, steps=12), exact(model, x)
    distance = np.abs(found.largest[:, None] - expected[None]).min(axis=1)
    assert (found.error_bound > 1e-4).any()
    assert (distance <= found.error_bound + 1e-12).all()


def test_equal_singular_values_are_counted_as_often_as_they_occur() -> None:
    layer = nn.Linear(50, 50, bias=False)
    nn.init.orthogonal_(layer.weight, gain=3)
    found = jacobian_spectrum(layer, torch.randn(1, 50), k=10, steps=15)
    np.testing.assert_allclose(found.largest, 3, rtol=1e-5)
    assert found.condition == pytest.approx(1, abs=1e-5)


def test_null_space_is_seen() -> None:
    layer = nn.Linear(8, 8, bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(torch.diag(torch.tensor([4.0, 2, 0, 0, 0, 0, 0, 0])))
    found = jacobian_spectrum(layer, torch.zeros(1, 8).double(), k=4)
    np.testing.assert_allclose(found.largest, [4, 2, 0, 0], atol=1e-12)
    assert found.condition == float("inf") or found.condition > 1e12
    assert found.median == pytest.approx(0, abs=1e-12)


def test_vanished_jacobian_is_zero_and_not_an_error() -> None:
    found = jacobian_spectrum(nn.Sequential(nn.Linear(6, 6), Dead(), nn.Linear(6, 6)), torch.randn(1, 6))
    assert found.largest.tolist() == [0] * 6
    assert found.condition == float("inf")


class Dead(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x - 1e6)


class Steps(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sign()


def test_flat_function_has_a_jacobian_of_zero() -> None:
    assert jacobian_spectrum(Steps(), torch.randn(1, 4)).largest.tolist() == [0] * 4


def test_each_sample_is_taken_alone_and_eight_are_averaged() -> None:
    model, x = mlp(12, 16, 10), torch.randn(100, 12)
    found = jacobian_spectrum(model, x, k=3)
    rows = np.linspace(0, 99, 8).round().astype(int)
    expected = np.mean([exact(model, x[i : i + 1])[:3] for i in rows], axis=0)
    assert found.samples == 8
    assert found.shape == (10, 12)
    np.testing.assert_allclose(found.largest, expected, rtol=1e-4)


def test_vector_is_one_sample() -> None:
    model, x = mlp(12, 16, 10), torch.randn(12)
    one, batch = jacobian_spectrum(model, x), jacobian_spectrum(model, x[None])
    np.testing.assert_array_equal(one.largest, batch.largest)


def test_deep_sigmoid_network_squeezes_and_orthogonal_linear_network_does_not() -> None:
    squeezed = jacobian_spectrum(mlp(*[32] * 11, activation=nn.Sigmoid), torch.randn(4, 32))
    kept = nn.Sequential(*[nn.utils.parametrizations.orthogonal(nn.Linear(32, 32)) for _ in range(10)])
    assert squeezed.largest[0] < 1e-5
    np.testing.assert_allclose(jacobian_spectrum(kept, torch.randn(4, 32)).largest, 1, rtol=1e-4)


class CustomTanh(torch.autograd.Function):
    """An operation in the old style, which torch.func refuses."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.tanh()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad * (1 - ctx.saved_tensors[0].tanh().square())


class Custom(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = CustomTanh.apply(x)  # type: ignore[no-untyped-call]
        return out


def test_custom_autograd_function_is_measured_like_the_built_in_one() -> None:
    built_in, x = mlp(10, 10), torch.randn(1, 10)
    custom = nn.Sequential(built_in[0], Custom())
    np.testing.assert_allclose(jacobian_spectrum(custom, x).largest, exact(built_in, x), rtol=1e-4)


@pytest.mark.parametrize("cell", [nn.RNN, nn.GRU, nn.LSTM])
def test_recurrent_networks(cell: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model, x = cell(3, 8, batch_first=True), torch.randn(1, 4, 3)
    np.testing.assert_allclose(jacobian_spectrum(model, x, k=4).largest, exact(model, x)[:4], rtol=1e-4)


def test_transformer_layer_although_fused_attention_has_no_second_derivative() -> None:
    torch.manual_seed(0)
    model, x = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval(), torch.randn(1, 3, 16)
    found = jacobian_spectrum(model, x, k=5, steps=48)
    matrix: Tensor = torch.autograd.functional.jacobian(model, x).reshape(48, 48)
    np.testing.assert_allclose(found.largest, torch.linalg.svdvals(matrix)[:5], rtol=1e-4)


def test_model_that_begins_in_place() -> None:
    x = torch.tensor([[1.0, -2, 3]])
    np.testing.assert_allclose(jacobian_spectrum(nn.ReLU(inplace=True), x).largest, [1, 1, 0], atol=1e-6)
    assert x.tolist() == [[1, -2, 3]]


def test_inputs_by_name_are_varied_together_and_integers_stay() -> None:
    class Two(nn.Module):
        def forward(self, *, a: Tensor, b: Tensor, ids: Tensor) -> dict[str, Tensor]:
            return {"ids": ids, "out": torch.cat((2 * a, 5 * b), dim=1)}

    inputs = {"a": torch.randn(3, 2), "b": torch.randn(3, 1), "ids": torch.ones(3, 1, dtype=torch.long)}
    found = jacobian_spectrum(Two(), inputs)
    assert found.shape == (3, 3)
    np.testing.assert_allclose(found.largest, [5, 2, 2], rtol=1e-6)


def test_leaves_everything_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(6, 4))
    model.train()
    model[0].eval()
    model[4].weight.grad = torch.ones(4, 6)
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    x = torch.randn(5, 6)
    kept, states = x.clone(), (torch.get_rng_state(), random.getstate(), str(np.random.get_state()))
    jacobian_spectrum(model, x)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert modes == [m.training for m in model.modules()]
    assert model[0].weight.grad is None
    assert torch.equal(model[4].weight.grad, torch.ones(4, 6))
    assert torch.equal(x, kept)
    assert x.grad is None
    assert not x.requires_grad
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), str(np.random.get_state())) == states[1:]


def test_runs_in_eval_mode() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.Identity())
    np.testing.assert_allclose(jacobian_spectrum(model, torch.randn(2, 5)).largest, 1)


def test_same_seed_same_result_and_works_without_gradients_enabled() -> None:
    model, x = mlp(60, 60), torch.randn(1, 60)
    with torch.no_grad():
        first = jacobian_spectrum(model, x, steps=10, seed=3)
    second, other = jacobian_spectrum(model, x, steps=10, seed=3), jacobian_spectrum(model, x, steps=10, seed=4)
    np.testing.assert_array_equal(first.largest, second.largest)
    assert (other.largest != second.largest).any()


@pytest.mark.parametrize(
    ("model", "inputs", "message"),
    [
        (nn.Embedding(9, 4), torch.zeros(2, 3, dtype=torch.long), "needs floating-point inputs; got int64.*behind the embedding"),
        (nn.Linear(3, 3), torch.zeros(0, 3), "holds no sample"),
    ],
)
def test_inputs_without_a_jacobian_are_refused(model: nn.Module, inputs: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        jacobian_spectrum(model, inputs)


class Constant(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * torch.ones_like(x)


class Root(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sqrt()


class Distance(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cdist(x, torch.ones(3, x.shape[1]))


@pytest.mark.parametrize(
    ("model", "x", "message"),
    [
        (Constant(), torch.randn(1, 3), "does not depend on the floating-point inputs"),
        (Root(), torch.zeros(1, 3), "NaN or infinite"),
        (Distance(), torch.randn(1, 3), "has no second derivative"),
    ],
)
def test_models_without_a_usable_jacobian_are_refused(model: nn.Module, x: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        jacobian_spectrum(model, x)


@pytest.mark.parametrize("options", [{"k": 0}, {"steps": 0}])
def test_options_below_one_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(InputError, match="must be at least 1"):
        jacobian_spectrum(nn.Identity(), torch.ones(1, 2), **options)
