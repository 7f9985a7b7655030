"""A NaN or infinity is planted at one operation: that operation is named, and nothing where everything comes out finite."""

from __future__ import annotations

import gc
import math
import re
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.overrides import _get_current_function_mode_stack
from torch.utils.checkpoint import checkpoint

from evengrad.errors import InputError
from evengrad.trace import gradient_scan
from evengrad.trace.scanner import BadOperation, first_bad_operation

SAMPLES, WIDTH = 32, 10
LABELS = torch.arange(SAMPLES) % 4


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class Apply(nn.Module):
    """A function in the place of a module."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


class Net(nn.Module):
    """Linear layers around one function, called `planted`."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh())
        self.planted = Apply(function)
        self.head = nn.Linear(WIDTH, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.planted(self.body(x)))
        return out


def inputs() -> Tensor:
    return torch.randn(SAMPLES, WIDTH)


def rows(*samples: int) -> Tensor:
    """(SAMPLES, 1), True at these samples."""
    mask = torch.zeros(SAMPLES, 1, dtype=torch.bool)
    mask[list(samples)] = True
    return mask


def zeroed(x: Tensor, *samples: int) -> Tensor:
    """Zeros at these samples, and positive numbers elsewhere."""
    return torch.where(rows(*samples), x * 0, x.abs() + 0.1)


def scan(model: nn.Module, *args: Any, loss: bool = True, **options: Any) -> BadOperation | None:
    if loss:
        options = {"loss_fn": F.cross_entropy, "targets": LABELS} | options
    return first_bad_operation(model, args, {}, **options)


def place(found: BadOperation | None) -> tuple[str, str, str, str, float, int | None]:
    assert found is not None
    return found.module, found.operation, found.direction, found.kind, round(found.fraction * found.elements) / found.elements, found.sample


class LogOfClamped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.log()

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return g / ctx.saved_tensors[0]


class Numpy(torch.autograd.Function):
    """Out of the sight of every mode."""

    @staticmethod
    def forward(x: Tensor) -> Any:
        values = x.detach().numpy().copy()
        values[17] = np.nan
        return torch.from_numpy(values)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is kept."""

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return g


class Through(torch.autograd.Function):
    """Passes on what comes, by way of numpy."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.from_numpy(x.detach().numpy().copy())

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return g


class DividesBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 1

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g / torch.where(rows(9), 0.0, 1.0)


def _log_of_part(x: Tensor) -> Tensor:
    x[:, :WIDTH].log_()
    return x * 1


def _log_into(x: Tensor) -> Tensor:
    memory = torch.full((SAMPLES, WIDTH), math.nan)
    with torch.no_grad():
        torch.log(zeroed(x, 3), out=memory)
    return memory


def _written(x: Tensor) -> Tensor:
    x = x.clone()
    x[4] = math.nan
    return x


def _reused(x: Tensor) -> Tensor:
    buffer = torch.full((SAMPLES, WIDTH), math.nan)
    buffer.copy_(x)
    return buffer.div_(torch.where(rows(9), 0.0, 1.0))


def _filled(x: Tensor) -> Tensor:
    memory = torch.empty_like(x).fill_(math.nan)
    memory[:] = x
    return memory


