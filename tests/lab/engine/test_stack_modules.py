"""evengrad.lab.engine.stack on torch's layers and on modules of one's own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evengrad.errors import InputError
from evengrad.lab.engine.stack import MappedRuns, stack, unstack
from evengrad.lab.models.parts import HashDropout, set_step

Factory = Callable[[], nn.Module]
RUNS = 3
FLAT, ROW, IMAGE, SERIES = (5, 4), (5, 4, 9), (5, 4, 9, 8), (5, 6, 4)  # batch, channels or features, ...
BATCHED: list[tuple[Factory, tuple[int, ...]]] = [
    (partial(nn.Linear, 4, 3), FLAT),
    (partial(nn.Linear, 4, 3, bias=False), FLAT),
    (partial(nn.Linear, 4, 3), (5, 2, 6, 4)),
    (partial(nn.Conv1d, 4, 6, 3, stride=2, groups=2), ROW),
    (partial(nn.Conv2d, 4, 6, (3, 2), padding="same", dilation=2, bias=False), IMAGE),
    (partial(nn.Conv2d, 4, 4, 3, padding=1, padding_mode="circular", groups=4), IMAGE),
    (partial(nn.BatchNorm1d, 4), FLAT),
    (partial(nn.BatchNorm1d, 4, momentum=None), ROW),
    (partial(nn.BatchNorm2d, 4, momentum=0.5, eps=0.1), IMAGE),
    (partial(nn.BatchNorm2d, 4, affine=False), IMAGE),
    (partial(nn.BatchNorm2d, 4, track_running_stats=False), IMAGE),
    (partial(nn.LayerNorm, 4), SERIES),
    (partial(nn.LayerNorm, (9, 8), bias=False), IMAGE),
    (partial(nn.LayerNorm, 4, elementwise_affine=False), FLAT),
    (partial(nn.RMSNorm, 4, eps=0.1), SERIES),
    (partial(nn.GroupNorm, 2, 4), IMAGE),
    (partial(nn.GroupNorm, 2, 4), FLAT),
    (nn.PReLU, SERIES),
    (partial(nn.PReLU, 4), IMAGE),
    (nn.Flatten, IMAGE),
    (partial(nn.Flatten, -2), IMAGE),
    (partial(nn.Softmax, 1), IMAGE),
    (partial(nn.LogSoftmax, -1), FLAT),
    (partial(nn.MaxPool2d, 2), IMAGE),
    (partial(nn.AvgPool2d, 3, 2, 1), IMAGE),
    (partial(nn.AdaptiveAvgPool2d, 1), IMAGE),
    (partial(nn.MaxPool1d, 2), ROW),
    (partial(nn.ELU, 0.5), SERIES),
]
RECURRENT: list[Factory] = [
    partial(nn.RNN, 4, 3, batch_first=True, nonlinearity="relu"),
    partial(nn.LSTM, 4, 3, 2, batch_first=True),
    partial(nn.LSTM, 4, 3, batch_first=True, bias=False),
    partial(nn.GRU, 4, 3, 2, batch_first=True),
    partial(nn.GRU, 4, 3, batch_first=True, bias=False),
]


def several(factory: Factory, dtype: torch.dtype = torch.float64) -> list[nn.Module]:
    """Networks whose parameters differ, norms' too."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        modules = [factory().to(dtype) for _ in range(RUNS)]
        for module in modules:
            for p in module.parameters():
                p.data += 0.3 * torch.randn_like(p)
        return modules


