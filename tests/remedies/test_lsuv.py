"""After LSUV every layer's output has unit standard deviation, whatever the model, in one call of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from evengrad.errors import InputError
from evengrad.examine import check
from evengrad.recording import trace_of
from evengrad.remedies.lsuv import Lsuv, lsuv_
from evengrad.remedies.rescaling import rescale_, rms
from evengrad.rig import Rig
from evengrad.trace import operations as ops
from evengrad.trace.batch import call
from evengrad.training import Experiment, build, first_batch
from evengrad.types import Finding
from tests.remedies.contract import keeps_the_contract, stepped

MISMATCH = Finding(code="INI001", symptom="vanishing_gradient", severity="error", message="", cause="bad_init_small")


class Residual(nn.Module):
    """Convolutions with batch norm, functional ReLU and in-place addition."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm, self.out = nn.BatchNorm2d(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        y = self.b(F.relu(self.norm(self.a(x))))
        y += x
        return self.out(F.relu(y).mean((2, 3)))


class Dynamic(nn.Module):
    """What runs depends on the data; a kernel laid out [in, out]; no module for the second layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.out = nn.Linear(6, 9), nn.Linear(9, 2)
        self.kernel, self.bias = nn.Parameter(torch.randn(9, 9)), nn.Parameter(torch.ones(9))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x))
        if float(x.detach().mean()) > -2:
            x = torch.addmm(self.bias, x, self.kernel).relu()
        return self.out(x)


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    return nn.Sequential(nn.Linear(6, 16), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(16, 2))


def transposed() -> nn.Module:
    return nn.Sequential(nn.ConvTranspose2d(2, 6, 4, stride=2), nn.Tanh(), nn.Conv2d(6, 6, 3, groups=2), nn.ReLU(), nn.Conv2d(6, 2, 3))


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "residual": (Residual, (32, 2, 8, 8)),
    "dynamic": (Dynamic, (64, 6)),
    "transformer": (encoder, (32, 5, 6)),
    "transposed": (transposed, (16, 2, 6, 6)),
}


class Sizes(TorchFunctionMode):
    """Standard deviations of what products of weights give; of attention, of each projection and of all of it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[float] = []

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name, output = ops.function_name(func), func(*args, **kwargs)
        if name == ops.ATTENTION:
            self.found += [float(F.linear(args[0], w).std(correction=0)) for w in args[5].chunk(3)]
            self.found.append(float(output[0].std(correction=0)))
        elif name in ops.LINEAR | ops.CONV | ops.CONV_TRANSPOSE:
            self.found.append(float(output.std(correction=0)))
        return output