FORWARD: dict[str, tuple[Callable[[Tensor], Tensor], str, str, float, int]] = {
    "log of zero": (lambda x: zeroed(x, 17, 20).log(), "log", "inf", 2 / 32, 17),
    "log in place": (lambda x: zeroed(x, 17, 20).log_(), "log_", "inf", 2 / 32, 17),
    "log into a part": (lambda x: _log_of_part(zeroed(x, 3)), "log_", "inf", 1 / 32, 3),
    "division by zero": (lambda x: 1 / zeroed(x, 5), "div", "inf", 1 / 32, 5),
    "norm by hand": (lambda x: zeroed(x, 6) / zeroed(x, 6).norm(dim=1, keepdim=True), "div", "nan", 1 / 32, 6),
    "batch norm by hand, constant batch": (lambda x: (x * 0) / (x * 0).std(0), "div", "nan", 1.0, 0),
    "exponential": (lambda x: torch.where(rows(30), 100.0, x).exp(), "exp", "inf", 1 / 32, 30),
    "power": (lambda x: torch.where(rows(30), -1.0, x.abs()) ** 0.5, "pow", "nan", 1 / 32, 30),
    "half precision": (lambda x: torch.where(rows(8), 1e6, x).half().float(), "half", "inf", 1 / 32, 8),
    "softmax of a row that is masked whole": (lambda x: x.masked_fill(rows(7), -math.inf).softmax(-1), "softmax", "nan", 1 / 32, 7),
    "softmax of a row, mask out of sight": (lambda x: (x + MASK).softmax(-1), "softmax", "nan", 1 / 32, 7),
    "mask that meets a weight": (lambda x: x.masked_fill(rows(7), -math.inf) @ WEIGHT, "masked_fill", "inf", 1 / 32, 7),
    "value written": (_written, "setitem", "nan", 1 / 32, 4),
    "custom function": (lambda x: LogOfClamped.apply(zeroed(x, 17)), "LogOfClamped", "inf", 1 / 32, 17),
    "custom function out of sight": (Numpy.apply, "Numpy", "nan", 1 / 32, 17),
    "before a function out of sight": (lambda x: Through.apply(zeroed(x, 2).log()), "log", "inf", 1 / 32, 2),
    "earlier of two": (lambda x: 1 / zeroed(zeroed(x, 17).log(), 3), "log", "inf", 1 / 32, 17),
    "two that meet": (lambda x: zeroed(x, 17).log() + 1 / zeroed(x, 3), "log", "inf", 1 / 32, 17),
    "NaN and infinity": (lambda x: torch.where(rows(5), x.sign().clamp_min(0), x) / zeroed(x, 5), "div", "both", 1 / 32, 5),
    "complex numbers": (lambda x: torch.complex(zeroed(x, 3), x * 0).log().abs(), "log", "inf", 1 / 32, 3),
    "into memory that is given": (lambda x: x + _log_into(x), "log", "inf", 1 / 32, 3),
    "after one that came to nothing": (lambda x: 1 / zeroed(zeroed(x, 17).log().exp(), 3), "div", "inf", 1 / 32, 3),
    "in memory that was overwritten": (_reused, "div_", "inf", 1 / 32, 9),
}
MASK = torch.where(rows(7), -math.inf, 0.0)
WEIGHT = torch.eye(WIDTH)


@pytest.mark.parametrize("case", FORWARD)
def test_operation_of_the_forward_pass_is_named(case: str) -> None:
    function, operation, kind, fraction, sample = FORWARD[case]
    assert place(scan(Net(function), inputs())) == ("planted", operation, "forward", kind, fraction, sample)


BACKWARD: dict[str, tuple[Callable[[Tensor], Tensor], str, str, float, int]] = {
    "root of zero": (lambda x: zeroed(x, 12).sqrt(), "sqrt", "inf", 1 / 32, 12),
    "power at zero": (lambda x: zeroed(x, 12) ** 0.5, "pow", "inf", 1 / 32, 12),
    "norm by hand at zero": (lambda x: x * (zeroed(x, 12) ** 2).sum(1, keepdim=True).sqrt(), "sqrt", "inf", 1 / 32, 12),
    "log that where leaves behind": (lambda x: torch.where(rows(12), 0.0, zeroed(x, 12).log()), "log", "nan", 1 / 32, 12),
    "arc cosine at one": (lambda x: torch.where(rows(12), x * 0 + 1, x * 0.5).acos(), "acos", "inf", 1 / 32, 12),
    "custom function": (DividesBackward.apply, "DividesBackward", "inf", 1 / 32, 9),
}


@pytest.mark.parametrize("case", BACKWARD)
def test_operation_of_the_backward_pass_is_named(case: str) -> None:
    function, operation, kind, fraction, sample = BACKWARD[case]
    found = scan(Net(function), inputs())
    assert place(found) == ("planted", operation, "backward", kind, fraction, sample)
    assert found is not None
    assert -1 < found.low <= found.high < 1  # the gradients that went in, not the values


CLEAN: dict[str, Callable[[Tensor], Tensor]] = {
    "nothing": lambda x: x,
    "infinities that softmax takes away": lambda x: (
        x.masked_fill(x < x.amax(1, True), -math.inf).softmax(-1) + (x + (x > x.amin(1, True)).float().log()).softmax(-1)
    ),
    "mask out of sight": lambda x: (x + CAUSAL).softmax(-1),
    "log that is never differentiated at zero": lambda x: torch.where(rows(12), 0.0, torch.where(rows(12), 1.0, zeroed(x, 12)).log()),
    "infinite gradient that is masked": lambda x: (x * 0).relu().sqrt(),
    "NaN that is taken away": lambda x: (x + torch.where(rows(3), -1.0, 1.0).log()).nan_to_num(),
    "memory as it was found": _filled,
    "range wider than its type": lambda x: x + 0 * torch.where(rows(1), -3e38, 3e38),
}
CAUSAL = torch.full((WIDTH,), -math.inf).index_fill(0, torch.tensor([0]), 0.0)