def numbers(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(RUNS, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def check(modules: list[nn.Module], together: nn.Module, x: Tensor) -> None:
    """Outputs, gradients of parameters and inputs, and buffers of several calls are each network's own, in training and in evaluation."""
    close = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-12)  # float64, other order of sums
    for mode in (True, True, False):
        x = x.detach().requires_grad_()
        outputs = together.train(mode)(x)
        weights = torch.linspace(-1, 2, outputs[0].numel(), dtype=x.dtype).view(outputs[0].shape)
        together.zero_grad()
        (outputs * weights).sum().backward()
        for k, module in enumerate(modules):
            module.zero_grad()
            own_x = x[k].detach().requires_grad_()
            own = module.train(mode)(own_x)
            (own * weights).sum().backward()
            close(outputs[k], own)
            close(x.grad[k], own_x.grad)
            for name, p in module.named_parameters():
                close(together.get_parameter(name).grad[k], p.grad)
            for name, buffer in module.named_buffers():
                close(together.get_buffer(name)[k], buffer)


@pytest.mark.parametrize(("factory", "shape"), BATCHED, ids=[f"{i}-{f().__class__.__name__}" for i, (f, _) in enumerate(BATCHED)])
def test_a_batched_layer_is_torchs_layer_for_each_network(factory: Factory, shape: tuple[int, ...]) -> None:
    modules = several(factory)
    together = stack(modules)
    assert not isinstance(together, MappedRuns)
    check(modules, together, numbers(*shape))


@pytest.mark.parametrize("given", [False, True], ids=["zero", "given"])
@pytest.mark.parametrize("factory", RECURRENT)
def test_batched_levels_return_every_step_and_the_last_state(factory: Factory, given: bool) -> None:
    modules, x = several(factory), numbers(5, 6, 4)
    together = stack(modules)
    levels = modules[0].num_layers
    start = tuple(numbers(levels, 5, 3, seed=s) for s in (2, 3)) if isinstance(modules[0], nn.LSTM) else numbers(levels, 5, 3, seed=2)
    outputs, last = together(x, start) if given else together(x)
    for k, module in enumerate(modules):
        own_start = tuple(s[k] for s in start) if isinstance(start, tuple) else start[k]
        own, own_last = module(x[k], own_start) if given else module(x[k])
        torch.testing.assert_close(outputs[k], own, rtol=1e-10, atol=1e-12)
        for part, own_part in zip(*((s if isinstance(s, tuple) else (s,)) for s in (last, own_last)), strict=True):
            torch.testing.assert_close(part[k], own_part, rtol=1e-10, atol=1e-12)


def test_embeddings_look_up_each_networks_own_table() -> None:
    modules = several(partial(nn.Embedding, 7, 3, padding_idx=2))
    together = stack(modules)
    x = torch.randint(7, (RUNS, 5, 6), generator=torch.Generator().manual_seed(0))
    together(x).square().sum().backward()
    for k, module in enumerate(modules):
        module(x[k]).square().sum().backward()
        torch.testing.assert_close(together(x)[k], module(x[k]))
        torch.testing.assert_close(together.weight.grad[k], module.weight.grad)
    assert together.weight.grad[:, 2].abs().max() == 0


class Functional(nn.Module):
    """What people write: the batch is axis 0, activations are functions, and a parameter is the container's own."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 6)
        self.norm = nn.BatchNorm1d(6)
        self.scale = nn.Parameter(torch.ones(6))
        self.register_buffer("shift", torch.randn(6))

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm(self.inner(x.reshape(x.size(0), -1))) + self.shift)
        return (h * self.scale).mean(1, keepdim=True)


class Shared(nn.Module):
    """One layer called twice, and one weight used by two modules."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        self.layers[1].weight = self.layers[0].weight

    def forward(self, x: Tensor) -> Tensor:
        return self.layers[1](torch.tanh(self.layers[0](torch.tanh(self.layers[0](x)))))  # type: ignore[no-any-return]


def test_a_module_of_ones_own_is_mapped_over_the_runs() -> None:
    modules = several(Functional)
    check(modules, stack(modules), numbers(5, 4))


def test_only_the_part_that_needs_it_is_mapped_and_names_stay() -> None:
    modules = several(lambda: nn.Sequential(nn.Linear(4, 4), Functional(), nn.Linear(1, 2)))
    together = stack(modules)
    assert [type(m).__name__ for m in together] == ["RunsLinear", "MappedRuns", "RunsLinear"]
    assert [n for n, _ in together.named_parameters()] == [n for n, _ in modules[0].named_parameters()]
    check(modules, together, numbers(5, 4))


def test_weights_that_are_shared_stay_shared_in_a_mapped_module() -> None:
    modules = several(Shared)
    together = stack(modules)
    assert len(list(together.parameters())) == 3
    check(modules, together, numbers(5, 4))


def test_weights_that_are_shared_stay_shared_between_batched_layers() -> None:
    def tied() -> nn.Module:
        first, second, twice = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4, bias=False)
        second.weight = first.weight
        return nn.Sequential(first, nn.Tanh(), second, twice, nn.Tanh(), twice)

    modules = several(tied)
    together = stack(modules)
    assert together[0].weight is together[2].weight
    assert together[3] is together[5]
    check(modules, together, numbers(5, 4))


def test_a_layer_may_stand_in_a_mapped_module_and_outside_of_it() -> None:
    class Wraps(nn.Module):
        def __init__(self, layer: nn.Module) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) + x.mean(0)  # type: ignore[no-any-return]

    for order in (1, -1):

        def build(order: int = order) -> nn.Module:
            layer = nn.Linear(4, 4)
            return nn.Sequential(*[layer, nn.Tanh(), Wraps(layer)][::order])

        modules = several(build)
        check(modules, stack(modules), numbers(5, 4))


def test_a_mapped_module_goes_through_copies_modes_and_moves() -> None:
    modules = several(Functional)
    together = copy.deepcopy(stack(modules))
    with torch.no_grad():
        for p in together.parameters():
            p.add_(1)
        for module in modules:
            for p in module.parameters():
                p.add_(1)
    for module in modules:
        module.float().double()  # rounds, as the move does
    check(modules, together.float().double(), numbers(5, 4))


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if x.sum() > 0 else -self.layer(x)  # type: ignore[no-any-return]


