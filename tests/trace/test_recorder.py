"""One pass -> columns: each against straight formulas in double precision on gradients that autograd keeps."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from evengrad import synthetic
from evengrad.recording import trace_of
from evengrad.rig import Rig
from evengrad.signals import gradient_gain, slopes
from evengrad.trace import stats
from evengrad.trace.batch import Batch
from evengrad.trace.recorder import COLUMNS, Measurement, measure
from evengrad.types import Trace

OUT_AND_GRADIENT = ("out_mean", "out_rms", "out_abs_max", "out_spread", "grad_out_norm", "grad_out_abs_max")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def mlp(*widths: int, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), activation()]
    return nn.Sequential(*layers[:-1])


def cell(found: Measurement, column: str, name: str = "") -> float:
    names = [layer.name for layer in found.structure.layers]
    name = name or names[0]
    return float(found.columns[column][0, names.index(name)])


def squares(output: Any, targets: Any) -> Tensor:
    tensor: Tensor = output
    return tensor.square().sum() / len(tensor)


def twin(model: nn.Module, x: Tensor, names: list[str], batch_axis: int = 0) -> dict[str, dict[str, float]]:
    """What the columns must be: outputs of the modules called `names` kept with their gradients, formulas written out in full."""
    kept: dict[str, list[Tensor]] = {name: [] for name in names}

    def keep(name: str, output: Any) -> None:
        z = output[0] if isinstance(output, tuple) else output
        z.retain_grad()
        kept[name].append(z)

    hooks = [model.get_submodule(n).register_forward_hook(lambda m, a, out, n=n: keep(n, out)) for n in names]
    squares(model(x), None).backward()
    for hook in hooks:
        hook.remove()
    return {
        name: reference([z.movedim(batch_axis, 0) for z in zs], [z.grad.movedim(batch_axis, 0) for z in zs]) for name, zs in kept.items()
    }


def reference(outputs: list[Tensor], gradients: list[Tensor]) -> dict[str, float]:
    """Tensors (samples, ...) of each call."""
    z = torch.stack([o.detach().double() for o in outputs])
    g = torch.stack([x.double() for x in gradients])
    norms = g.movedim(0, 1).flatten(1).norm(dim=1)  # of each sample, over calls, positions and units
    return {
        "out_mean": z.mean().item(),
        "out_rms": z.square().mean().sqrt().item(),
        "out_abs_max": z.abs().max().item(),
        "out_spread": z.var(dim=1, correction=0).mean().sqrt().item(),
        "grad_out_norm": norms.mean().item(),
        "grad_out_abs_max": g.abs().max().item(),
    }


class ConvNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(2, 6, 3), nn.Conv2d(6, 4, 3, stride=2), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(torch.relu(self.b(torch.tanh(self.a(x)))).mean((2, 3)))
        return out


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(x))
        for _ in range(3):
            x = torch.relu(self.b(x))
        out: Tensor = self.c(x)
        return out


class TimeMajor(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.fc = nn.LSTM(3, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(self.rnn(x)[0]).transpose(0, 1)  # (T, B, D) -> (B, T, D)
        return out


TWINS: list[tuple[Callable[[], nn.Module], tuple[int, ...], list[str], int]] = [
    (lambda: mlp(8, 16, 16, 3), (32, 8), ["0", "2", "4"], 0),
    (ConvNet, (16, 2, 9, 9), ["a", "b", "fc"], 0),
    (Shared, (16, 8), ["a", "b", "c"], 0),
    (lambda: mlp(8, 16, 16, 3, activation=nn.Tanh), (6, 5, 8), ["0", "2", "4"], 0),  # (B, T, D)
    (lambda: nn.Sequential(nn.Conv1d(4, 6, 3), nn.ReLU(), nn.Conv1d(6, 2, 3)), (6, 4, 12), ["0", "2"], 0),
    (TimeMajor, (5, 7, 3), ["rnn", "fc"], 1),
]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("make", "shape", "names", "axis"), TWINS)
def test_outputs_and_their_gradients_agree_with_autograd(
    make: Callable[[], nn.Module], shape: tuple[int, ...], names: list[str], axis: int, dtype: torch.dtype
) -> None:
    model, x = make().to(dtype), torch.randn(shape, dtype=dtype)
    expected = twin(model, x, names, axis)
    targets = torch.zeros(shape[axis])  # tells which axis counts the samples
    found = measure(model, Batch(x, targets), squares)
    for name in names:
        row = "rnn.l0" if name == "rnn" else name
        for column in OUT_AND_GRADIENT:
            small = 1e-5 * expected[name]["out_rms"] if column == "out_mean" else 0  # a mean is what cancellation leaves
            assert cell(found, column, row) == pytest.approx(
                expected[name][column], rel=2e-6 if dtype == torch.float64 else 1e-4, abs=small
            ), (
                name,
                column,
            )


@pytest.mark.parametrize("axis", [0, 1])
def test_samples_are_found_on_either_axis(axis: int) -> None:
    g = torch.randn(7, 5, 3)
    norms, largest = stats.sample_norms(g, g.shape[axis])
    assert torch.allclose(norms, g.movedim(axis, 0).flatten(1).norm(dim=1))
    assert largest == g.abs().max()


def test_samples_folded_into_positions_are_unfolded() -> None:
    g = torch.randn(4, 6, 3)
    norms, _ = stats.sample_norms(g.reshape(24, 3), 4)
    assert torch.allclose(norms, g.flatten(1).norm(dim=1))


def test_weights_and_their_gradients_agree_with_autograd() -> None:
    model, x = mlp(8, 16, 16, 3).double(), torch.randn(32, 8).double()
    found = measure(model, Batch(x), squares)
    squares(model(x), None).backward()
    for name in ("0", "2", "4"):
        weight = model.get_submodule(name).weight
        for prefix, tensor in (("weight", weight.detach()), ("grad", weight.grad)):
            assert isinstance(tensor, Tensor)
            expected = {"norm": tensor.norm(), "mean": tensor.mean(), "abs_mean": tensor.abs().mean(), "abs_max": tensor.abs().max()}
            for key, value in expected.items():
                assert cell(found, f"{prefix}_{key}", name) == pytest.approx(value.item(), rel=2e-6, abs=1e-8)


def test_loss_is_the_one_of_the_pass() -> None:
    model, x = mlp(8, 16, 3), torch.randn(32, 8)
    assert measure(model, Batch(x), squares).loss == pytest.approx(squares(model(x), None).item(), rel=1e-6)


# ---- activations


def test_fractions_of_relu_are_counted_before_it() -> None:
    model, x = mlp(8, 16, 3), torch.randn(32, 8)
    with torch.no_grad():
        model[0].bias[:5] = -100
    found = measure(model, Batch(x), squares)
    off = model[0](x) <= 0
    assert cell(found, "zero_fraction", "0") == pytest.approx(off.float().mean().item(), rel=1e-6)
    assert cell(found, "dead_fraction", "0") == pytest.approx(off.all(0).float().mean().item(), rel=1e-6)
    assert cell(found, "dead_fraction", "0") >= 5 / 16
    assert math.isnan(cell(found, "saturated_fraction", "0"))  # ReLU is not flat on both sides
    assert math.isnan(cell(found, "zero_fraction", "2"))  # nothing follows the output layer


def test_relu_of_exactly_zero_is_off_and_tanh_too() -> None:
    """Its gradient there is zero, as autograd defines it."""
    u = torch.tensor([0.0, -1.0, 1.0])
    assert stats.off(u, "relu").tolist() == [True, True, False]
    assert stats.off(u, "tanh").tolist() == [True, False, False]


def test_units_of_a_convolution_are_its_channels() -> None:
    model, x = nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Conv2d(6, 3, 3)), torch.randn(4, 2, 9, 9)
    with torch.no_grad():
        model[0].bias[:2] = -100
    off = model[0](x) <= 0
    found = measure(model, Batch(x), squares)
    assert cell(found, "dead_fraction", "0") == pytest.approx(2 / 6)
    assert cell(found, "zero_fraction", "0") == pytest.approx(off.float().mean().item(), rel=1e-6)


def test_units_of_a_sequence_are_its_last_axis() -> None:
    model = mlp(8, 16, 3)
    with torch.no_grad():
        model[0].bias[:4] = -100
    assert cell(measure(model, Batch(torch.randn(8, 5, 8)), squares), "dead_fraction", "0") == pytest.approx(4 / 16)


def test_unit_of_a_shared_layer_is_dead_only_if_it_is_off_in_every_call() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(2, 2, bias=False)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return torch.relu(self.a(x)) + torch.relu(self.a(y))

    model = Twice()
    with torch.no_grad():
        model.a.weight.copy_(torch.eye(2))
    one, other = torch.tensor([[1.0, -1.0]]).repeat(4, 1), torch.tensor([[-1.0, -1.0]]).repeat(4, 1)
    found = measure(model, Batch((one, other)))
    assert cell(found, "dead_fraction", "a") == 0.5
    assert cell(found, "zero_fraction", "a") == 0.75


@pytest.mark.parametrize(
    ("module", "function"),
    [
        (nn.Sigmoid(), torch.sigmoid),
        (nn.Tanh(), torch.tanh),
        (nn.Softsign(), F.softsign),
        (nn.Hardtanh(), F.hardtanh),
        (nn.Hardtanh(-2, 2), lambda x: F.hardtanh(x, -2, 2)),
        (nn.Hardsigmoid(), F.hardsigmoid),
    ],
)
def test_saturated_means_that_the_slope_is_below_a_twentieth_of_its_largest(
    module: nn.Module, function: Callable[[Tensor], Tensor]
) -> None:
    model = nn.Sequential(nn.Linear(2000, 2000, bias=False), module, nn.Linear(2000, 2))
    nn.init.eye_(model[0].weight)
    x = torch.linspace(-8, 8, 2000, dtype=torch.float64).float()
    grid = x.double().requires_grad_()
    (slope,) = torch.autograd.grad(function(grid).sum(), grid)
    expected = (slope < 0.05 * slope.max()).double().mean().item()
    assert 0.2 < expected < 0.9
    assert cell(measure(model, Batch(x[None]), squares), "saturated_fraction", "0") == pytest.approx(expected, abs=2e-3)  # grid of 2,000


@pytest.mark.parametrize(
    "by_hand", [lambda x: x * torch.sigmoid(x), lambda x: 0.5 * x * (1 + torch.erf(x / 2**0.5)), nn.ReLU6(), nn.GELU()]
)
def test_activation_that_is_not_flat_on_both_sides_is_never_saturated(by_hand: Callable[[Tensor], Tensor]) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.b(by_hand(self.a(x)))
            return out

    found = measure(Net(), Batch(1000 * torch.randn(16, 8)), squares)
    assert math.isnan(cell(found, "saturated_fraction", "a"))


def test_activation_in_place_does_not_hide_what_was_there() -> None:
    model, x = mlp(8, 16, 16, 3), torch.randn(32, 8)
    in_place = mlp(8, 16, 16, 3, activation=lambda: nn.ReLU(inplace=True))
    in_place.load_state_dict(model.state_dict())
    plain, found = measure(model, Batch(x), squares), measure(in_place, Batch(x), squares)
    for column in COLUMNS:
        np.testing.assert_array_equal(found.columns[column], plain.columns[column], err_msg=column)


# ---- units


@pytest.mark.parametrize("width", [3, 64, 1000, 4096])
def test_equal_units_are_one_and_different_units_are_many(width: int) -> None:
    rows = torch.randn(200, width)
    assert stats.distinct_units(rows[:1].expand(200, -1), 0) == pytest.approx(1 / 200)
    assert stats.distinct_units(rows[:100].repeat(2, 1), 0) == pytest.approx(0.5, abs=0.03)  # a few differ by less than rounding
    assert stats.distinct_units(rows, 0) > 0.97
    assert stats.distinct_units(rows.T.contiguous(), 1) > 0.97


def test_many_wide_units_are_not_taken_for_copies() -> None:
    """A head with a vocabulary of 50,000: products with one vector lie 1e-6 of the norm apart."""
    assert stats.distinct_units(torch.randn(50_000, 512) / 512**0.5, 0) > 0.95


def test_constant_weights_are_one_unit_and_zero_ones_too() -> None:
    assert stats.distinct_units(torch.full((64, 300), 0.5), 0) == 1 / 64
    assert stats.distinct_units(torch.zeros(64, 300), 0) == 1 / 64


def test_weights_that_are_not_finite_say_nothing_about_copies() -> None:
    weight = torch.randn(8, 8)
    weight[3, 3] = float("nan")
    assert stats.distinct_units(weight, 0).isnan()
    weight[3, 3] = float("inf")
    assert stats.distinct_units(weight, 0).isnan()


# ---- the ends of the number line


@pytest.mark.parametrize("scale", [1e-20, 1e-30, 1e-40, 1e-44])
def test_tiny_gradients_do_not_underflow(scale: float) -> None:
    """Single precision holds 1e-40 with five digits and 1e-44 with one; approx would let 1e-12 pass."""
    model, x = nn.Linear(8, 4, bias=False), torch.ones(16, 8)
    found = measure(model, Batch(x), lambda out, _: (out.reshape(-1) * torch.full((64,), scale)).sum())
    z_grad = torch.tensor(scale, dtype=torch.float32).double().item()
    rel = max(1e-5, 1e-45 / scale)
    assert cell(found, "grad_out_norm") == pytest.approx(z_grad * 2, rel=rel, abs=0)
    assert cell(found, "grad_abs_max") == pytest.approx(z_grad * 16, rel=rel, abs=0)
    assert cell(found, "grad_norm") == pytest.approx(z_grad * 16 * 32**0.5, rel=rel, abs=0)


def test_double_precision_below_the_range_of_single_is_not_taken_for_zero() -> None:
    model, x = nn.Linear(8, 4).double(), torch.ones(16, 8).double()
    found = measure(model, Batch(x), lambda out, _: out.sum() * 1e-80)
    for column in ("grad_norm", "grad_abs_max", "grad_out_norm", "grad_out_abs_max"):
        assert 0 < cell(found, column) < 1e-44


def test_double_precision_above_the_range_of_single_is_not_taken_for_infinite() -> None:
    model, x = nn.Linear(8, 4).double(), torch.ones(16, 8).double()
    found = measure(model, Batch(x), lambda out, _: out.sum() * 1e80)
    assert 1e38 < cell(found, "grad_abs_max") < math.inf


def test_gradient_of_exactly_zero_reads_as_zero() -> None:
    model, x = mlp(8, 16, 3), torch.randn(16, 8)
    found = measure(model, Batch(x), lambda out, _: (out * 0).sum())
    for column in ("grad_norm", "grad_abs_max", "grad_out_norm", "grad_out_abs_max", "grad_mean"):
        assert not found.columns[column].any(), column


def test_large_values_do_not_overflow() -> None:
    model, x = nn.Linear(8, 4, bias=False), torch.full((16, 8), 1e30)
    found = measure(model, Batch(x), lambda out, _: out.sum() * 1e5)
    z = model(x).double()
    assert cell(found, "out_rms") == pytest.approx(z.square().mean().sqrt().item(), rel=1e-5)
    assert cell(found, "grad_norm") == pytest.approx(16e35 * 32**0.5, rel=1e-5)
    assert np.isfinite(found.columns["out_spread"]).all()


BAD = [float("nan"), float("inf"), -float("inf")]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("place", ["weight", "input"])
def test_value_that_is_not_finite_makes_the_largest_infinite_and_nothing_unseen(place: str, bad: float) -> None:
    model, x = mlp(8, 16, 16, 3, activation=nn.Tanh), torch.randn(16, 8)
    if place == "input":
        x[3, 3] = bad
    else:
        with torch.no_grad():
            model[2].weight[0, 0] = bad
    found = measure(model, Batch(x), squares)
    for column in COLUMNS - {"zero_fraction", "dead_fraction", "saturated_fraction", "distinct_unit_fraction"}:
        assert not np.isnan(found.columns[column]).any(), column
    if place == "weight":
        assert found.columns["weight_abs_max"][0].tolist()[1] == math.inf
        assert np.isfinite(found.columns["weight_abs_max"][0, [0, 2]]).all()
        assert np.isfinite(found.columns["out_abs_max"][0, 0])
        assert found.columns["out_abs_max"][0, 1] == math.inf
    else:
        assert found.columns["out_abs_max"][0, 0] == math.inf


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_measured_in_single(dtype: torch.dtype) -> None:
    model, x = mlp(8, 64, 64, 3), torch.randn(32, 8)
    single = measure(model, Batch(x), squares)
    half = measure(model.to(dtype), Batch(x.to(dtype)), squares)
    for column in ("out_rms", "out_spread", "grad_out_norm", "weight_norm", "grad_norm"):
        np.testing.assert_allclose(half.columns[column], single.columns[column], rtol=0.05, err_msg=column)  # eight bits


def test_complex_weights_are_measured_by_both_parts() -> None:
    weight = torch.randn(4, 4, dtype=torch.complex64)
    norm, _, _, largest = stats.tensor_stats([weight])[0].tolist()
    assert norm == pytest.approx(torch.linalg.vector_norm(weight).item(), rel=1e-6)
    assert largest == torch.view_as_real(weight).abs().max()


# ---- what is there to see


def test_frozen_layer_has_no_weight_gradient_and_passes_the_gradient_on() -> None:
    model, x = mlp(8, 16, 16, 3), torch.randn(32, 8)
    model[2].requires_grad_(False)
    found = measure(model, Batch(x), squares)
    assert math.isnan(cell(found, "grad_norm", "2"))
    assert cell(found, "grad_out_norm", "2") > 0
    assert cell(found, "grad_norm", "0") > 0
    assert cell(found, "weight_norm", "2") > 0


def test_layers_below_the_first_trainable_one_have_no_gradient_at_all() -> None:
    model = mlp(8, 16, 16, 3)
    model[0].requires_grad_(False)
    found = measure(model, Batch(torch.randn(32, 8)), squares)
    assert math.isnan(cell(found, "grad_out_norm", "0"))
    assert cell(found, "out_rms", "0") > 0


def test_parameter_that_the_loss_does_not_reach_is_unseen() -> None:
    class TwoHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 3), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.a(x), self.b(x)

    found = measure(TwoHeads(), Batch(torch.randn(32, 8)), lambda out, _: squares(out[0], None))
    assert cell(found, "grad_norm", "a") > 0
    assert math.isnan(cell(found, "grad_norm", "b"))
    assert math.isnan(cell(found, "grad_out_norm", "b"))


def test_whole_numbers_go_through_an_embedding() -> None:
    model = nn.Sequential(nn.Embedding(11, 8), nn.Flatten(), nn.Linear(40, 3))
    found = measure(model, Batch(torch.arange(20).reshape(4, 5) % 11), squares)
    assert cell(found, "grad_norm", "0") > 0
    assert cell(found, "out_rms", "2") > 0


def test_tied_head_and_embedding_are_measured_apart() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.h, self.head = nn.Embedding(11, 8), nn.Linear(8, 8), nn.Linear(8, 11, bias=False)
            self.head.weight = self.embedding.weight

        def forward(self, tokens: Tensor) -> Tensor:
            out: Tensor = self.head(torch.tanh(self.h(self.embedding(tokens))))
            return out

    model, tokens = Tied(), torch.arange(20).reshape(4, 5) % 11
    found = measure(model, Batch(tokens), squares)
    expected = twin(model, tokens, ["embedding", "h", "head"])
    for name, columns in expected.items():
        for column in OUT_AND_GRADIENT:
            assert cell(found, column, name) == pytest.approx(columns[column], rel=1e-4, abs=1e-6), (name, column)


def test_calls_with_different_biases_on_one_weight_are_pooled() -> None:
    class Biases(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(8, 8))
            self.one, self.two = nn.Parameter(torch.zeros(8)), nn.Parameter(torch.ones(8))

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(torch.tanh(F.linear(x, self.weight, self.one)), self.weight, self.two)

    model, x = Biases(), torch.randn(16, 8)
    found = measure(model, Batch(x), squares)
    z1 = F.linear(x, model.weight, model.one)
    z2 = F.linear(torch.tanh(z1), model.weight, model.two)
    gradients = torch.autograd.grad(squares(z2, None), (z1, z2))
    expected = reference([z1, z2], list(gradients))
    assert len(found.structure.layers) == 1
    for column in OUT_AND_GRADIENT:
        assert found.columns[column][0, 0] == pytest.approx(expected[column], rel=1e-4), column


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_block_measures_like_the_block_itself(reentrant: bool) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.body, self.last = nn.Linear(8, 16), mlp(16, 16, 16, 16), nn.Linear(16, 3)
            self.checkpointed = True

        def forward(self, x: Tensor) -> Tensor:
            x = torch.tanh(self.first(x))
            x = checkpoint(self.body, x, use_reentrant=reentrant) if self.checkpointed else self.body(x)
            out: Tensor = self.last(x)
            return out

    model, x = Net(), torch.randn(32, 8)
    found = measure(model, Batch(x), squares)
    assert all(p.grad is None for p in model.parameters())
    model.checkpointed = False
    plain = measure(model, Batch(x), squares)
    for column in COLUMNS:
        np.testing.assert_allclose(found.columns[column], plain.columns[column], rtol=1e-5, err_msg=column)


def test_only_wanted_columns_are_measured() -> None:
    model, x = mlp(8, 16, 3), torch.randn(16, 8)
    everything = measure(model, Batch(x), squares).columns
    for wanted in ({"grad_out_norm"}, {"out_spread", "weight_norm"}, {"dead_fraction"}, set()):
        found = measure(model, Batch(x), squares, columns=wanted).columns
        assert set(found) == wanted
        for column in wanted:
            np.testing.assert_array_equal(found[column], everything[column])


def test_same_seed_measures_the_same_with_dropout() -> None:
    model, x = nn.Sequential(nn.Linear(8, 64), nn.Dropout(0.5), nn.Linear(64, 3)), torch.randn(16, 8)
    first, second, other = (measure(model, Batch(x), squares, seed=s).columns["grad_norm"] for s in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


def test_order_of_the_samples_does_not_matter() -> None:
    model, x = mlp(8, 16, 16, 3), torch.randn(32, 8)
    one, other = measure(model, Batch(x), squares), measure(model, Batch(x[torch.randperm(32)]), squares)
    for column in COLUMNS:
        np.testing.assert_allclose(
            other.columns[column], one.columns[column], rtol=1e-4, atol=1e-7, err_msg=column
        )  # sums in another order


def test_samples_that_are_all_equal_have_a_spread_of_exactly_zero() -> None:
    found = measure(mlp(8, 16, 3), Batch(torch.randn(1, 8).repeat(32, 1)), squares)
    assert not found.columns["out_spread"].any()


def test_measuring_twice_in_a_row_gives_the_same_bits() -> None:
    model, x = ConvNet(), torch.randn(16, 2, 9, 9)
    one, other = measure(model, Batch(x), squares), measure(model, Batch(x), squares)
    for column in COLUMNS:
        np.testing.assert_array_equal(one.columns[column], other.columns[column])


# ---- closed forms


def trace(model: nn.Module, x: Tensor) -> Trace:
    return trace_of(Rig(model, None, None), Batch(x), columns=frozenset({"grad_out_norm", "out_spread"}), facts=False)


@pytest.mark.parametrize(
    ("activation", "scale", "initialise", "gain"),
    [
        (nn.Identity, 1.0, None, 3**-0.5),  # torch draws U(-1/sqrt n, 1/sqrt n): variance 1 / 3n
        (nn.Tanh, 1e-2, None, 3**-0.5),  # near zero tanh' is 1
        (nn.ReLU, 1.0, None, 6**-0.5),  # half of the units pass
        (nn.ReLU, 1.0, nn.init.kaiming_normal_, 1.0),  # He et al. 2015
        (nn.Sigmoid, 1.0, nn.init.xavier_normal_, 0.237),  # sqrt(chi_1) of mean field theory: sqrt .056
    ],
)
def test_gain_is_what_theory_says(
    activation: type[nn.Module], scale: float, initialise: Callable[[Tensor], Any] | None, gain: float
) -> None:
    model = mlp(*[512] * 9, activation=activation)
    for p in model.parameters():
        if initialise is not None:
            initialise(p) if p.dim() > 1 else nn.init.zeros_(p)
        elif p.dim() == 1 and activation is nn.Tanh:
            nn.init.zeros_(p)
    assert gradient_gain(trace(model, scale * torch.randn(64, 512))) == pytest.approx(gain, rel=0.1)


def test_orthogonal_linear_chain_keeps_both_signals_exactly() -> None:
    model = mlp(*[64] * 21, activation=nn.Identity)
    for p in model.parameters():
        nn.init.orthogonal_(p) if p.dim() > 1 else nn.init.zeros_(p)
    found = trace(model, torch.randn(32, 64))
    for column in ("grad_out_norm", "out_spread"):
        (fit,) = slopes(found, column)
        assert abs(fit.total) < 1e-4  # twenty products in single precision


def test_healthy_taper_has_no_slope_by_sample_norm() -> None:
    model = mlp(1024, 512, 256, 128, 64, 32, 10)
    for p in model.parameters():
        nn.init.kaiming_normal_(p) if p.dim() > 1 else nn.init.zeros_(p)
    (fit,) = slopes(trace(model, torch.randn(64, 1024)))
    assert not fit.equal_shape
    assert abs(fit.decades) < 0.05


def test_pooling_and_length_leave_the_sample_norm_alone() -> None:
    """Twice as long a sequence has twice as many, half as large gradients a position: their norm falls by sqrt 2, not by 2."""
    model = mlp(8, 64, 64, 64, 3)
    norms = []
    for length in (10, 40):
        x = torch.randn(32, length, 8)
        found = measure(model, Batch(x), lambda out, _: squares(out.mean(1), None))
        norms.append(found.columns["grad_out_norm"][0] / found.columns["grad_out_norm"][0, -1])
    np.testing.assert_allclose(norms[0], norms[1], rtol=0.15)


def test_synthetic_chain_has_the_slope_that_it_was_made_with() -> None:
    (fit,) = slopes(synthetic.chain(20, grad_out_norm=synthetic.geometric(20, 0.3)))
    assert fit.gain == pytest.approx(0.3, rel=1e-5)


@pytest.mark.parametrize("inplace", [False, True])
def test_gradients_of_outputs_do_not_depend_on_what_else_is_measured(inplace: bool) -> None:
    torch.manual_seed(0)
    conv = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(inplace), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace), nn.Flatten())
    model = nn.Sequential(conv, nn.Linear(8 * 16, 10))
    batch = Batch(torch.randn(4, 3, 8, 8), torch.randint(0, 10, (4,)))
    whole = measure(model, batch, nn.CrossEntropyLoss()).columns
    for wanted in (["grad_out_norm", "grad_out_abs_max"], ["out_spread"]):
        alone = measure(model, batch, nn.CrossEntropyLoss(), columns=wanted).columns
        for name in wanted:
            np.testing.assert_array_equal(alone[name], whole[name])