@pytest.mark.parametrize("case", CLEAN)
def test_nothing_is_blamed_where_everything_comes_out_finite(case: str) -> None:
    assert scan(Net(CLEAN[case]), inputs()) is None
    assert scan(Net(CLEAN[case]), inputs(), loss=False) is None


@dataclass
class Answer:
    loss: Tensor
    logits: Tensor


class Answering(nn.Module):
    def __init__(self, model: nn.Module, loss: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, x: Tensor) -> Answer:
        logits = self.model(x)
        return Answer(self.loss(logits), logits)


def probability(output: Tensor, targets: Tensor) -> Tensor:
    """A likelihood by hand: the log of a probability that is zero for samples 3 and 4."""
    p = torch.where(rows(3, 4), 0.0, output.softmax(-1))
    return -p.log().gather(1, targets[:, None]).mean()


def test_operation_of_the_loss_is_named_where_the_network_is_clean() -> None:
    found = scan(Net(torch.tanh), inputs(), loss_fn=probability)
    assert place(found) == ("loss", "log", "loss", "inf", 2 / 32, 3)
    assert found is not None
    with torch.no_grad():
        torch.manual_seed(0)
        output = Net(torch.tanh)(inputs())
    assert (found.low, found.high) == pytest.approx((float(output.min()), float(output.max())))
    assert found.message.startswith("log in the loss made 8 of 128 values -inf (first at sample 3): born in the loss, after outputs in [-")


def test_backward_of_the_loss_is_named_where_the_loss_is_finite() -> None:
    found = scan(Net(torch.tanh), inputs(), loss_fn=lambda output, _: zeroed(output, 3).sqrt().mean())
    assert place(found) == ("loss", "sqrt", "loss", "inf", 1 / 32, 3)
    assert found is not None
    assert found.gradient
    assert found.low < 0 < found.high < 2  # of the outputs
    assert "the backward of sqrt in the loss made 4 of 128 gradients" in found.message


def test_loss_that_a_masked_class_makes_infinite_is_blamed_on_the_loss() -> None:
    found = scan(nn.Sequential(nn.Linear(WIDTH, 4), Apply(lambda x: x.index_fill(1, torch.tensor([0]), -math.inf))), inputs())
    assert place(found)[:3] == ("loss", "cross_entropy", "loss")
    found = scan(
        nn.Sequential(nn.Linear(WIDTH, 4), Apply(lambda x: x.index_fill(1, torch.tensor([0]), -math.inf))),
        inputs(),
        loss_fn=lambda output, _: output.mean(),
    )
    assert place(found)[:3] == ("1", "index_fill", "forward")


def test_masked_outputs_are_no_fault() -> None:
    model = nn.Sequential(nn.Linear(WIDTH, 5), Apply(lambda x: x.index_fill(1, torch.tensor([4]), -math.inf)))
    assert scan(model, inputs()) is None
    assert scan(model, inputs(), loss=False) is None


def test_loss_that_the_model_returns_is_used() -> None:
    assert scan(Answering(Net(torch.tanh), lambda x: x.square().mean()), inputs(), loss=False) is None
    found = scan(Answering(Net(torch.tanh), lambda x: zeroed(x, 3).log().mean()), inputs(), loss=False)
    assert place(found) == ("", "log", "forward", "inf", 1 / 32, 3)
    found = scan(Answering(Net(torch.tanh), lambda x: zeroed(x, 3).sqrt().mean()), inputs(), loss=False)
    assert place(found) == ("", "sqrt", "backward", "inf", 1 / 32, 3)


def test_input_that_was_not_finite_is_told_by_name() -> None:
    x = inputs()
    x[5, 3] = math.nan
    found = scan(Net(torch.tanh), x)
    assert place(found) == ("x", "", "inputs", "nan", 1 / 320, 5)
    assert found is not None
    assert found.message == "1 of 320 values of x is nan (first at sample 5) before any operation"
    x[5, 3] = -math.inf  # the log of a silence, not a mask
    for model in (nn.Sequential(nn.Linear(WIDTH, 4)), nn.Sequential(Apply(lambda x: x - x.mean(0)), nn.Linear(WIDTH, 4))):
        assert place(scan(model, x)) == ("input", "", "inputs", "inf", 1 / 320, 5)


def test_input_that_the_model_cleans_is_no_fault() -> None:
    x = inputs()
    x[5, 3] = math.nan
    assert scan(nn.Sequential(Apply(torch.nan_to_num), Net(torch.tanh)), x) is None


