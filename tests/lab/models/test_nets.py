"""Networks as plain data: what they are made of, what they start from, what they refuse."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evengrad.errors import InputError, UnknownNameError
from evengrad.lab.models import CNN, MLP, Net, Recurrent, ResidualCNN, ResidualMLP, Transformer, mlp

NETS: list[Net] = [
    MLP(inputs=(1, 3, 3), outputs=2, widths=(5, 4)),
    CNN(inputs=(1, 8, 8), outputs=3, channels=(3, 4), dense=6),
    ResidualMLP(inputs=3, outputs=2),
    ResidualCNN(inputs=(1, 8, 8), outputs=3, channels=(4, 6)),
    Recurrent(inputs=3, outputs=2),
    Transformer(inputs=3, outputs=2, length=5),
]
each_net = pytest.mark.parametrize("net", NETS, ids=[net.kind for net in NETS])


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@each_net
def test_a_seed_names_the_weights_and_the_global_generator_is_left_alone(net: Net) -> None:
    before = torch.get_rng_state()
    first, again, other = (torch.cat([p.flatten() for p in net.build(seed).parameters()]) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


@each_net
def test_the_description_is_json_and_makes_the_same_network(net: Net) -> None:
    description = json.loads(json.dumps(net.describe()))
    kind = description.pop("kind")
    assert kind == net.kind
    assert type(net)(**description) == net
    assert description == {k: v for k, v in net.describe().items() if k != "kind"}


@each_net
def test_the_shape_ignores_what_only_changes_numbers(net: Net) -> None:
    assert net.shape() == replace(net, initialiser="glorot_normal", init_scale=0.5).shape()  # type: ignore[call-arg]
    assert net.shape() != replace(net, outputs=9).shape()  # type: ignore[call-arg]
    assert isinstance(hash(net.shape()), int)


def test_rates_of_dropout_may_differ_among_runs_but_not_from_none() -> None:
    net = MLP(inputs=3, outputs=2, dropout=0.1)
    assert net.shape() == replace(net, dropout=0.5).shape() != replace(net, dropout=0.0).shape()
    images = CNN(inputs=(1, 8, 8), outputs=2, dropouts=(0.1, 0.5))
    assert images.shape() == replace(images, dropouts=(0.3, 0.2)).shape() != replace(images, dropouts=(0.3, 0.0)).shape()


def test_an_mlp_is_the_sequential_that_mlp_draws() -> None:
    net = MLP(inputs=3, outputs=2, depth=2, width=5, activation="tanh", initialiser="he_normal", norm="batch")
    ours, theirs = net.build(4), mlp([3, 5, 5, 2], "tanh", "he_normal", norm="batch", seed=4)
    assert repr(ours) == repr(theirs)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=0, atol=0)


def test_depth_0_is_regression() -> None:
    assert [type(m) for m in MLP(inputs=3, outputs=1, depth=0).build(0)] == [nn.Linear]


def test_norm_stands_before_or_after_the_activation_without_a_useless_bias() -> None:
    def kinds(**options: Any) -> list[str]:
        return [type(m).__name__ for m in MLP(inputs=3, outputs=2, norm="batch", dropout=0.5, **options).build(0)]

    assert kinds() == ["Linear", "BatchNorm1d", "ReLU", "HashDropout", "Linear"]
    assert kinds(norm_at="after", activation="selu") == ["Linear", "SELU", "BatchNorm1d", "HashAlphaDropout", "Linear"]
    network = MLP(inputs=3, outputs=2, norm="batch", bias=False).build(0)
    assert network[0].bias is None
    assert network[-1].bias is not None


def test_three_batch_norms_have_4736_numbers_of_which_2368_are_moving_averages() -> None:
    # 784-300-100-10 with a norm on the inputs and behind each hidden layer: 4 vectors each, 3,136 + 1,200 + 400
    network = MLP(inputs=784, outputs=10, widths=(300, 100), norm="batch", norm_inputs=True).build(0)
    norms = [m for m in network if isinstance(m, nn.BatchNorm1d)]
    learned = [sum(p.numel() for p in m.parameters()) for m in norms]
    moving = [m.running_mean.numel() + m.running_var.numel() for m in norms]
    assert [a + b for a, b in zip(learned, moving, strict=True)] == [3136, 1200, 400]
    assert sum(moving) == 2368


def test_a_residual_mlp_adds_the_input_of_each_layer_that_keeps_the_width() -> None:
    network = MLP(inputs=3, outputs=2, widths=(5, 5, 4), residual=True).build(0)
    assert [type(m).__name__ for m in network] == ["Linear", "ReLU", "Skip", "Linear", "ReLU", "Linear"]
    h = numbers(6, 5)
    torch.testing.assert_close(network[2](h), h + torch.relu(network[2].branch[0](h)))


def test_the_cnn_is_kerass_first_example() -> None:
    network = CNN(inputs=(1, 28, 28), outputs=10).build(0)
    names = "Conv2d ReLU Conv2d ReLU MaxPool2d HashDropout Flatten Linear ReLU HashDropout Linear"
    assert [type(m).__name__ for m in network] == names.split()
    assert count(network) == 1_199_882
    assert network(numbers(2, 1, 28, 28)).shape == (2, 10)


@pytest.mark.parametrize("pool", ["max", "mean", "global", "none"])
@pytest.mark.parametrize("padding", ["valid", "same", "circular"])
@pytest.mark.parametrize("strides", [0, 1, 2])
def test_every_cnn_knows_what_its_head_sees(pool: str, padding: str, strides: int) -> None:
    net = CNN(inputs=(2, 17, 14), outputs=3, channels=(3, 4), dense=5, pool=pool, padding=padding, strides=strides)
    assert net.build(0)(numbers(2, 2, 17, 14)).shape == (2, 3)


def test_the_residual_cnn_has_the_20_layers_of_the_small_image_network() -> None:
    network = ResidualCNN(inputs=(3, 32, 32), outputs=10, norm="batch", bias=False).build(0)
    straight = [m for name, m in network.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear)) and "shortcut" not in name]
    assert len(straight) == 20
    assert count(network) == pytest.approx(270_000, rel=0.02)  # "0.27M", He et al. 2015b, table 6
    assert network(numbers(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("kind", [ResidualMLP(inputs=3, outputs=2), ResidualCNN(inputs=(1, 8, 8), outputs=2, channels=(4, 6))])
def test_rezero_starts_as_if_there_were_no_branches(kind: ResidualMLP | ResidualCNN) -> None:
    network = replace(kind, branch="rezero").build(0)
    skips = [m for m in network if hasattr(m, "branch")]
    assert len(skips) == kind.blocks * len(getattr(kind, "channels", (1,)))
    assert all(m.branch[-1].alpha.item() == 0 for m in skips)
    h = numbers(4, 32)
    if isinstance(kind, ResidualMLP):
        assert all(torch.equal(m(h), h) for m in skips)


def test_fixup_follows_its_three_rules() -> None:
    blocks, width = 9, 200
    network = ResidualMLP(inputs=3, outputs=2, blocks=blocks, width=width, branch="fixup").build(0)
    plain = ResidualMLP(inputs=3, outputs=2, blocks=blocks, width=width).build(0)
    branches = [[m for m in skip.branch if isinstance(m, nn.Linear)] for skip in network[1 : blocks + 1]]
    usual = [[m for m in skip.branch if isinstance(m, nn.Linear)] for skip in plain[1 : blocks + 1]]
    assert not network[-1].weight.any()  # 1: the head and each branch's last layer are zero
    assert not network[-1].bias.any()
    for (first, last), (drawn, _) in zip(branches, usual, strict=True):
        assert not last.weight.any()
        torch.testing.assert_close(first.weight, drawn.weight * blocks**-0.5)  # 2: L^(-1 / (2m - 2)), m = 2
        assert first.bias is last.bias is None
    names = [type(m).__name__ for m in network[1].branch]  # 3: a multiplier, and a bias before each layer and activation
    assert names == ["Shift", "ReLU", "Shift", "Linear"] * 2 + ["Scale"]
    assert [p.item() for p in network[1].branch.parameters() if p.dim() == 0] == [0, 0, 0, 0, 1]


def test_fixups_first_step_does_not_grow_with_depth() -> None:
    def change(blocks: int, branch: str) -> float:
        network = ResidualMLP(inputs=16, outputs=2, blocks=blocks, width=64, branch=branch, initialiser="he_normal").build(0)
        x = numbers(64, 16)
        for _ in range(3):
            before = network(x)
            network.zero_grad()
            nn.functional.cross_entropy(before, (x[:, 0] > 0).long()).backward()
            with torch.no_grad():
                for p in network.parameters():
                    p.sub_(0.1 * p.grad)
        return (network(x) - before).abs().mean().item()

    assert change(64, "fixup") < 3 * change(4, "fixup")
    assert not change(64, "plain") < 1e3 * change(4, "plain")  # NaN counts


@pytest.mark.parametrize(("cell", "kind"), [("rnn", nn.RNN), ("lstm", nn.LSTM), ("gru", nn.GRU)])
def test_default_recurrent_weights_are_torchs_own_draw(cell: str, kind: type[nn.RNNBase]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        expected = kind(4, 5, 2, batch_first=True)
    ours = Recurrent(inputs=4, outputs=2, hidden=5, levels=2, cell=cell).build(3).cells
    torch.testing.assert_close(ours.state_dict(), expected.state_dict(), rtol=0, atol=0)


def test_irnn_starts_as_a_sum_over_time() -> None:
    network = Recurrent(inputs=3, outputs=1, hidden=6, cell="rnn", activation="relu", initialiser="irnn").build(0)
    assert torch.equal(network.cells.weight_hh_l0, torch.eye(6))
    assert network.cells.weight_ih_l0.std().item() == pytest.approx(0.001, rel=0.6)  # 18 numbers
    assert not network.cells.bias_ih_l0.any()
    x = numbers(2, 50, 3).abs()
    z = (x @ network.cells.weight_ih_l0.mT).relu()
    steady = network.cells.weight_ih_l0.min(1).values > 0  # units that never fall to 0
    torch.testing.assert_close(network.cells(x)[0][:, -1][:, steady], z.sum(1)[:, steady])


def test_the_forget_gate_alone_gets_its_bias() -> None:
    for initialiser in ("default", "orthogonal"):
        cells = Recurrent(inputs=3, outputs=1, hidden=5, levels=2, forget_bias=2.0, initialiser=initialiser).build(0).cells
        without = Recurrent(inputs=3, outputs=1, hidden=5, levels=2, initialiser=initialiser).build(0).cells
        for level in (0, 1):
            ours, theirs = (getattr(c, f"bias_ih_l{level}") + getattr(c, f"bias_hh_l{level}") for c in (cells, without))
            assert ours[5:10].tolist() == [2.0] * 5
            assert torch.equal(ours[:5], theirs[:5])
            assert torch.equal(ours[10:], theirs[10:])


def test_each_gate_of_a_recurrent_level_is_orthogonal_and_scaled() -> None:
    cells = Recurrent(inputs=5, outputs=1, hidden=5, cell="gru", initialiser="orthogonal", init_scale=1.2).build(0).cells
    for gate in cells.weight_hh_l0.chunk(3):
        torch.testing.assert_close(gate @ gate.mT, 1.44 * torch.eye(5), rtol=0, atol=1e-5)


def test_only_a_causal_transformer_is_blind_to_what_comes_later() -> None:
    x = numbers(2, 6, 3)
    later = x.clone()
    later[:, 4:] += 1
    for causal in (True, False):
        network = Transformer(inputs=3, outputs=2, length=6, causal=causal).build(0)
        h, other = (network[:-3](v) for v in (x, later))  # without norm, pool and head
        assert torch.allclose(h[:, :4], other[:, :4], atol=1e-6) == causal


def test_attention_is_torchs_with_the_same_weights() -> None:
    attention = Transformer(inputs=3, outputs=2, length=6, width=8, heads=2).build(0)[2].branch[1]
    theirs = nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([attention.query.weight, attention.key.weight, attention.value.weight]))
        theirs.out_proj.weight.copy_(attention.out.weight)
        theirs.in_proj_bias.zero_()
        theirs.out_proj.bias.zero_()
    h = numbers(2, 6, 8)
    torch.testing.assert_close(attention(h), theirs(h, h, h)[0], rtol=1e-5, atol=1e-6)  # float32


def test_norm_stands_before_a_branch_or_behind_its_skip() -> None:
    pre, post = (
        [type(m).__name__ for m in Transformer(inputs=3, outputs=2, length=6, depth=1, norm_at=at).build(0)] for at in ("pre", "post")
    )
    assert pre == ["Linear", "Positions", "Skip", "Skip", "LayerNorm", "Mean", "Linear"]
    assert post == ["Linear", "Positions", "Skip", "LayerNorm", "Skip", "LayerNorm", "Mean", "Linear"]


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (MLP, {"inputs": 0, "outputs": 2}, "MLP.inputs must be a whole number of at least 1; got 0"),
        (MLP, {"inputs": 2, "outputs": 2, "depth": -1}, "MLP.depth must be a whole number of at least 0"),
        (MLP, {"inputs": 2, "outputs": 2, "widths": (3, 0)}, "MLP.widths must be"),
        (MLP, {"inputs": 2, "outputs": 2, "dropout": 1.0}, "dropout's p is a probability"),
        (CNN, {"inputs": (1, 8), "outputs": 2}, "channels, height, width"),
        (CNN, {"inputs": (1, 4, 4), "outputs": 2, "channels": (2, 2)}, "leave nothing of an image of 4 x 4"),
        (ResidualCNN, {"inputs": (1, 8), "outputs": 2}, "channels, height, width"),
        (ResidualMLP, {"inputs": 2, "outputs": 2, "blocks": 0}, "ResidualMLP.blocks must be"),
        (Recurrent, {"inputs": 2, "outputs": 2, "initialiser": "irnn"}, "irnn initialises a plain rnn; got the cell 'lstm'"),
        (Recurrent, {"inputs": 2, "outputs": 2, "cell": "gru", "forget_bias": 1.0}, "only an lstm has a forget bias"),
        (Transformer, {"outputs": 2, "length": 5}, "either inputs .* or a vocabulary"),
        (Transformer, {"inputs": 2, "outputs": 2, "length": 5, "width": 10, "heads": 4}, "multiple of their number; got 10 and 4"),
    ],
)
def test_sizes_that_make_no_network_are_refused(kind: type[Net], options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        kind(**options)


@pytest.mark.parametrize(
    ("kind", "options", "hint"),
    [
        (MLP, {"norm_at": "befor"}, "before"),
        (MLP, {"norm": "bach"}, "batch"),
        (CNN, {"inputs": (1, 8, 8), "pool": "maxx"}, "max"),
        (ResidualMLP, {"branch": "fix_up"}, "fixup"),
        (Recurrent, {"cell": "lst"}, "lstm"),
        (Transformer, {"length": 4, "norm_at": "before"}, None),
    ],
)
def test_an_unknown_choice_offers_the_nearest(kind: type[Net], options: dict[str, Any], hint: str | None) -> None:
    with pytest.raises(UnknownNameError, match=f"Did you mean '{hint}'" if hint else "Known: post, pre"):
        kind(**({"inputs": 4, "outputs": 2} | options))


def test_a_width_for_each_layer_sets_the_depth() -> None:
    assert MLP(inputs=2, outputs=2, widths=[4, 3, 2]).depth == 3  # type: ignore[arg-type]  # a list, as JSON has it
    assert count(MLP(inputs=2, outputs=2, widths=(4,)).build(0)) == 22
