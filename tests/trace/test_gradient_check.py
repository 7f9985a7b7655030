from __future__ import annotations

import copy
import itertools
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evengrad.errors import ForwardError, InputError
from evengrad.trace.gradient_check import gradient_check

quick = partial(gradient_check, entries=8)


class TanhWithoutSquare(torch.autograd.Function):
    """1 - tanh(x) where 1 - tanh(x)^2 belongs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.tanh()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad * (1 - ctx.saved_tensors[0].tanh())


def wrong_tanh(x: Tensor) -> Tensor:
    out: Tensor = TanhWithoutSquare.apply(x)  # type: ignore[no-untyped-call]
    return out


class OneUnitOff(torch.autograd.Function):
    """ReLU whose backward is 1% too large for unit 3 alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.relu()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        grad = grad * (ctx.saved_tensors[0] > 0)
        grad[:, 3] *= 1.01
        return grad


class Net(nn.Module):
    """Two layers and any function between them."""

    def __init__(self, between: Callable[[Tensor], Tensor], width: int = 16) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.between = nn.Linear(20, width), nn.Linear(width, 5), between

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.between(self.first(x)))
        return out


def mlp(*widths: int, activation: type[nn.Module] = nn.ReLU, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), activation()]
    return nn.Sequential(*layers[:-1])


def batch(samples: int = 32, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(samples, 20, generator=generator), torch.randint(0, 5, (samples,), generator=generator)


def test_sound_network_passes_at_every_parameter() -> None:
    found = gradient_check(mlp(20, 16, 5, activation=nn.Tanh), *batch(), F.cross_entropy)
    assert found.ok
    assert [p.name for p in found.parameters] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert [p.compared for p in found.parameters] == [50, 16, 50, 5]
    assert found.worst.relative_error < 1e-5
    assert str(found).startswith("back-propagation agrees with finite differences at 121 entries of 4 parameters, worst at ")


def test_wrong_backward_is_found_below_it_and_not_above() -> None:
    found = gradient_check(Net(wrong_tanh), *batch(), F.cross_entropy)
    assert {p.name: p.ok for p in found.parameters} == {"first.weight": False, "first.bias": False, "last.weight": True, "last.bias": True}
    assert not found.ok
    assert found.worst.name.startswith("first.")
    assert found.worst.place is not None
    assert found.worst.relative_error > 0.1
    assert str(found).startswith("the gradient of 2 of 4 parameters is wrong, worst at first.")


def test_numbers_reported_are_the_two_derivatives() -> None:
    model, (x, y) = Net(wrong_tanh), batch()
    worst = gradient_check(model, x, y, F.cross_entropy).worst
    F.cross_entropy(model(x), y).backward()
    wrong = dict(model.named_parameters())[worst.name].grad
    sound = Net(torch.tanh)
    F.cross_entropy(sound(x), y).backward()
    right = dict(sound.named_parameters())[worst.name].grad
    assert wrong is not None
    assert right is not None
    assert worst.analytic == pytest.approx(float(wrong[worst.place]), rel=1e-4)
    assert worst.numeric == pytest.approx(float(right[worst.place]), rel=1e-4)


def test_small_error_in_one_unit_is_found_although_its_entries_are_not_tried() -> None:
    found = gradient_check(Net(OneUnitOff.apply), *batch(), F.cross_entropy, entries=0)
    assert not found.ok
    assert found.worst.place is None
    assert "along a direction through all entries" in str(found.worst)


def test_place_of_an_error_in_one_unit() -> None:
    found = gradient_check(Net(OneUnitOff.apply), *batch(), F.cross_entropy, entries=1000)
    weight = found.parameters[0]
    assert weight.place is not None
    assert weight.place[0] == 3
    assert weight.relative_error == pytest.approx(0.01, rel=0.02)


def test_forgotten_detach_is_found() -> None:
    found = quick(Net(lambda h: h.detach() + h.sin()), *batch(), F.cross_entropy)
    assert not found.parameters[0].ok


def test_parameter_that_back_propagation_misses_altogether_is_found() -> None:
    found = quick(Net(lambda h: h.detach().tanh()), *batch(), F.cross_entropy)
    assert [p.ok for p in found.parameters] == [False, False, True, True]
    assert found.parameters[0].analytic == 0


def test_unused_parameter_is_no_error() -> None:
    model = mlp(20, 5)
    model.register_parameter("unused", nn.Parameter(torch.ones(3)))
    assert quick(model, *batch(), F.cross_entropy).ok


@pytest.mark.parametrize("activation", [nn.ReLU, nn.LeakyReLU, nn.Hardtanh, nn.Softshrink, nn.PReLU, nn.Hardswish])
@pytest.mark.parametrize("loss_fn", [F.cross_entropy, F.multi_margin_loss])
def test_kinks_raise_no_alarm(activation: type[nn.Module], loss_fn: Callable[..., Tensor]) -> None:
    for seed in range(4):
        model, (x, y) = mlp(20, 64, 32, 32, 5, activation=activation, seed=seed), batch(128, seed)
        found = gradient_check(model, 10 * x.relu(), y, loss_fn, entries=8, seed=seed)
        assert found.ok, found


def test_point_exactly_at_kinks_is_counted_and_raises_no_alarm() -> None:
    model = mlp(20, 64, 64, 5)
    for parameter in model[0].parameters():
        nn.init.zeros_(parameter)
    found = gradient_check(model, *batch(), F.cross_entropy)
    assert found.ok
    assert found.parameters[0].kinks > 40
    assert found.parameters[0].relative_error == 0
    assert "places at a kink of the loss" in str(found)


@pytest.mark.parametrize("distance", [3e-7, 3e-9, 3e-12])  # the last is out of reach of the shortest step
def test_kink_just_beside_the_point_raises_no_alarm(distance: float) -> None:
    class Beside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            return (self.w - 1 + distance).abs() + 0 * x

    assert gradient_check(Beside(), torch.ones(1, 1), loss_fn=lambda out, _: out.sum()).ok


def test_max_pooling_with_ties_raises_no_alarm() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 5))
    assert quick(model, torch.randn(8, 1, 8, 8).relu().round(), torch.arange(8) % 5, F.cross_entropy).ok