def test_targets_that_were_not_finite_are_told() -> None:
    targets = torch.randn(SAMPLES, 4)
    targets[11, 2] = math.nan
    found = scan(Net(torch.tanh), inputs(), loss_fn=F.mse_loss, targets=targets)
    assert place(found) == ("targets", "", "inputs", "nan", 1 / 128, 11)


def test_parameter_that_was_not_finite_is_told_by_name() -> None:
    embedding = nn.Sequential(nn.Embedding(SAMPLES, 8), nn.Flatten(), nn.Linear(24, 4))
    with torch.no_grad():
        embedding[0].weight[7] = math.nan
    ids = torch.arange(SAMPLES * 3).reshape(SAMPLES, 3) % SAMPLES
    assert place(scan(embedding, ids)) == ("0.weight", "", "parameters", "nan", 1 / 32, None)


def test_parameter_that_is_not_finite_is_told_even_where_this_batch_does_not_use_it() -> None:
    model = Net(torch.tanh)
    model.spare = nn.Linear(2, 2)
    with torch.no_grad():
        model.spare.bias[0] = math.inf
    assert place(scan(model, inputs()))[:3] == ("spare.bias", "", "parameters")
    assert place(scan(model, zeroed(inputs(), 3).log()))[:3] == ("x", "", "inputs")  # what reaches the loss comes first


def test_huge_weight_is_found_in_the_layer_that_overflows() -> None:
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 4))
    with torch.no_grad():
        model[1].weight.fill_(3e38)
        model[1].bias.fill_(-1e38)
    found = scan(model, inputs().abs() * 100)
    assert place(found)[:3] == ("1", "linear", "forward")
    assert found is not None
    assert found.high == pytest.approx(3e38, rel=1e-6)


def test_half_precision_overflow_under_autocast_is_named() -> None:
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 4))
    with torch.no_grad():
        model[2].weight.fill_(2e4)
    x = torch.where(rows(13), 100.0, inputs() * 1e-3)
    assert scan(model, x) is None
    with torch.autocast("cpu", torch.float16):
        found = scan(model, x)
    assert found is not None
    assert (found.module, found.operation, found.direction, found.kind, found.sample) == ("2", "linear", "forward", "inf", 13)
    with torch.autocast("cpu", torch.bfloat16):
        assert scan(model, x) is None


def test_batch_norm_is_blamed_for_its_own_overflow_and_not_for_statistics_that_it_does_not_use() -> None:
    model = nn.Sequential(nn.Linear(WIDTH, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))
    with torch.no_grad():
        model[1].weight.fill_(3e38)
        model[1].running_mean.fill_(math.nan)  # as the failing step left it
    assert place(scan(model, inputs()))[:3] == ("1", "batch_norm", "forward")
    with torch.no_grad():
        model[1].weight.fill_(1.0)
    assert scan(model, inputs()) is None
    model.eval()
    assert place(scan(model, inputs())) == ("1.running_mean", "", "parameters", "nan", 1.0, None)


def test_batch_norm_of_a_constant_batch_is_blamed_for_its_gradient() -> None:
    model = nn.Sequential(nn.Linear(WIDTH, 8), nn.BatchNorm1d(8, eps=1e-36), nn.Linear(8, 4))
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.zero_()
        model[1].weight.fill_(1e20)  # 1e38 together with the inverse deviation
        model[2].weight.mul_(1e6)
    found = scan(model, inputs())
    assert found is not None
    assert (found.module, found.operation, found.direction) == ("1", "batch_norm", "backward")


def test_detect_anomaly_blames_another_operation() -> None:
    model = Net(lambda x: zeroed(x, 17).log())
    x = inputs()
    with (
        pytest.warns(UserWarning, match="Anomaly Detection|LogSoftmaxBackward0"),
        torch.autograd.detect_anomaly(),
        pytest.raises(RuntimeError, match="LogSoftmaxBackward0"),
    ):
        F.cross_entropy(model(x), LABELS).backward()
    assert place(scan(model, x))[:2] == ("planted", "log")


# kinds of models


class Attending(nn.Module):
    """Attention in four ways, each with its own mask of minus infinities."""

    def __init__(self) -> None:
        super().__init__()
        causal = nn.Transformer.generate_square_subsequent_mask(5)
        self.register_buffer("mask", causal)
        self.plain = causal.clone()
        self.linear, self.attention = nn.Linear(8, 8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, x: Tensor, pad_mask: Tensor) -> Tensor:
        q = self.linear(x)
        x = x + F.scaled_dot_product_attention(q, q, q, attn_mask=self.mask)
        x = x + F.softmax(q @ q.mT / 2 + self.plain, -1) @ q
        x = x + self.attention(x, x, x, attn_mask=self.mask, key_padding_mask=pad_mask)[0]
        out: Tensor = self.layer(x, src_mask=self.mask, src_key_padding_mask=pad_mask)
        return out