class OwnLSTM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.LSTM(4, 3, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.cells(x)[0][:, -1]  # type: ignore[no-any-return]


@pytest.mark.parametrize(("factory", "shape"), [(Branching, FLAT), (OwnLSTM, SERIES)])
def test_what_cannot_be_mapped_says_to_train_one_at_a_time_and_then_works(factory: Factory, shape: tuple[int, ...]) -> None:
    modules = several(factory)
    with pytest.raises(InputError, match=r"cannot be run as 3 networks at once .* train them one at a time: chunk=1"):
        stack(modules)(numbers(*shape))
    check(modules[1:2], stack(modules[1:2]), numbers(*shape)[1:2])


def test_a_network_that_fails_alone_fails_with_its_own_error() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        stack(several(Functional))(numbers(5, 3))


def test_dropouts_of_torch_do_not_depend_on_the_runs_beside_them() -> None:
    class Inside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.4)

        def forward(self, x: Tensor) -> Tensor:
            return self.drop(x) + x.mean(0)  # type: ignore[no-any-return]

    for factory in (lambda: nn.Sequential(nn.Linear(4, 9), nn.Dropout(0.5), nn.AlphaDropout(0.3), nn.RReLU()), Inside):
        modules, x = several(factory), numbers(5, 4)
        together, alone = stack(modules), stack(modules[2:])
        set_step(together, torch.tensor([5, 6, 7]), 3)
        set_step(alone, torch.tensor([7]), 3)
        torch.testing.assert_close(together(x)[2], alone(x[2:])[0], rtol=1e-10, atol=1e-12)
        assert not torch.equal(together(x), together.eval()(x))


def test_a_mapped_module_that_asks_for_its_own_mode_is_told() -> None:
    class Asks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + x.mean(0) if self.training else x

    together, x = stack(several(Asks)), numbers(5, 4)
    assert torch.equal(together.eval()(x), x)
    assert not torch.equal(together.train()(x), x)


def test_networks_may_differ_in_their_rates_of_dropout() -> None:
    together = stack([nn.Sequential(HashDropout(p)) for p in (0.0, 0.5, 0.9)])
    set_step(together, torch.arange(3), 0)
    kept = (together(torch.ones(3, 100, 100)) != 0).double().mean((1, 2))
    assert kept.tolist() == pytest.approx([1, 0.5, 0.1], abs=0.025)  # five sigma at 0.5
    single = unstack(together, 2, nn.Sequential(HashDropout(0.0)))
    set_step(single, 2, 0)
    assert torch.equal(single(torch.ones(100, 100)), together(torch.ones(3, 100, 100))[2])


def test_networks_are_left_as_they_are() -> None:
    modules = several(lambda: nn.Sequential(Functional(), nn.Linear(1, 2), nn.BatchNorm1d(2)))
    before = [copy.deepcopy(m.state_dict()) for m in modules]
    together = stack(modules)
    together(numbers(5, 4))
    with torch.no_grad():
        for p in together.parameters():
            p.add_(1)
    torch.testing.assert_close([m.state_dict() for m in modules], before, rtol=0, atol=0)


def test_mode_and_frozen_parameters_stay() -> None:
    modules = several(lambda: nn.Sequential(nn.Linear(4, 4), Functional()))
    for module in modules:
        module[0].weight.requires_grad_(False)
        module[1].eval()
    together = stack(modules)
    assert [p.requires_grad for p in together.parameters()] == [p.requires_grad for p in modules[0].parameters()]
    assert (together[0].training, together[1].training, together[1].norm.training) == (True, False, False)


@pytest.mark.parametrize(
    ("first", "second", "difference"),
    [
        (nn.Linear(2, 3), nn.Linear(2, 4), "out_features=3.*out_features=4"),
        (nn.LeakyReLU(0.1), nn.LeakyReLU(0.2), "0.1.*0.2"),
        (nn.Sequential(nn.ReLU()), nn.Sequential(nn.Tanh()), "0: ReLU.*0: Tanh"),
        (nn.Sequential(nn.ReLU()), nn.Sequential(nn.ReLU(), nn.ReLU()), "None.*1: ReLU"),
        (nn.Linear(2, 3), nn.Linear(2, 3).double(), "float32.*float64"),
        (nn.MultiheadAttention(4, 1), nn.MultiheadAttention(4, 2), "num_heads=1.*num_heads=2"),
    ],
)
def test_networks_that_differ_are_refused_by_what_differs(first: nn.Module, second: nn.Module, difference: str) -> None:
    with pytest.raises(InputError, match=difference):
        stack([first, first, second])


def test_no_network_at_all_is_refused() -> None:
    with pytest.raises(InputError, match="at least one"):
        stack([])
