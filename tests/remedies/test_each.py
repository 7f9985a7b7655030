"""Each remedy does to a network what its name says."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evengrad.recording import trace_of
from evengrad.remedies import discovered
from evengrad.rig import Rig
from evengrad.trace.batch import Batch
from evengrad.trace.recorder import measure
from evengrad.training import Experiment, build, first_batch
from evengrad.types import Finding, Proposal, Trace


def propose(name: str, trace: Trace, *, symptom: str = "vanishing_gradient", code: str = "VAN001") -> list[Proposal]:
    finding = Finding(code=code, symptom=symptom, severity="error", message="for a test")
    return list(discovered()[name]().propose(finding, trace))


def rig_of(model: nn.Module, x: Tensor, *, seed: int = 0) -> Rig:
    batch = Batch(x, torch.arange(len(x)) % 2)
    return Rig(model, torch.optim.SGD(model.parameters(), 0.1), F.cross_entropy, lambda epoch: iter((batch,)), seed=seed)


def apply(name: str, rig: Rig, *, which: int = 0) -> Proposal:
    """Applies the remedy's own proposal to the rig."""
    proposal = propose(name, trace_of(rig, next(rig.batches(0))))[which]
    discovered()[name]().apply(rig, proposal)
    return proposal


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------- swap_activation


class Calls(nn.Module):
    """Two hidden layers whose activation is called as the test says, and a head with the same activation on top."""

    def __init__(self, act: Callable[[Tensor], Tensor], head: Callable[[Tensor], Tensor] = lambda z: z) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.a, self.b, self.out = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 2)
        self.act, self.head = act, head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.out(self.act(self.b(self.act(self.a(x))))))


def relu_in_place_as_a_statement(z: Tensor) -> Tensor:
    z.relu_()
    return z


def f_relu_in_place_as_a_statement(z: Tensor) -> Tensor:
    F.relu(z, True)
    return z


WAYS = {
    "F.relu": (F.relu, "relu"),
    "torch.relu": (torch.relu, "relu"),
    "x.relu()": (lambda z: z.relu(), "relu"),
    "x.clamp(min=0)": (lambda z: z.clamp(min=0), "relu"),
    "x.relu_() as a statement": (relu_in_place_as_a_statement, "relu"),
    "F.relu(x, inplace=True)": (lambda z: F.relu(z, inplace=True), "relu"),
    "F.relu(x, True) as a statement": (f_relu_in_place_as_a_statement, "relu"),
    "torch.sigmoid": (torch.sigmoid, "sigmoid"),
    "F.sigmoid": (F.sigmoid, "sigmoid"),
    "x.sigmoid()": (lambda z: z.sigmoid(), "sigmoid"),
    "torch.sigmoid_": (torch.sigmoid_, "sigmoid"),
    "nn.Sigmoid": (nn.Sigmoid(), "sigmoid"),
    "nn.ReLU(inplace=True)": (nn.ReLU(inplace=True), "relu"),
}
NEW = {"relu": lambda z: F.leaky_relu(z, 0.2), "sigmoid": torch.tanh}


@pytest.mark.parametrize("way", WAYS)
def test_swapping_really_changes_the_computation_however_the_activation_is_called(way: str) -> None:
    act, old = WAYS[way]
    rig = rig_of(Calls(act), normal(16, 6))
    proposal = apply("swap_activation", rig)
    assert (proposal.options["old"], proposal.options["new"]) == (old, {"relu": "leaky_relu", "sigmoid": "tanh"}[old])
    by_hand = Calls(NEW[old])
    by_hand.load_state_dict(rig.model.state_dict())
    x = normal(16, 6, seed=1)
    ours, theirs = rig.model(x), by_hand(x)
    assert torch.equal(ours, theirs)
    for side, output in ((rig.model, ours), (by_hand, theirs)):
        F.cross_entropy(output, torch.arange(16) % 2).backward()
        assert side.a.weight.grad is not None
    assert torch.equal(rig.model.a.weight.grad, by_hand.a.weight.grad)  # type: ignore[arg-type, union-attr]


SHARED = nn.Sigmoid()


@pytest.mark.parametrize(
    ("act", "head"),
    [(torch.sigmoid, torch.sigmoid), (nn.Sigmoid(), nn.Sigmoid()), (SHARED, SHARED), (lambda z: z.sigmoid(), torch.sigmoid)],
    ids=["functions of one module", "two modules", "one module", "method and function"],
)
def test_swapping_leaves_the_activation_of_the_output_alone(act: Callable[[Tensor], Tensor], head: Callable[[Tensor], Tensor]) -> None:
    rig = rig_of(Calls(act, head), normal(16, 6))
    apply("swap_activation", rig)
    by_hand = Calls(torch.tanh, torch.sigmoid)
    by_hand.load_state_dict(rig.model.state_dict())
    x = normal(16, 6, seed=1)
    assert torch.equal(rig.model(x), by_hand(x))
    assert torch.equal(copy.deepcopy(rig.model)(x), by_hand(x))