def test_gradient_below_the_rounding_of_the_loss_is_not_called_wrong() -> None:
    found = gradient_check(mlp(20, *[32] * 19, 5, activation=nn.Sigmoid), *batch(), F.cross_entropy, entries=3)
    assert found.ok
    assert found.parameters[0].unresolved == 4
    assert found.parameters[0].compared == 0
    assert found.parameters[-1].compared == 3
    assert "below the rounding of the loss" in str(found)


def test_dropout_and_batch_norm_in_train_mode() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 16), nn.BatchNorm1d(16), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(16, 5))
    assert quick(model, *batch(), F.cross_entropy).ok


def test_buffers_that_a_forward_pass_changes_are_set_back_between_evaluations() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.calls = nn.Linear(20, 5), torch.nn.Buffer(torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls.add_(1)
            out: Tensor = self.layer(x) * self.calls
            return out

    assert quick(Counts(), *batch(), F.cross_entropy).ok


def test_model_that_draws_from_python_and_numpy_is_seeded() -> None:
    found = quick(Net(lambda h: h.tanh() * random.random() * np.random.rand()), *batch(), F.cross_entropy)
    assert found.ok


def test_rounding_to_float32_on_the_way_raises_no_alarm() -> None:
    assert quick(Net(lambda h: h.float().tanh().double()), *batch(), F.cross_entropy).ok


def test_wrong_backward_is_found_behind_rounding_to_float32() -> None:
    found = quick(Net(lambda h: wrong_tanh(h.float()).double()), *batch(), F.cross_entropy)
    assert not found.parameters[0].ok


def test_tensors_made_in_the_forward_pass_take_part_in_float64() -> None:
    assert quick(Net(lambda h: h @ torch.eye(16)), *batch(), F.cross_entropy).ok
    assert torch.get_default_dtype() == torch.float32


def test_without_a_loss_a_projection_in_float64_is_taken() -> None:
    assert quick(mlp(20, 8, 5), batch()[0]).worst.relative_error < 1e-5  # float32 would leave 1e-2


def test_own_loss_of_the_model_is_taken_and_nothing_else_of_its_output() -> None:
    class Own(nn.Module):
        def __init__(self, of_loss: Callable[[Tensor], Tensor], of_rest: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            self.layer, self.of_loss, self.of_rest = mlp(20, 5), of_loss, of_rest

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            h = self.layer(x)
            return {"rest": self.of_rest(h), "loss": self.of_loss(h).square().mean()}

    assert quick(Own(torch.tanh, wrong_tanh), batch()[0]).ok
    assert not quick(Own(wrong_tanh, torch.tanh), batch()[0]).ok


def test_loss_module_with_weights_of_its_own() -> None:
    loss_fn = nn.CrossEntropyLoss(weight=torch.ones(5))
    assert quick(mlp(20, 5), *batch(), loss_fn).ok
    assert loss_fn.state_dict()["weight"].dtype == torch.float32


def test_inputs_as_tuple_and_by_name_and_scalar_parameters() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale, self.empty = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.zeros(0))

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return a * self.scale + b.add_(1)

    a, b = torch.randn(4, 3), torch.randn(4, 3)
    for inputs in ((a, b), {"a": a, "b": b}):
        found = gradient_check(Scaled(), inputs, a, F.mse_loss)
        assert found.ok
        assert found.parameters[0].compared == 1


def test_frozen_parameters_are_left_out() -> None:
    model = mlp(20, 8, 5)
    model[0].requires_grad_(False)
    assert [p.name for p in gradient_check(model, *batch(), F.cross_entropy).parameters] == ["2.weight", "2.bias"]


def test_leaves_everything_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(20, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 5))
    model[0].weight.grad = torch.ones(8, 20)
    before, (x, y) = copy.deepcopy(model.state_dict()), batch()
    kept, states = x.clone(), (torch.get_rng_state(), random.getstate(), str(np.random.get_state()))
    gradient_check(model, x, y, F.cross_entropy, entries=2)
    assert all(torch.equal(v, before[k]) and v.dtype == before[k].dtype for k, v in model.state_dict().items())
    assert torch.equal(model[0].weight.grad, torch.ones(8, 20))
    assert model[3].weight.grad is None
    assert torch.equal(x, kept)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), str(np.random.get_state())) == states[1:]