def test_masked_attention_is_healthy() -> None:
    pad = torch.zeros(6, 5)
    pad[2, 3:] = -math.inf
    assert scan(Attending(), torch.randn(6, 5, 8), pad, loss=False) is None


def test_attention_that_may_look_at_nothing_is_named() -> None:
    pad = torch.zeros(6, 5)
    pad[2] = -math.inf
    found = scan(Attending(), torch.randn(6, 5, 8), pad, loss=False)
    assert found is not None
    assert (found.module, found.operation, found.kind, found.sample) == ("attention", "multi_head_attention_forward", "nan", 2)
    assert found.from_infinite
    assert "and infinities" in found.message


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.norm(self.conv(x))
        out: Tensor = self.relu(x)
        return out


def residual_network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), Residual(4), Residual(4), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(), nn.Linear(36, 4))


HEALTHY: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "residual": lambda: (residual_network(), torch.randn(SAMPLES, 3, 8, 8)),
    "lstm": lambda: (nn.LSTM(8, 8, 2, dropout=0.5, batch_first=True), torch.randn(SAMPLES, 5, 8)),
    "gru": lambda: (nn.GRU(8, 8, bidirectional=True), torch.randn(5, SAMPLES, 8)),
    "transformer": lambda: (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), torch.randn(SAMPLES, 5, 8)),
    "norms": lambda: (nn.Sequential(nn.GroupNorm(2, 4), nn.InstanceNorm2d(4), nn.LayerNorm(6)), torch.randn(SAMPLES, 4, 6, 6)),
    "complex": lambda: (Apply(lambda x: torch.fft.fft(x).abs()), torch.randn(SAMPLES, 8)),
}


@pytest.mark.parametrize("case", HEALTHY)
def test_healthy_networks_are_not_blamed(case: str) -> None:
    model, x = HEALTHY[case]()
    assert scan(model, x, loss=False) is None


@pytest.mark.parametrize(("case", "operation"), [(nn.LSTM, "lstm"), (nn.GRU, "gru"), (nn.RNN, "rnn_tanh")])
def test_recurrent_networks_are_named_as_one_operation(case: type[nn.RNNBase], operation: str) -> None:
    model = case(8, 8)
    with torch.no_grad():
        model.weight_ih_l0.fill_(3e38)
        model.weight_hh_l0.fill_(-3e38)
        if case is nn.GRU:
            model.weight_ih_l0[8:16] *= -1  # its state is replaced
    found = scan(nn.Sequential(model), torch.ones(5, SAMPLES, 8), loss=False)
    assert found is not None  # the gate of an infinity is 1, but in the second step infinities of both signs meet
    assert (found.module, found.operation, found.kind) == ("0", operation, "nan")


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("as_function", [True, False])
def test_checkpointed_blocks_are_seen_inside(reentrant: bool, as_function: bool) -> None:
    class Block(nn.Module):
        def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            self.first, self.inner, self.last = nn.Linear(WIDTH, WIDTH), Apply(function), nn.Linear(WIDTH, 4)

        def forward(self, x: Tensor) -> Tensor:
            inside = self.inner.function if as_function else self.inner
            out: Tensor = self.last(checkpoint(inside, self.first(x), use_reentrant=reentrant))
            return out

    module = "1" if as_function else "1.inner"
    for function, direction, operation in (
        (lambda x: zeroed(x, 12).sqrt(), "backward", "sqrt"),
        (lambda x: zeroed(x, 12).log(), "forward", "log"),
    ):
        model = nn.Sequential(nn.Identity(), Block(function))
        model[1].last.weight.grad = torch.ones(4, WIDTH)
        held = model[1].last.weight.grad
        assert place(scan(model, inputs())) == (module, operation, direction, "inf", 1 / 32, 12)
        assert model[1].last.weight.grad is held
        assert torch.equal(held, torch.ones(4, WIDTH))
        assert model[1].first.weight.grad is None
    assert scan(nn.Sequential(nn.Identity(), Block(torch.tanh)), inputs()) is None


def test_compiled_model_is_named_in_its_own_words() -> None:
    model = torch.compile(nn.Sequential(nn.Linear(WIDTH, 4), Apply(lambda x: zeroed(x, 2).log())), backend="eager")
    assert place(scan(model, inputs())) == ("1", "log", "forward", "inf", 1 / 32, 2)