def test_swapping_draws_weights_by_the_scheme_of_the_new_activation() -> None:
    model = nn.Sequential(nn.Linear(400, 400), nn.Sigmoid(), nn.Linear(400, 400), nn.Sigmoid(), nn.Linear(400, 2))
    rig = rig_of(model, normal(4, 400))
    assert apply("swap_activation", rig, which=1).options["new"] == "relu"
    weight = model[0].weight
    assert isinstance(weight, Tensor)
    assert float(weight.detach().std()) == pytest.approx((2 / 400) ** 0.5, rel=0.01)  # He; 160,000 draws are good to 0.2%
    assert isinstance(model[1], nn.ReLU)


def test_a_swapped_transformer_computes_the_same_in_eval_mode() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)  # eval mode has a fused path that knows no hooks
    model = nn.Sequential(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Flatten(), nn.Linear(32, 2))
    rig = rig_of(model, normal(8, 4, 8))
    x = normal(8, 4, 8, seed=1)
    for name in ("swap_activation", "layer_norm"):
        apply(name, rig)
        with torch.no_grad():
            torch.testing.assert_close(model.eval()(x), model.train()(x), rtol=1e-5, atol=1e-5)  # fused kernels round differently


# ---------------------------------------------------------------- norms


def test_parameters_of_a_batch_norm_join_the_first_group_and_learn() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Sigmoid(), nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, 2))
    groups = [{"params": list(model[0].parameters()), "lr": 0.5}, {"params": list(model[2:].parameters())}]
    rig = rig_of(model, normal(16, 6))
    rig.optimizer = torch.optim.SGD(groups, lr=0.1)
    apply("batch_norm", rig)
    added = {name: p for name, p in model.named_parameters() if "evengrad_norm" in name}
    assert sorted(added) == [f"{i}.evengrad_norm.{w}" for i in (0, 2) for w in ("bias", "weight")]
    first, second = ([id(p) for p in g["params"]] for g in rig.optimizer.param_groups)
    assert {id(p) for p in added.values()} <= set(first)
    assert sorted(first + second) == sorted(id(p) for p in model.parameters())
    before = {name: p.detach().clone() for name, p in added.items()}
    F.cross_entropy(model(normal(16, 6)), torch.arange(16) % 2).backward()
    rig.optimizer.step()
    assert not any(torch.equal(before[name], p) for name, p in added.items())


@pytest.mark.parametrize(("name", "norm"), [("batch_norm", nn.BatchNorm1d(8)), ("layer_norm", nn.LayerNorm(8))])
def test_a_norm_sits_between_layer_and_activation(name: str, norm: nn.Module) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Sigmoid(), nn.Linear(8, 2))
    by_hand = nn.Sequential(copy.deepcopy(model[0]), norm, nn.Sigmoid(), copy.deepcopy(model[2]))
    rig = rig_of(model, normal(16, 6))
    apply(name, rig)
    for mode in (True, False):
        assert torch.equal(model.train(mode)(normal(16, 6)), by_hand.train(mode)(normal(16, 6)))


def test_a_batch_norm_behind_a_linear_layer_on_sequences_norms_features() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
    rig = rig_of(model, normal(16, 6))
    apply("batch_norm", rig)
    seen: list[Tensor] = []
    model[1].register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    model(normal(16, 5, 6) * 3 + 1)
    assert seen[0].shape == (16, 5, 8)
    torch.testing.assert_close(seen[0].mean((0, 1)), torch.zeros(8), rtol=0, atol=1e-6)  # float32 rounding


class Conv1D(nn.Module):
    """GPT-2's layer: a linear map whose kernel is laid out [in, out]."""

    def __init__(self, out: int, inputs: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.full((inputs, out), 0.1)), nn.Parameter(torch.zeros(out))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.view(-1, x.shape[-1]), self.weight).view(*x.shape[:-1], -1)


def test_a_norm_behind_a_kernel_laid_out_in_out_has_the_outputs_width() -> None:
    model = nn.Sequential(Conv1D(16, 6), nn.Sigmoid(), nn.Linear(16, 2))
    rig = rig_of(model, normal(8, 6))
    apply("layer_norm", rig)
    assert model.get_submodule("0.evengrad_norm").weight.shape == (16,)
    assert model(normal(8, 6)).shape == (8, 2)


