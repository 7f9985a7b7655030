"""Every scheme on every layout of weights gives the moments of its paper, by the fans of the operation."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import evengrad as eg
from evengrad.errors import InputError
from evengrad.recording import trace_of
from evengrad.remedies.initialize import Initialize
from evengrad.rig import Rig
from evengrad.trace.batch import Batch
from evengrad.types import Finding

VARIANCE = {  # name: (scale, fan, fourth moment over squared variance)
    "glorot_normal": (1.0, "avg", 3.0),
    "glorot_uniform": (1.0, "avg", 1.8),
    "he_normal": (2.0, "in", 3.0),
    "he_uniform": (2.0, "in", 1.8),
    "lecun_normal": (1.0, "in", 3.0),
    "lecun_uniform": (1.0, "in", 1.8),
}


class Conv1D(nn.Module):
    """GPT-2's linear layer: a kernel laid out [in, out]."""

    def __init__(self, out: int, inputs: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.zeros(inputs, out)), nn.Parameter(torch.ones(out))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.reshape(-1, x.size(-1)), self.weight).view(*x.shape[:-1], -1)


class Attends(nn.Module):
    """Self-attention with packed projections."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.out = nn.MultiheadAttention(96, 2, batch_first=True), nn.Linear(96, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.attention(x, x, x, need_weights=False)[0])


class CrossAttends(nn.Module):
    """Attention whose keys and values have widths of their own: three weights."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(96, 2, kdim=64, vdim=80, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x[..., :64], x[..., :80], need_weights=False)[0]


class Recurrent(nn.Module):
    """Two levels in both directions."""

    def __init__(self, kind: type[nn.RNNBase], **options: int) -> None:
        super().__init__()
        self.rnn = kind(40, 64, 2, bidirectional=True, batch_first=True, **options)
        self.out = nn.Linear(2 * (options.get("proj_size") or 64), 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x)[0][:, -1])


CASES: dict[str, tuple[nn.Module, tuple[int, ...], dict[str, tuple[float, float]]]] = {  # model, inputs, weight -> (fan_in, fan_out)
    "linear": (nn.Sequential(nn.Linear(200, 120), nn.Tanh()), (2, 200), {"0.weight": (200, 120)}),
    "conv": (nn.Sequential(nn.Conv2d(24, 32, 3), nn.Tanh()), (2, 24, 8, 8), {"0.weight": (24 * 9, 32 * 9)}),
    "grouped": (nn.Sequential(nn.Conv2d(64, 128, 3, groups=4), nn.Tanh()), (2, 64, 8, 8), {"0.weight": (16 * 9, 32 * 9)}),
    "transposed": (
        nn.Sequential(nn.ConvTranspose2d(64, 32, 4, stride=2), nn.Tanh()),
        (2, 64, 8, 8),
        {"0.weight": (64 * 16 / 4, 32 * 16)},
    ),
    "in_out": (nn.Sequential(Conv1D(120, 200), nn.Tanh(), nn.Linear(120, 2)), (2, 200), {"0.weight": (200, 120)}),
    "attention": (Attends(), (2, 5, 96), {"attention.in_proj_weight": (96, 96), "attention.out_proj.weight": (96, 96)}),
    "lstm": (
        Recurrent(nn.LSTM),
        (2, 6, 40),
        {"rnn.weight_ih_l0": (40, 64), "rnn.weight_hh_l0_reverse": (64, 64), "rnn.weight_ih_l1": (128, 64)},
    ),
    "gru": (Recurrent(nn.GRU), (2, 6, 40), {"rnn.weight_ih_l0": (40, 64), "rnn.weight_hh_l1": (64, 64)}),
    "rnn": (Recurrent(nn.RNN), (2, 6, 40), {"rnn.weight_ih_l0_reverse": (40, 64), "rnn.weight_hh_l1": (64, 64)}),
}


def variance_of(scale: float, fan: str, fans: tuple[float, float]) -> float:
    return scale / (fans[0] if fan == "in" else sum(fans) / 2)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("scheme", VARIANCE)
def test_every_scheme_gives_its_variance_on_every_layout(scheme: str, case: str) -> None:
    model, shape, expected = CASES[case]
    eg.initialize_(model, scheme, inputs=torch.zeros(shape), seed=0)
    scale, fan, kurtosis = VARIANCE[scheme]
    for name, fans in expected.items():
        weight = model.get_parameter(name).detach().double()
        target = variance_of(scale, fan, fans)
        error = 5 * math.sqrt((kurtosis - 1) / weight.numel())  # five standard errors of a sample's variance
        assert float(weight.square().mean()) == pytest.approx(target, rel=error), name
        assert abs(float(weight.mean())) < 5 * math.sqrt(target / weight.numel()), name