def test_module_that_is_used_twice_is_named_at_the_use_that_fails() -> None:
    shared = Apply(lambda x: x.sqrt())
    found = scan(nn.Sequential(Apply(torch.abs), shared, Apply(torch.neg), shared), inputs(), loss=False)
    assert found is not None
    assert (found.module, found.operation, found.direction) == ("1", "sqrt", "forward")
    assert found.high < 0


def test_outputs_of_any_shape_are_looked_at() -> None:
    def heads(x: Tensor) -> dict[str, Any]:
        return {"a": x, "more": (x * 2, [zeroed(x, 21).log()])}

    model = nn.Sequential(nn.Linear(WIDTH, 4), Apply(heads))
    assert place(scan(model, inputs(), loss=False)) == ("1", "log", "forward", "inf", 1 / 32, 21)
    assert place(scan(model, inputs(), loss_fn=lambda output, _: output["a"].mean())) == ("1", "log", "forward", "inf", 1 / 32, 21)
    model = nn.Sequential(nn.Linear(WIDTH, 4), Apply(_written))
    assert place(scan(model, inputs(), loss=False)) == ("1", "setitem", "forward", "nan", 1 / 32, 4)


def test_gradients_that_overflow_only_in_their_sum_are_told() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(1e-3))

        def forward(self, x: Tensor) -> Tensor:
            return self.weight * 3e38 + self.weight * 2e38 + x.mean()

    found = scan(Shared(), inputs(), loss_fn=lambda output, _: output)
    assert found is not None
    assert (found.operation, found.direction, found.sample) == ("accumulation", "backward", None)


def test_gradient_that_the_model_itself_takes_is_seen_inside() -> None:
    class Penalised(nn.Module):
        def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            self.inner = Apply(function)

        def forward(self, x: Tensor) -> Tensor:
            x = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.inner(x).sum(), x, create_graph=True)
            return gradient

    found = scan(nn.Sequential(Penalised(lambda x: zeroed(x, 4).sqrt()), nn.Linear(WIDTH, 4)), inputs())
    assert place(found) == ("0.inner", "sqrt", "backward", "inf", 1 / 32, 4)
    found = scan(nn.Sequential(Penalised(lambda x: (zeroed(x, 4).log() * x).exp()), nn.Linear(WIDTH, 4)), inputs())
    assert place(found) == ("0.inner", "log", "forward", "inf", 1 / 32, 4)


def test_gradient_that_a_hook_repairs_is_no_fault_and_what_comes_after_is() -> None:
    def repaired(x: Tensor) -> Tensor:
        x.register_hook(lambda g: g.nan_to_num(0, 0, 0))
        return zeroed(x, 12).sqrt()

    assert scan(Net(lambda x: repaired(x * 1)), inputs()) is None
    found = scan(Net(lambda x: repaired(zeroed(x, 3).sqrt())), inputs())
    assert place(found) == ("planted", "sqrt", "backward", "nan", 1 / 32, 3)


def test_gradient_of_a_sparse_embedding_is_looked_at() -> None:
    ids = torch.arange(SAMPLES)[:, None] % 20
    roots = Apply(lambda x: torch.where(rows(12)[:, None], 0 * x, 1 + x.abs()).sqrt())
    model = nn.Sequential(nn.Embedding(20, 8, sparse=True), roots, nn.Flatten(), nn.Linear(8, 4))
    assert place(scan(model, ids)) == ("1", "sqrt", "backward", "inf", 1 / 32, 12)
    assert scan(nn.Sequential(model[0], model[2], model[3]), ids) is None


def test_what_vmap_hides_is_told_by_the_graph() -> None:
    logs, roots = (torch.func.vmap(lambda row: row.log())), torch.func.vmap(lambda row: row.sqrt())
    assert place(scan(Net(lambda x: logs(zeroed(x, 8))), inputs())) == ("planted", "log", "forward", "inf", 1 / 32, 8)
    assert place(scan(Net(lambda x: roots(zeroed(x, 8)) * 2), inputs())) == ("planted", "sqrt", "backward", "inf", 1 / 32, 8)


@pytest.mark.parametrize("inplace", [lambda x: F.leaky_relu(x, 100.0, True), lambda x: F.leaky_relu(x, 100.0, inplace=True)])
def test_inputs_are_looked_at_before_they_are_overwritten(inplace: Callable[[Tensor], Tensor]) -> None:
    found = scan(Net(lambda x: inplace(torch.where(rows(3), -1e38, x))), inputs())
    assert place(found) == ("planted", "leaky_relu", "forward", "inf", 1 / 32, 3)
    assert found is not None
    assert found.low == pytest.approx(-1e38, rel=1e-6)