def inputs(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 5 + 2


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_gives_unit_deviation_on_any_model(name: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        make, shape = MODELS[name]
        model, x = make(), inputs(shape)
    assert lsuv_(model, x, seed=0) is model
    with torch.no_grad(), (sizes := Sizes()):
        model(x)
    assert sizes.found == pytest.approx([1.0] * len(sizes.found), abs=1e-5)  # float32
    assert len(sizes.found) == {"residual": 4, "dynamic": 3, "transformer": 14, "transposed": 3}[name]


def test_one_call_of_the_model_is_enough() -> None:
    calls = []

    class Counted(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            calls.append(1)
            return super().forward(x)

    lsuv_(nn.Sequential(*(Counted(8, 8) for _ in range(5))), torch.randn(16, 8, generator=torch.Generator().manual_seed(0)), seed=0)
    assert len(calls) == 5


def test_mode_buffers_generators_gradients_and_hooks_stay() -> None:
    model = Residual().eval()
    x = inputs((8, 2, 8, 8))
    buffers = {k: v.clone() for k, v in model.named_buffers()}
    state = torch.get_rng_state()
    lsuv_(model, x, seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(m.training for m in model.modules())
    assert all(torch.equal(v, buffers[k]) for k, v in model.named_buffers())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_seed_gives_the_same_weights() -> None:
    x = inputs((16, 6))
    first, again, other = (lsuv_(Dynamic(), x, seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(v, again[k]) for k, v in first.items())
    assert not all(torch.equal(v, other[k]) for k, v in first.items())


def test_a_shared_weight_gets_one_scale_at_its_first_use() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            self.first = self.layer(x)
            return self.layer(torch.tanh(self.first))

    model, x = Shared(), inputs((64, 8))
    lsuv_(model, x, seed=0)
    with torch.no_grad():
        model(x)
    assert float(model.first.std(correction=0)) == pytest.approx(1.0, abs=1e-5)
    weight = model.layer.weight.detach()
    torch.testing.assert_close(weight @ weight.mT / (weight[0] @ weight[0]), torch.eye(8), rtol=0, atol=1e-5)


def test_a_weight_that_an_embedding_uses_is_left_alone() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.hidden, self.out = nn.Embedding(11, 8), nn.Linear(8, 8), nn.Linear(8, 11, bias=False)
            self.out.weight = self.embedding.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.out(torch.tanh(self.hidden(self.embedding(x).mean(1))))

    model = Tied()
    before = model.embedding.weight.detach().clone()
    lsuv_(model, torch.randint(11, (24, 5), generator=torch.Generator().manual_seed(0)), seed=0)
    assert torch.equal(model.embedding.weight, before)


def test_where_nothing_varies_a_weight_keeps_its_draw() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    lsuv_(model, torch.zeros(8, 4), seed=0)
    for weight in (p.detach() for p in model.parameters() if p.dim() > 1):
        torch.testing.assert_close(weight @ weight.mT, torch.eye(4), rtol=0, atol=1e-5)


def test_what_is_rescaled_can_be_chosen_and_need_not_be_drawn() -> None:
    model, x = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)), inputs((32, 6))
    first = model[0].weight.detach().clone()
    direction = F.normalize(model[2].weight.detach().flatten(), dim=0)
    rescale_(model, x, [model[2].weight], rms)
    assert torch.equal(model[0].weight, first)
    assert float(model(x).detach().square().mean().sqrt()) == pytest.approx(1.0, abs=1e-5)
    torch.testing.assert_close(F.normalize(model[2].weight.detach().flatten(), dim=0), direction)


# ---------------------------------------------------------------- the remedy


def small(*, depth: int = 8) -> nn.Module:
    """A tanh network whose weights are so small that nothing arrives."""
    model = nn.Sequential(*(m for _ in range(depth) for m in (nn.Linear(16, 16), nn.Tanh())), nn.Linear(16, 2))
    for p in model.parameters():
        nn.init.normal_(p, 0.0, 0.01)
    return model


@pytest.fixture
def patient() -> Rig:
    x = torch.randn(128, 16, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] * x[:, 1] > 0).long()
    return build(Experiment(small, (x, y), nn.CrossEntropyLoss(), lambda m: torch.optim.SGD(m.parameters(), 0.01, 0.9), batch_size=64))


def test_the_remedy_removes_the_finding_of_its_patient(patient: Rig) -> None:
    batch = first_batch(patient)

    def found() -> set[str | None]:
        report = check(patient.model, batch.inputs, batch.targets, patient.loss_fn, causes=False)
        return {f.symptom for f in report.findings if f.severity == "error"}

    assert {"vanishing_gradient", "signal_collapse"} & found()
    (proposal,) = Lsuv().propose(MISMATCH, trace_of(patient, batch))
    assert proposal.cause == "bad_init_small"
    Lsuv().apply(patient, proposal)
    assert not found()


def test_the_remedy_keeps_the_contract(patient: Rig) -> None:
    batch = first_batch(patient)
    stepped(patient, batch)
    (proposal,) = Lsuv().propose(MISMATCH, trace_of(patient, batch))
    keeps_the_contract(Lsuv(), patient, batch, proposal)


def test_a_proposal_for_another_model_is_refused_and_data_are_asked_for(patient: Rig) -> None:
    batch = first_batch(patient)
    (proposal,) = Lsuv().propose(MISMATCH, trace_of(patient, batch))
    before = call(patient.model, batch.inputs)
    with pytest.raises(InputError, match="another model"):
        Lsuv().apply(Rig(nn.Linear(16, 2), batches=patient.batches), proposal)
    with pytest.raises(InputError, match="lsuv needs a batch of data to measure on; give"):
        Lsuv().apply(Rig(patient.model), proposal)
    assert torch.equal(call(patient.model, batch.inputs), before)


def test_nothing_is_proposed_where_a_norm_follows_every_layer() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.ReLU(), nn.Linear(4, 2))
    batch = first_batch(build(Experiment(lambda: model, (torch.randn(8, 4), torch.zeros(8).long()), nn.CrossEntropyLoss(), _sgd)))
    assert not list(Lsuv().propose(MISMATCH, trace_of(Rig(model), batch)))


def _sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), 0.1)
