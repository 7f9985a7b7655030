"""evengrad.lab.deep: very deep networks trained by hand-written passes are plain networks trained by autograd."""

from __future__ import annotations

import math
from itertools import islice

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evengrad.errors import InputError, UnknownNameError
from evengrad.lab.data import Split
from evengrad.lab.deep import DeepNet, Descent, FixupBlocks, Layers, TanhConv, TanhLinear, centred, train
from evengrad.lab.deep.layers import Params
from evengrad.lab.deep.training import batches, steps_to

KINDS: dict[str, Layers] = {"tanh": TanhLinear(width=12), "conv": TanhConv(channels=6), "fixup": FixupBlocks(width=12)}
DEPTH, INPUTS, CLASSES = 14, 16, 3


def data(samples: int = 40) -> Split:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(samples, INPUTS, generator=generator)
    y = torch.randint(CLASSES, (samples,), generator=generator)
    return Split(name="noise", classes=("a", "b", "c"), x_train=x, y_train=y, x_test=x[:10], y_test=y[:10])


def network(kind: str, *, moved: bool = True, **options: object) -> DeepNet:
    """A small one in float64, whose weights are moved from where they begin, so that none is zero by construction."""
    options = {"dtype": torch.float64, "stretch": 4} | options
    net = DeepNet(KINDS[kind], DEPTH, inputs=INPUTS, outputs=CLASSES, **options)  # type: ignore[arg-type]
    for w in net.parameters.values():
        w.add_(torch.randn(w.shape, generator=torch.Generator().manual_seed(5), dtype=w.dtype), alpha=0.05 * moved)
    return net


def stacked(plain: nn.Sequential, net: DeepNet) -> Params:
    """Gradients of a plain network as a deep one names them: (layers, ...)."""
    each = [[p.grad for p in layer.parameters()] for layer in plain[1:-2]]
    return {name: torch.stack([g[i] for g in each]) for i, name in enumerate(net.parameters)}  # type: ignore[misc]


def batch() -> tuple[Tensor, Tensor]:
    x, y = data().train
    return x[:9].double(), y[:9]


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_gradients_are_autograds_of_the_plain_network(kind: str, recompute: bool) -> None:
    net = network(kind, recompute=recompute)
    x, y = batch()
    net.scale_readout(x)
    plain = net.plain()
    expected = plain(x)
    F.cross_entropy(expected, y).backward()
    found = {name: torch.full_like(w, math.nan) for name, w in net.parameters.items()}

    def visit(part: slice, gradients: Params, states: Tensor, slopes: Tensor) -> None:
        for name, g in gradients.items():
            found[name][part] = g

    logits = net.gradients(x, y, visit)
    torch.testing.assert_close(logits, expected, rtol=1e-12, atol=1e-13)  # float64 rounding over 14 layers
    for name, gradient in stacked(plain, net).items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_those_of_torchs_sgd(kind: str, recompute: bool) -> None:
    net = network(kind, recompute=recompute)
    plain = net.plain()
    optimizer = torch.optim.SGD([p for p in plain.parameters() if p.requires_grad], lr=0.05, momentum=0.9)
    descent = Descent(net, lr=0.05, momentum=0.9)
    x, y = data().x_train.double(), data().y_train
    for index in islice(batches(len(x), 9, seed=2), 8):  # 40 samples: the fifth batch is shorter
        logits, _ = descent.step(x[index], y[index])
        optimizer.zero_grad()
        expected = plain(x[index])
        F.cross_entropy(expected, y[index]).backward()
        optimizer.step()
        torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-11)  # rounding, carried through 8 steps
    torch.testing.assert_close(net.logits(x), plain(x), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_recorded_signals_are_those_of_hooks_on_the_plain_network(kind: str) -> None:
    net = network(kind)
    x, y = batch()
    plain, found = net.plain(), Descent(net, lr=0.0).step(x, y, record=True)[1]
    states: list[Tensor] = []
    slopes: list[Tensor] = []
    for layer in plain[1:-2]:
        layer.register_forward_hook(lambda _module, _inputs, output: states.append(output.detach()))
        output = layer if kind == "fixup" else layer[0]  # type: ignore[index]
        output.register_full_backward_hook(lambda _module, _inputs, outputs: slopes.append(outputs[0]))
    F.cross_entropy(plain(x.clone().requires_grad_()), y).backward()
    weights = [torch.cat([p.grad.flatten() for p in layer.parameters()]) for layer in plain[1:-2]]  # type: ignore[union-attr]
    expected = {
        "out_rms": [h.square().mean().sqrt() for h in states],
        "out_spread": [h.var(0, correction=0).mean().sqrt() for h in states],
        "grad_out_norm": [g.flatten(1).norm(dim=1).mean() for g in reversed(slopes)],
        "grad_rms": [g.square().mean().sqrt() for g in weights],
    }
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], torch.stack(values).numpy(), rtol=1e-10, err_msg=name)