# ---------------------------------------------------------------- standardize_input


def standardised(model: nn.Module, x: Tensor) -> Tensor:
    """What reaches the first layer once the remedy is applied, in eval mode too."""
    rig = rig_of(model, x)
    batch = next(rig.batches(0))
    proposals = propose("standardize_input", trace_of(rig, batch))
    assert len(proposals) == 1
    discovered()["standardize_input"]().apply(rig, proposals[0])
    seen: list[Tensor] = []
    first = next(m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv1d, nn.Conv2d)))
    first.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    model.train()(x)
    model.eval()(x)
    assert torch.equal(seen[0], seen[1])
    return seen[0]


def test_features_get_mean_zero_and_standard_deviation_one() -> None:
    scales, means = torch.tensor([1e-3, 1.0, 300.0, 1e5]), torch.tensor([0.0, 5.0, -700.0, 2e5])
    got = standardised(nn.Sequential(nn.Linear(4, 2)), normal(64, 4) * scales + means)
    torch.testing.assert_close(got.mean(0), torch.zeros(4), rtol=0, atol=1e-4)  # float32 holds 2e5 to 1 part in 1e7
    torch.testing.assert_close(got.std(0, correction=0), torch.ones(4), rtol=1e-4, atol=0)


def test_channels_of_images_get_mean_zero_and_standard_deviation_one() -> None:
    x = normal(16, 3, 5, 5) * torch.tensor([1.0, 20.0, 300.0]).view(3, 1, 1) + 100
    got = standardised(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(36, 2)), x)
    torch.testing.assert_close(got.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(got.std((0, 2, 3), correction=0), torch.ones(3), rtol=1e-4, atol=0)


def test_features_of_sequences_are_standardised_whatever_the_length() -> None:
    scales = torch.tensor([1.0, 20.0, 300.0])
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2), nn.AdaptiveAvgPool2d((1, 2)), nn.Flatten())
    got = standardised(model, normal(16, 5, 3) * scales + 50)
    torch.testing.assert_close(got.mean((0, 1)), torch.zeros(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(got.std((0, 1), correction=0), torch.ones(3), rtol=1e-4, atol=0)
    assert model(normal(4, 9, 3)).shape == (4, 2)


def test_channels_of_signals_before_a_convolution_are_standardised() -> None:
    x = normal(16, 3, 7) * torch.tensor([1.0, 20.0, 300.0]).view(3, 1) + 50
    got = standardised(nn.Sequential(nn.Conv1d(3, 4, 3), nn.Flatten(), nn.Linear(20, 2)), x)
    torch.testing.assert_close(got.std((0, 2), correction=0), torch.ones(3), rtol=1e-4, atol=0)


def test_a_constant_feature_becomes_zero() -> None:
    x = torch.cat((normal(64, 2) * 50, torch.full((64, 1), 123456.789), torch.zeros(64, 1)), 1)
    got = standardised(nn.Sequential(nn.Linear(4, 2)), x)
    assert torch.equal(got[:, 2:], torch.zeros(64, 2))


def test_features_in_tiny_units_are_scaled_up() -> None:
    got = standardised(nn.Sequential(nn.Linear(3, 2)), normal(64, 3) * 1e-9)
    torch.testing.assert_close(got.std(0, correction=0), torch.ones(3), rtol=1e-4, atol=0)


def test_standardised_inputs_are_not_proposed_again() -> None:
    rig = rig_of(nn.Sequential(nn.Linear(4, 2)), normal(64, 4))
    assert propose("standardize_input", trace_of(rig, next(rig.batches(0)))) == []


def test_the_trace_of_a_standardised_model_shows_what_the_network_gets() -> None:
    model, x = nn.Sequential(nn.Linear(4, 2)), normal(64, 4) * 100 + 30
    rig = rig_of(model, x)
    batch = next(rig.batches(0))
    discovered()["standardize_input"]().apply(rig, propose("standardize_input", trace_of(rig, batch))[0])
    facts = trace_of(rig, batch).facts.inputs
    assert facts is not None
    assert facts["feature_std_max"] == pytest.approx(1.0, rel=1e-4)
    assert facts["feature_mean_abs_max"] == pytest.approx(0.0, abs=1e-5)


# ---------------------------------------------------------------- clipping, rates


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("clip_value", {"clip_value": 1.0}, [0.9, 1.0]),
        ("clip_norm", {"max_norm": 1.0}, [0.00899964, 0.9999595]),  # 0.9 and 100 over 100.00405
    ],
)
def test_clipping_equals_torchs_and_the_textbooks(name: str, options: dict[str, float], expected: list[float]) -> None:
    parameter = nn.Parameter(torch.zeros(2))
    holder = nn.Module()
    holder.register_parameter("p", parameter)
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    discovered()[name]().apply(Rig(holder, optimizer), Proposal(remedy=name, options=options))
    parameter.grad = torch.tensor([0.9, 100.0])
    optimizer.step()
    torch.testing.assert_close(-parameter.detach(), torch.tensor(expected), rtol=1e-6, atol=0)