@pytest.mark.parametrize("distribution", ["normal", "truncated", "uniform"])
@pytest.mark.parametrize("mode", ["fan_in", "fan_out", "fan_avg"])
def test_variance_scaling_is_one_of_the_schemes(mode: str, distribution: str) -> None:
    model = nn.Linear(300, 500)
    eg.initialize_(model, "variance_scaling", scale=2.0, mode=mode, distribution=distribution, seed=0)
    fan = {"fan_in": 300, "fan_out": 500, "fan_avg": 400}[mode]
    assert float(model.weight.detach().double().var()) == pytest.approx(2.0 / fan, rel=5 * math.sqrt(2 / 150_000))


def test_a_scheme_says_which_options_it_takes() -> None:
    with pytest.raises(InputError, match="the initialiser 'variance_scaling' takes scale, mode, distribution; got std"):
        eg.initialize_(nn.Linear(2, 2), "variance_scaling", std=1.0)
    with pytest.raises(InputError, match="the initialiser 'he_normal' takes no option; got low"):
        eg.initialize_(nn.Linear(2, 2), "he_normal", low=1.0)


# ---------------------------------------------------------------- recurrent layers


@pytest.mark.parametrize(("kind", "gates"), [(nn.RNN, 1), (nn.GRU, 3), (nn.LSTM, 4)])
def test_states_are_orthogonal_gate_by_gate_and_forget_gates_begin_open(kind: type[nn.RNNBase], gates: int) -> None:
    model = eg.initialize_(Recurrent(kind), inputs=torch.zeros(2, 6, 40), seed=0)
    for name, parameter in model.named_parameters():
        value = parameter.detach()
        if "weight_hh" in name:
            for block in value.chunk(gates):
                torch.testing.assert_close(block @ block.mT, torch.eye(64), rtol=0, atol=1e-5)  # float32 QR
        elif "weight_ih" in name:
            target = 2 / (value.shape[1] + 64)
            assert float(value.double().square().mean()) == pytest.approx(target, rel=5 * math.sqrt(2 / value.numel()))
        elif "bias" in name and "rnn" in name:
            open_gate = kind is nn.LSTM and "bias_ih" in name
            expected = torch.zeros(gates, 64)
            expected[1 if gates > 1 else 0] += float(open_gate)
            assert torch.equal(value, expected.flatten()), name


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_projections_of_an_lstm_and_cells_are_drawn_too() -> None:
    projected = eg.initialize_(Recurrent(nn.LSTM, proj_size=16), inputs=torch.zeros(2, 6, 40), seed=0)
    weight = projected.get_parameter("rnn.weight_hr_l0").detach()
    assert float(weight.double().square().mean()) == pytest.approx(2 / 80, rel=5 * math.sqrt(2 / weight.numel()))

    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.out = nn.GRUCell(8, 12), nn.Linear(12, 2)

        def forward(self, x: Tensor) -> Tensor:
            h = x.new_zeros(len(x), 12)
            for t in range(x.shape[1]):
                h = self.cell(x[:, t], h)
            return self.out(h)

    cell = eg.initialize_(Steps(), inputs=torch.zeros(2, 3, 8), seed=0).cell
    assert isinstance(cell, nn.GRUCell)
    for block in cell.weight_hh.detach().chunk(3):
        torch.testing.assert_close(block @ block.mT, torch.eye(12), rtol=0, atol=1e-5)
    assert not cell.bias_ih.any()


# ---------------------------------------------------------------- packed, grouped, tied


def test_queries_keys_and_values_are_orthogonal_each() -> None:
    model = eg.initialize_(Attends(), "orthogonal", inputs=torch.zeros(2, 5, 96), seed=0)
    for block in model.get_parameter("attention.in_proj_weight").detach().chunk(3):
        torch.testing.assert_close(block @ block.mT, torch.eye(96), rtol=0, atol=1e-5)

    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c_attn, self.out = Conv1D(36, 12), nn.Linear(12, 2)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.c_attn(x).chunk(3, -1)
            return self.out(torch.softmax(q @ k.mT, -1) @ v)

    kernel = eg.initialize_(Packed(), "orthogonal", inputs=torch.zeros(2, 5, 12), seed=0).get_parameter("c_attn.weight").detach()
    for block in kernel.chunk(3, 1):
        torch.testing.assert_close(block @ block.mT, torch.eye(12), rtol=0, atol=1e-5)


def test_projections_of_their_own_widths_have_their_own_fans() -> None:
    model = eg.initialize_(CrossAttends(), "lecun_normal", inputs=torch.zeros(2, 5, 96), seed=0)
    for name, fan_in in {"q": 96, "k": 64, "v": 80}.items():
        weight = model.get_parameter(f"attention.{name}_proj_weight").detach().double()
        assert float(weight.square().mean()) == pytest.approx(1 / fan_in, rel=5 * math.sqrt(2 / weight.numel()))


