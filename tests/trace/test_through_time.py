"""The gradient along time is autograd's, for levels and loops alike, and measuring it changes nothing."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evengrad.trace.batch import Batch
from evengrad.trace.recorder import measure
from evengrad.trace.through_time import BINS, forget_bias, through_time
from evengrad.types import Floats

STEPS, SAMPLES, FEATURES, HIDDEN = 64, 5, 3, 6  # two steps a stretch


class Last(nn.Module):
    """A recurrent module and a head on its last step."""

    def __init__(self, cells: nn.RNNBase) -> None:
        super().__init__()
        self.cells = cells
        self.head = nn.Linear(cells.weight_hh_l0.shape[1] * (1 + cells.bidirectional), 2)

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.cells(x)
        return self.head(out[:, -1] if self.cells.batch_first else out[-1])


class Loop(nn.Module):
    """The same, one step after another."""

    def __init__(self, cell: nn.RNNCellBase) -> None:
        super().__init__()
        self.cell = cell
        self.head = nn.Linear(cell.hidden_size, 2)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        return self.head(state[0] if isinstance(state, tuple) else state)


class Packed(Last):
    def forward(self, x: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, torch.arange(len(x), 0, -1), batch_first=True)
        _, state = self.cells(packed)
        return self.head(state[-1])


def batch(steps: int = STEPS) -> Batch:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(SAMPLES, steps, FEATURES, generator=generator)
    return Batch(x, torch.randint(0, 2, (SAMPLES,), generator=generator))


def measured(model: nn.Module, data: Batch) -> Floats:
    layers = measure(model, data, nn.CrossEntropyLoss()).structure.layers
    found = through_time(model, data, nn.CrossEntropyLoss(), layers, 0)
    assert found is not None
    assert found.shape == (len(layers), BINS)
    assert found.dtype == np.float32
    return found


def by_autograd(model: nn.Module, data: Batch) -> np.ndarray:
    x = data.inputs.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(nn.CrossEntropyLoss()(model(x), data.targets), x)
    time = 1 if getattr(getattr(model, "cells", None), "batch_first", True) else 0
    norms = torch.linalg.vector_norm(gradient.double().movedim(time, 0), dim=-1).mean(1)
    return norms.reshape(BINS, -1).mean(1).numpy()


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
@pytest.mark.parametrize("levels", [1, 2])
def test_first_level_gets_the_gradient_of_the_inputs(kind: type[nn.RNNBase], levels: int) -> None:
    torch.manual_seed(0)
    model = Last(kind(FEATURES, HIDDEN, levels, batch_first=True))
    found = measured(model, batch())
    np.testing.assert_allclose(found[0], by_autograd(model, batch()), rtol=1e-4)  # levels are run one by one: another order of sums
    assert np.isfinite(found[:levels]).all()
    assert np.isnan(found[levels]).all()  # the head


def test_time_can_come_first() -> None:
    torch.manual_seed(0)
    model = Last(nn.GRU(FEATURES, HIDDEN))
    data = Batch(batch().inputs.transpose(0, 1), batch().targets)
    np.testing.assert_allclose(measured(model, data)[0], by_autograd(model, data), rtol=1e-4)


def test_second_level_gets_the_gradient_of_what_the_first_says() -> None:
    torch.manual_seed(0)
    both = Last(nn.LSTM(FEATURES, HIDDEN, 2, batch_first=True))
    upper = Last(nn.LSTM(HIDDEN, HIDDEN, batch_first=True))
    lower = nn.LSTM(FEATURES, HIDDEN, batch_first=True)
    for name, value in both.cells.state_dict().items():
        (lower if name.endswith("l0") else upper.cells).state_dict()[name.replace("l1", "l0")].copy_(value)
    upper.head.load_state_dict(both.head.state_dict())
    between = Batch(lower(batch().inputs)[0].detach(), batch().targets)
    np.testing.assert_allclose(measured(both, batch())[1], by_autograd(upper, between), rtol=1e-4)


@pytest.mark.parametrize("kind", [nn.RNNCell, nn.LSTMCell, nn.GRUCell])
def test_loop_over_cells_is_seen_along_its_steps(kind: type[nn.RNNCellBase]) -> None:
    torch.manual_seed(0)
    model = Loop(kind(FEATURES, HIDDEN))
    np.testing.assert_allclose(measured(model, batch())[0], by_autograd(model, batch()), rtol=1e-5)


def test_fewer_steps_than_stretches_are_repeated() -> None:
    torch.manual_seed(0)
    model, short = Last(nn.RNN(FEATURES, HIDDEN, batch_first=True)), batch(8)
    found = measured(model, short)[0].reshape(8, 4)
    assert (found == found[:, :1]).all()
    x = short.inputs.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(nn.CrossEntropyLoss()(model(x), short.targets), x)
    np.testing.assert_allclose(found[:, 0], gradient.norm(dim=-1).mean(0).numpy(), rtol=1e-5)


def test_packed_sequences_are_left_alone() -> None:
    assert np.isnan(measured(Packed(nn.GRU(FEATURES, HIDDEN, batch_first=True)), batch())).all()


@pytest.mark.filterwarnings("ignore:LSTM with projections")  # oneDNN has none
def test_dropout_both_directions_and_projection_run() -> None:
    torch.manual_seed(0)
    found = measured(Last(nn.LSTM(FEATURES, HIDDEN, 2, batch_first=True, dropout=0.5, bidirectional=True)), batch())
    assert (found[:2] > 0).all()
    assert (measured(Last(nn.LSTM(FEATURES, HIDDEN, 2, batch_first=True, proj_size=4)), batch())[:2] > 0).all()


def test_what_is_tiny_is_not_zero() -> None:
    """Squares of 1e-30 are zero in single precision; the gradient itself is not."""
    torch.manual_seed(0)
    model = Last(nn.RNN(FEATURES, HIDDEN, batch_first=True))
    with torch.no_grad():
        model.cells.weight_hh_l0.copy_(torch.eye(HIDDEN) * 0.35)
    found = measured(model, batch())[0]
    assert 0 < found[0] < 1e-25


def test_plain_network_costs_nothing() -> None:
    class Refuses(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            raise AssertionError("was called")

    layers = measure(nn.Linear(3, 2), Batch(torch.ones(2, 3))).structure.layers
    assert through_time(Refuses(3, 2), Batch(torch.ones(2, 3)), None, layers, 0) is None


def test_nothing_is_changed() -> None:
    torch.manual_seed(0)
    model = Last(nn.LSTM(FEATURES, HIDDEN, 2, batch_first=True, dropout=0.3)).eval()
    kept, state, data = copy.deepcopy(model.state_dict()), torch.get_rng_state(), batch()
    layers = measure(model, data, nn.CrossEntropyLoss()).structure.layers
    through_time(model, data, nn.CrossEntropyLoss(), layers, 7)
    assert not model.training
    assert not model.cells.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in model.parameters())
    assert not data.inputs.requires_grad
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())


def test_forget_bias_is_that_of_the_gate() -> None:
    net = nn.ModuleDict({"deep": nn.LSTM(3, 4, 2, bidirectional=True), "cell": nn.LSTMCell(3, 4), "bare": nn.LSTM(3, 4, bias=False)})
    with torch.no_grad():
        for name, p in net.named_parameters():
            if "bias" in name:
                p.fill_(9.0)
                p[4:8] = 0.75 if "reverse" in name else 1.0
    assert forget_bias(net) == {"deep.l0": 1.5, "deep.l1": 1.5, "cell": 2.0, "bare.l0": 0.0}


def test_forget_bias_bears_the_names_of_the_rows() -> None:
    for model in (Last(nn.LSTM(FEATURES, HIDDEN, 2, batch_first=True)), Loop(nn.LSTMCell(FEATURES, HIDDEN))):
        rows = {layer.name for layer in measure(model, batch(), nn.CrossEntropyLoss()).structure.layers if layer.kind == "lstm"}
        assert set(forget_bias(model)) == rows
    alone = nn.LSTM(FEATURES, HIDDEN, 2, batch_first=True)
    assert set(forget_bias(alone)) == {layer.name for layer in measure(alone, Batch(batch().inputs)).structure.layers}
    assert forget_bias(nn.GRU(3, 4)) == {}