def test_sum_over_the_batch_has_no_sample_and_what_flows_on_has() -> None:
    def steep(output: Tensor, _: Tensor) -> Tensor:
        return (output * 3e38).sum()

    model = nn.Sequential(nn.Linear(WIDTH, SAMPLES), nn.Linear(SAMPLES, SAMPLES))
    for layer in model:
        nn.init.ones_(layer.weight)
        nn.init.zeros_(layer.bias)
    x = inputs() * 1e-10
    assert place(scan(model[:1], x, loss_fn=steep)) == ("0", "linear", "backward", "inf", 1.0, None)
    assert place(scan(model, x, loss_fn=steep)) == ("1", "linear", "backward", "inf", 1.0, 0)


# how it is asked


def test_sample_is_found_on_the_second_axis_and_not_where_no_axis_counts() -> None:
    late = Apply(lambda x: torch.where(rows(6), -1.0, x.abs()).log())
    assert place(scan(late, torch.randn(5, SAMPLES, WIDTH), loss=False, samples=SAMPLES))[-1] is not None
    model = nn.Sequential(nn.Linear(WIDTH, SAMPLES))
    nn.utils.parametrize.register_parametrization(model[0], "weight", Apply(lambda w: (w * 0).log()))
    found = scan(model, inputs(), loss=False)
    assert place(found) == ("0.parametrizations.weight.0", "log", "forward", "inf", 1.0, None)


def test_dropout_repeats_from_the_state_of_the_generator() -> None:
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), Apply(lambda x: F.dropout(x.abs() + 1, 0.005)), Apply(torch.log), nn.Linear(WIDTH, 4))
    x, seen = inputs(), {}
    for seed in range(6):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        with torch.no_grad():
            dropped = (model[:2](x) == 0).any(1)
        found = scan(model, x, rng_state={"cpu": state})
        assert (found is None) == (not dropped.any())
        seen[seed] = None if found is None else found.sample
        assert seen[seed] == (int(dropped.int().argmax()) if dropped.any() else None)
        other = scan(model, x, seed=seed)
        assert (None if other is None else other.sample) == seen[seed]
    assert len(set(seen.values())) > 2


def test_named_arguments_and_targets_that_are_missing() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net(lambda x: zeroed(x, 12).sqrt())

        def forward(self, first: Tensor, *, batch: dict[str, Tensor]) -> Tensor:
            out: Tensor = self.net(first + batch["x"])
            return out

    found = first_bad_operation(Named(), (inputs(),), {"batch": {"x": inputs()}}, loss_fn=F.cross_entropy, targets=None)
    assert place(found) == ("net.planted", "sqrt", "backward", "inf", 1 / 32, 12)
    bad = inputs()
    bad[1] = math.inf
    found = first_bad_operation(Named(), (inputs(),), {"batch": {"x": bad}})
    assert place(found) == ("batch['x']", "", "inputs", "inf", 1 / 32, 1)


def test_frozen_model_is_scanned_forward_only() -> None:
    assert scan(Net(lambda x: zeroed(x, 12).sqrt()).requires_grad_(False), inputs()) is None
    assert place(scan(Net(lambda x: zeroed(x, 12).log()).requires_grad_(False), inputs()))[:2] == ("planted", "log")
    assert scan(Net(lambda x: zeroed(x, 12).sqrt()).requires_grad_(False), inputs().requires_grad_()) is None
    assert scan(Answering(Net(lambda x: zeroed(x, 12).sqrt()), lambda x: x.detach().mean()), inputs(), loss=False) is None


def test_loss_that_does_not_fit_says_so() -> None:
    with pytest.raises(InputError, match="must be a scalar"):
        scan(Net(torch.tanh), inputs(), loss_fn=lambda output, _: output)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: zeroed(x, 17).log(), r"log in planted made 10 of 320 values -inf \(first at sample 17\) from inputs in \[0, 1\.\d+\]"),
        (lambda x: x.masked_fill(rows(7), -math.inf).softmax(-1), r"softmax in planted made 10 of 320 values nan .* and infinities"),
        (
            lambda x: zeroed(x, 3).sqrt(),
            r"the backward of sqrt in planted made 10 of 320 gradients ±inf .* from gradients in \[-0\.0\d+, 0\.0\d+\]",
        ),
        (Numpy.apply, r"Numpy in planted made 10 of 320 values nan \(first at sample 17\)"),
    ],
)
def test_message_holds_the_number_and_the_place(function: Callable[[Tensor], Tensor], message: str) -> None:
    found = scan(Net(function), inputs())
    assert found is not None
    assert re.fullmatch(message, found.message), found.message