def test_a_fixup_network_begins_as_its_encoder() -> None:
    net = network("fixup", moved=False)
    x, _ = batch()
    assert torch.equal(net.logits(x), net.plain()[-1](net.plain()[0](x)))


@pytest.mark.parametrize("kind", KINDS)
def test_the_encoder_keeps_the_rms_and_the_readout_gives_logits_of_rms_one(kind: str) -> None:
    net = network(kind)
    x = torch.eye(INPUTS, dtype=torch.float64)
    encoded = net.plain()[0](x)
    # as many features or fewer: each unit keeps its own scale; more: the norm grows with the root of their number
    assert encoded.square().mean().item() == pytest.approx(x.square().mean().item(), rel=1e-6)
    net.scale_readout(x)
    assert net.logits(x).square().mean().item() == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_named_by_the_seed_and_touch_no_global_generator(kind: str) -> None:
    before = torch.get_rng_state()
    first, again, other = (DeepNet(KINDS[kind], DEPTH, inputs=INPUTS, outputs=CLASSES, seed=seed).parameters for seed in (0, 0, 1))
    assert all(torch.equal(w, again[name]) for name, w in first.items())
    assert not torch.equal(next(iter(first.values())), next(iter(other.values())))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_isometric_kinds_begin_isometric() -> None:
    w = DeepNet(KINDS["tanh"], DEPTH, inputs=INPUTS, outputs=CLASSES).parameters["weight"]
    torch.testing.assert_close(w @ w.mT, torch.eye(12).expand(DEPTH, 12, 12), rtol=0, atol=1e-5)  # float32
    w = DeepNet(KINDS["conv"], DEPTH, inputs=INPUTS, outputs=CLASSES).parameters["weight"]
    middle = w[..., 1, 1]
    torch.testing.assert_close(middle @ middle.mT, torch.eye(6).expand(DEPTH, 6, 6), rtol=0, atol=1e-5)
    assert int((w != 0).sum()) == middle.numel()


def test_the_default_scheme_is_torchs_own_distribution() -> None:
    w = DeepNet(TanhLinear(width=100, scheme="default"), 10, inputs=INPUTS, outputs=CLASSES).parameters["weight"]
    assert w.abs().max().item() == pytest.approx(0.1, rel=1e-3)  # U(+-1/sqrt(fan_in)), 100,000 draws
    assert w.std().item() == pytest.approx(0.1 / 3**0.5, rel=0.01)


def test_training_twice_gives_the_same_bits_and_holding_states_or_not_the_same_numbers() -> None:
    def run(recompute: bool) -> list[float]:
        net = DeepNet(KINDS["tanh"], DEPTH, inputs=INPUTS, outputs=CLASSES, stretch=4, recompute=recompute)
        return train(net, data(), lr=0.05, batch_size=9, steps=8).losses.tolist()

    assert run(False) == run(False) == run(True)


def test_training_learns_what_it_can() -> None:
    easy = data()
    easy = Split(**(vars(easy) | {"y_train": easy.x_train[:, :3].argmax(1), "y_test": easy.x_test[:, :3].argmax(1)}))
    net = DeepNet(KINDS["tanh"], DEPTH, inputs=INPUTS, outputs=CLASSES)
    run = train(net, easy, lr=0.03, batch_size=10, steps=40, record=(0, 39))
    assert run.train_accuracy >= 0.9
    assert run.steps_to_target < 40
    assert run.recorded == (0, 39)
    assert {name: s.shape for name, s in run.signals.items()} == dict.fromkeys(run.signals, (2, DEPTH))