@pytest.mark.parametrize("scheme", ["orthogonal", "delta_orthogonal"])
def test_groups_of_a_convolution_are_orthogonal_each(scheme: str) -> None:
    model = eg.initialize_(nn.Sequential(nn.Conv2d(16, 16, 3, groups=4), nn.Tanh()), scheme, inputs=torch.zeros(2, 16, 5, 5), seed=0)
    for block in model.get_parameter("0.weight").detach().flatten(1).chunk(4):
        torch.testing.assert_close(block @ block.mT, torch.eye(4), rtol=0, atol=1e-5)


def test_delta_orthogonal_walks_a_whole_network() -> None:
    model = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(36, 2))
    eg.initialize_(model, "delta_orthogonal", inputs=torch.zeros(2, 8, 5, 5), seed=0)
    first, narrower, linear = (p.detach() for p in model.parameters() if p.dim() > 1)
    assert int((first != 0).flatten(2).any(0).any(0).sum()) == 1
    torch.testing.assert_close(narrower.flatten(1) @ narrower.flatten(1).mT, torch.eye(4), rtol=0, atol=1e-5)
    torch.testing.assert_close(linear @ linear.mT, torch.eye(2), rtol=0, atol=1e-5)


class Tied(nn.Module):
    """An embedding whose weight is the output's, too."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.hidden, self.out = nn.Embedding(500, 64), nn.Linear(64, 64), nn.Linear(64, 500, bias=False)
        self.out.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.hidden(self.embedding(x).mean(1))))


def test_a_tied_weight_is_drawn_once_and_as_the_embeddings() -> None:
    tokens = torch.randint(500, (64, 5), generator=torch.Generator().manual_seed(0))
    model = eg.initialize_(Tied(), inputs=tokens, seed=0)
    weight = model.get_parameter("embedding.weight").detach()
    assert float(weight.double().square().mean()) == pytest.approx(1 / 64, rel=5 * math.sqrt(2 / weight.numel()))
    plans = [p for p in _proposed(model, tokens) if p["weight"] in {"embedding.weight", "out.weight"}]
    assert len(plans) == 1


def test_an_embedding_that_no_output_shares_is_left_alone() -> None:
    model = nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(32, 2))
    before = model.get_parameter("0.weight").detach().clone()
    assert torch.equal(eg.initialize_(model, seed=0).get_parameter("0.weight"), before)


def _proposed(model: nn.Module, x: Tensor) -> list[dict[str, object]]:
    trace = trace_of(Rig(model), Batch(x))
    finding = Finding(code="INI001", symptom="vanishing_gradient", severity="error", message="")
    plans: list[dict[str, object]] = next(iter(Initialize().propose(finding, trace))).options["plans"]
    return plans


def test_initialising_a_recurrent_network_is_a_proposal_with_an_exact_undo() -> None:
    model, x = Recurrent(nn.LSTM), torch.zeros(2, 6, 40)
    rig = Rig(model)
    finding = Finding(code="INI001", symptom="vanishing_gradient", severity="error", message="")
    proposal = next(iter(Initialize().propose(finding, trace_of(rig, Batch(x)))))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    undo = Initialize().apply(rig, proposal)
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == set(before)
    undo()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


# ---------------------------------------------------------------- orthogonal gains


@pytest.mark.parametrize(
    ("act", "gain"), [(nn.ReLU(), 2**0.5), (nn.LeakyReLU(0.2), (2 / 1.04) ** 0.5), (nn.GELU(), 1.5335), (nn.GELU("tanh"), 1.5336)]
)
def test_an_orthogonal_weight_makes_up_for_what_its_activation_cuts(act: nn.Module, gain: float) -> None:
    model = eg.initialize_(nn.Sequential(nn.Linear(32, 32), act, nn.Linear(32, 2)), "orthogonal", seed=0)
    weight = model.get_parameter("0.weight").detach()
    torch.testing.assert_close(weight @ weight.mT, gain**2 * torch.eye(32), rtol=0, atol=3e-4)  # gains as noted to four places


@pytest.mark.parametrize(
    ("activation", "value"),
    [
        *(("tanh", 1.5925), ("sigmoid", 1.8462), ("relu", 1.4142), ("selu", 1.0000), ("elu", 1.2452), ("gelu", 1.5335), ("silu", 1.6765)),
        *(("mish", 1.4868), ("softsign", 2.3375), ("hardtanh", 1.3920), ("softplus", 1.0419), ("erf", 1.4672), ("leaky_relu", 1.4141)),
    ],
)
def test_gains_agree_with_quadrature_by_another_rule(activation: str, value: float) -> None:
    assert eg.gain(activation) == pytest.approx(value, abs=6e-5)


def test_gains_across_kinks_are_exact() -> None:
    assert eg.gain("relu") == pytest.approx(2**0.5, rel=1e-12)
    assert eg.gain("leaky_relu", negative_slope=0.3) == pytest.approx((2 / 1.09) ** 0.5, rel=1e-12)
    assert eg.gain(nn.PReLU(init=0.25)) == pytest.approx((2 / 1.0625) ** 0.5, rel=1e-6)  # in float32