def test_same_seed_same_result() -> None:
    first, second, other = (gradient_check(mlp(20, 64, 5), *batch(), F.cross_entropy, entries=5, seed=s) for s in (1, 1, 2))
    assert first == second
    assert first != other


@pytest.mark.parametrize(
    ("model", "loss_fn", "message"),
    [
        (
            mlp(20, 5),
            lambda o, t: F.cross_entropy(o, t, reduction="none"),
            r"the loss must be a scalar tensor; got a tensor of shape \(32,\)",
        ),
        (mlp(20, 5).requires_grad_(False), F.cross_entropy, "the loss has no gradient"),
        (Net(lambda h: h * torch.nan), F.cross_entropy, "the loss is nan: .* only where the loss is finite"),
        (mlp(20, 5), F.mse_loss, "the loss does not accept these outputs and targets"),
    ],
)
def test_losses_that_cannot_be_checked_are_refused(model: nn.Module, loss_fn: Callable[..., Tensor], message: str) -> None:
    with pytest.raises(InputError, match=message):
        gradient_check(model, *batch(), loss_fn)


def test_model_that_differs_from_call_to_call_is_refused() -> None:
    count = itertools.count(1)

    class Drifts(nn.Module):
        def forward(self, h: Tensor) -> Tensor:
            return h * next(count)

    with pytest.raises(InputError, match=r"differs between two evaluations .* Make the model deterministic first"):
        gradient_check(nn.Sequential(nn.Linear(20, 5), Drifts()), *batch(), F.cross_entropy)


def test_model_that_cannot_be_copied_is_refused() -> None:
    model = mlp(20, 5)
    model.kept = model(torch.ones(1, 20))  # not a leaf of the graph: torch refuses to copy it
    with pytest.raises(InputError, match="the model cannot be copied"):
        gradient_check(model, *batch(), F.cross_entropy)


def test_error_in_forward_names_the_shape() -> None:
    with pytest.raises(ForwardError, match=r"for inputs of shape \(4, 7\)"):
        gradient_check(mlp(20, 5), torch.ones(4, 7), torch.zeros(4, dtype=torch.long), F.cross_entropy)


def test_negative_number_of_entries_is_refused() -> None:
    with pytest.raises(InputError, match="must not be negative; got -1"):
        gradient_check(mlp(20, 5), *batch(), F.cross_entropy, entries=-1)