# nothing changes


def state_of(model: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        yield name, (id(tensor), tensor._version if isinstance(tensor, nn.Parameter) else 0, tensor.detach().numpy().tobytes())
    for name, p in model.named_parameters():
        yield f"{name}.grad", None if p.grad is None else (id(p.grad), p.grad.tolist())
    for name, module in model.named_modules():
        yield f"{name}.training", module.training
        yield f"{name}.hooks", [len(v) for k, v in vars(module).items() if k.endswith("_hooks")]


@pytest.mark.parametrize("function", [torch.tanh, lambda x: zeroed(x, 3).log(), lambda x: zeroed(x, 3).sqrt()])
def test_nothing_changes(function: Callable[[Tensor], Tensor]) -> None:
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU(inplace=True), nn.Dropout(), Net(function))
    model[1].eval()
    model[0].weight.grad = torch.ones(WIDTH, WIDTH)
    x, mode_count = inputs(), len(_get_current_function_mode_stack())
    given, before, generator = x.clone(), dict(state_of(model)), torch.get_rng_state()
    hooks = {k: len(v) for k, v in vars(torch_module).items() if k.startswith("_global") and hasattr(v, "__len__")}
    scan(model, x)
    assert dict(state_of(model)) == before
    assert torch.equal(x, given)
    assert torch.equal(torch.get_rng_state(), generator)
    assert len(_get_current_function_mode_stack()) == mode_count
    assert {k: len(v) for k, v in vars(torch_module).items() if k.startswith("_global") and hasattr(v, "__len__")} == hooks
    assert torch.is_grad_enabled()


def test_training_goes_on_as_if_nothing_had_been_scanned() -> None:
    def trained(scans: bool) -> Tensor:
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH), nn.Dropout(), nn.Linear(WIDTH, 4))
        optimizer = torch.optim.Adam(model.parameters())
        for _ in range(3):
            x = inputs()
            if scans:
                scan(model, x)
            loss = F.cross_entropy(model(x), LABELS)
            optimizer.zero_grad()
            loss.backward()
            if scans:
                scan(model, x)
            optimizer.step()
        return torch.cat([p.detach().flatten() for p in (*model.parameters(), *model.buffers())])

    assert torch.equal(trained(True), trained(False))


def test_error_of_the_model_leaves_nothing_behind() -> None:
    def raises(x: Tensor) -> Tensor:
        raise ValueError("no")

    model = Net(raises)
    before, modes = dict(state_of(model)), len(_get_current_function_mode_stack())
    with pytest.raises(ValueError, match="no"):
        scan(model, inputs())
    assert dict(state_of(model)) == before
    assert len(_get_current_function_mode_stack()) == modes
    assert not torch_module._global_forward_pre_hooks


def test_inputs_that_the_model_overwrites_stay() -> None:
    x, nested = inputs(), {"mask": torch.zeros(SAMPLES, WIDTH)}
    model = nn.Sequential(Apply(torch.relu_), nn.Linear(WIDTH, 4))
    given = x.clone()
    scan(model, x)
    assert torch.equal(x, given)

    class Writes(nn.Module):
        def forward(self, nested: dict[str, Tensor]) -> Tensor:
            return nested["mask"].add_(1)

    scan(Writes(), nested, loss=False)
    assert not nested["mask"].any()


def test_no_activation_is_held_while_the_model_runs() -> None:
    alive: list[bool] = []

    def forgets(x: Tensor) -> Tensor:
        with torch.no_grad():
            aside = (x * 2).exp()
            gone = weakref.ref(aside.untyped_storage())
            bad = (x * 0).log()
            gone_bad = weakref.ref(bad.untyped_storage())
            del aside, bad
            gc.collect()
            alive.extend((gone() is not None, gone_bad() is not None))
        return x * 1

    assert scan(Net(forgets), inputs()) is None
    assert alive == [False, False]


def test_graph_that_the_model_keeps_has_no_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    class Keeps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(WIDTH, 4)
            self.kept = torch.zeros(())

        def forward(self, x: Tensor) -> Tensor:
            self.kept = self.linear(x).tanh()
            out: Tensor = self.linear(x)
            return out

    def never(_: Tensor) -> bool:
        raise AssertionError("a hook is left")

    model = Keeps()
    scan(model, inputs())
    monkeypatch.setattr(gradient_scan, "is_finite", never)
    model.kept.sum().backward()