def test_training_stops_where_the_loss_is_not_finite_and_such_answers_are_wrong() -> None:
    net = DeepNet(KINDS["fixup"], DEPTH, inputs=INPUTS, outputs=CLASSES)
    run = train(net, data(), lr=1e20, batch_size=9, steps=10)
    assert len(run.losses) < 10
    assert math.isnan(run.steps_to_target)
    assert run.train_accuracy == run.test_accuracy == 0


def test_a_signal_below_the_square_root_of_the_smallest_number_is_still_seen() -> None:
    net = DeepNet(TanhLinear(width=12, gain=1e-3), DEPTH - 2, inputs=INPUTS, outputs=CLASSES)
    signals = train(net, data(), lr=0.0, batch_size=9, steps=1).signals
    assert 1e-37 < signals["out_rms"][0, -1] < 1e-35  # its square is 1e-72
    assert np.diff(np.log10(signals["out_rms"][0])) == pytest.approx(np.full(DEPTH - 3, -3), abs=0.05)  # a thousandth a layer


def test_a_readout_is_scaled_for_the_faintest_signal_and_left_where_none_arrives() -> None:
    x = data().x_train
    faint = DeepNet(TanhLinear(width=12, gain=1e-3), 10, inputs=INPUTS, outputs=CLASSES)
    faint.scale_readout(x)
    assert faint.logits(x).square().mean().item() == pytest.approx(1, rel=1e-5)  # float32
    dead = DeepNet(TanhLinear(width=12, gain=1e-3), 20, inputs=INPUTS, outputs=CLASSES)
    dead.scale_readout(x)
    assert (dead.logits(x) == 0).all()


def test_states_of_few_layers_are_held_when_they_are_computed_twice() -> None:
    held = []
    for recompute in (False, True):
        net = DeepNet(KINDS["tanh"], 100, inputs=INPUTS, outputs=CLASSES, stretch=10, recompute=recompute)
        net.logits(torch.zeros(5, INPUTS))
        held.append(net.held_bytes // (5 * 12 * 4))
    assert held == [101, 11 + 10]


def test_steps_to_a_target_are_counted_by_the_mean_of_five_batches() -> None:
    assert steps_to([0.5, 1, 1, 1, 0.9, 1, 1], 0.9) == 6
    assert math.isnan(steps_to([1, 1, 1, 1], 0.9))
    assert math.isnan(steps_to([0.8] * 9, 0.9))


def test_an_epoch_shows_every_sample_once_and_the_next_in_another_order() -> None:
    order = list(islice(batches(20, 6, seed=3), 8))
    assert [len(b) for b in order] == [6, 6, 6, 2] * 2
    first, second = torch.cat(order[:4]), torch.cat(order[4:])
    assert first.sort().values.tolist() == second.sort().values.tolist() == [*range(20)]
    assert not torch.equal(first, second)


def test_centred_data_have_mean_zero_and_rms_one_and_the_test_set_is_moved_alike() -> None:
    raw = data()
    done = centred(raw)
    assert done.x_train.mean(0).abs().max() < 1e-6  # float32
    assert done.x_train.square().mean().item() == pytest.approx(1, rel=1e-5)
    torch.testing.assert_close(done.x_test, done.x_train[:10])  # the test samples here are the first ten to train on


def test_a_depth_that_blocks_cannot_make_is_refused() -> None:
    with pytest.raises(InputError, match="of 2 weight layer"):
        DeepNet(FixupBlocks(), 7, inputs=INPUTS, outputs=CLASSES)
    with pytest.raises(InputError, match="square images"):
        DeepNet(TanhConv(), 7, inputs=15, outputs=CLASSES)
    with pytest.raises(UnknownNameError, match="Did you mean 'orthogonal'"):
        DeepNet(TanhLinear(scheme="ortogonal"), 7, inputs=INPUTS, outputs=CLASSES)