def test_clipping_leaves_small_gradients_alone() -> None:
    for name, options in (("clip_value", {"clip_value": 1.0}), ("clip_norm", {"max_norm": 1.0})):
        parameter = nn.Parameter(torch.zeros(2))
        optimizer = torch.optim.SGD([parameter], lr=1.0)
        holder = nn.Module()
        holder.register_parameter("p", parameter)
        discovered()[name]().apply(Rig(holder, optimizer), Proposal(remedy=name, options=options))
        parameter.grad = torch.tensor([0.3, -0.4])
        optimizer.step()
        assert torch.equal(parameter.detach(), torch.tensor([-0.3, 0.4]))


Schedule = Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler]
SCHEDULES: dict[str, Schedule] = {
    "LambdaLR": lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda step: 0.9**step),
    "StepLR": lambda o: torch.optim.lr_scheduler.StepLR(o, 2),
    "CosineAnnealingLR": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 8),
    "OneCycleLR": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, max_lr=0.5, total_steps=10),
    "CyclicLR": lambda o: torch.optim.lr_scheduler.CyclicLR(o, base_lr=0.01, max_lr=0.5, step_size_up=3),
    "LinearLR": lambda o: torch.optim.lr_scheduler.LinearLR(o, 0.1, total_iters=4),
    "SequentialLR": lambda o: torch.optim.lr_scheduler.SequentialLR(
        o,
        [torch.optim.lr_scheduler.LinearLR(o, 0.1, total_iters=3), torch.optim.lr_scheduler.LambdaLR(o, lambda step: 0.9**step)],
        milestones=[3],
    ),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_lower_rate_stays_lower_all_along_the_schedule_and_comes_back(schedule: str) -> None:
    def rates(factor: float | None, *, undone: bool = False) -> list[float]:
        model = nn.Linear(2, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
        scheduler = SCHEDULES[schedule](optimizer)
        if factor is not None:
            rig = Rig(model, optimizer, scheduler=scheduler)
            undo = discovered()["lower_rate"]().apply(rig, Proposal(remedy="lower_rate", options={"factor": factor}))
            if undone:
                undo()
        found = []
        for _ in range(8):
            found.append(float(optimizer.param_groups[0]["lr"]))
            optimizer.step()
            scheduler.step()
        return found

    plain = rates(None)
    assert rates(0.1) == pytest.approx([0.1 * r for r in plain], rel=1e-9)
    assert rates(0.1, undone=True) == plain


# ---------------------------------------------------------------- initialize


def test_an_initialisation_depends_on_the_rigs_seed_alone() -> None:
    def weights(seed: int, global_seed: int) -> Tensor:
        model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
        rig = rig_of(model, normal(8, 6), seed=seed)
        with torch.random.fork_rng():
            torch.manual_seed(global_seed)
            apply("initialize", rig)
        weight = model[0].weight
        assert isinstance(weight, Tensor)
        return weight.detach()

    assert torch.equal(weights(3, 0), weights(3, 1))
    assert not torch.equal(weights(3, 0), weights(4, 0))


def test_a_new_initialisation_restores_the_gradient_of_a_network_with_tiny_weights() -> None:
    layers: list[nn.Module] = []
    for _ in range(8):
        linear = nn.Linear(16, 16)
        nn.init.normal_(linear.weight, 0.0, 0.01, generator=torch.Generator().manual_seed(0))
        layers += [linear, nn.Tanh()]
    experiment = Experiment(
        lambda: nn.Sequential(*copy.deepcopy(layers), nn.Linear(16, 2)),
        (normal(32, 16), torch.arange(32) % 2),
        F.cross_entropy,
        lambda m: torch.optim.SGD(m.parameters(), 0.1),
    )
    rig = build(experiment)
    before = measure(rig.model, first_batch(rig), rig.loss_fn).columns["grad_out_norm"][0]
    apply("initialize", rig)
    after = measure(rig.model, first_batch(rig), rig.loss_fn).columns["grad_out_norm"][0]
    assert before[0] / before[-1] < 1e-6
    assert 0.1 < after[0] / after[-1] < 10
