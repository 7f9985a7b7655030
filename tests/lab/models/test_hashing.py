"""Random numbers that are a hash: as good as drawn ones, and the same whatever runs beside."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from evengrad.errors import InputError
from evengrad.lab.models.hashing import HashAlphaDropout, HashDropout, HashRReLU, Keyed, mix, set_step

N = 2**20


def bits(seed: int, step: int, layer: int = 0, n: int = N) -> Tensor:
    """Uniform int16 of one layer of a network, as float64 with deviation 1."""
    layers = nn.ModuleList(Keyed() for _ in range(layer + 1))
    set_step(layers, seed, step)
    return layers[layer].bits(torch.empty(n)).double().add(0.5).div(2**16 / 12**0.5)


def test_mixing_is_splitmix64() -> None:
    golden = 0x9E3779B97F4A7C15
    states = [(1234567 + golden * i) % 2**64 for i in range(1, 6)]
    mixed = mix(torch.tensor([s - 2**64 if s >= 2**63 else s for s in states]))
    # the published first five numbers of the reference implementation from the seed 1234567
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    assert [int(v) % 2**64 for v in mixed] == expected


@pytest.mark.parametrize("lane", range(4))
def test_each_lane_is_uniform(lane: int) -> None:
    keyed = Keyed()
    set_step(keyed, 0, 0)
    drawn = keyed.bits(torch.empty(4 * N))[lane::4].to(torch.int32) + 2**15
    for part in (drawn >> 8, drawn & 255):
        counts = part.bincount(minlength=256).double()
        chi_squared = float(((counts - N / 256).square() / (N / 256)).sum())
        assert abs(chi_squared - 255) < 5 * math.sqrt(2 * 255)  # five sigma


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (bits(0, 0)[:-1], bits(0, 0)[1:]),  # the next element, in the same word or the next
        (bits(0, 0)[:-4], bits(0, 0)[4:]),
        (bits(0, 0)[:-64], bits(0, 0)[64:]),
        (bits(0, 0)[: N // 2], bits(0, 0)[N // 2 :]),
        (bits(0, 0), bits(0, 1)),
        (bits(0, 0), bits(1, 0)),
        (bits(0, 1), bits(1, 0)),
        (bits(3, 7, 0), bits(3, 7, 1)),
        (bits(0, 1, 0), bits(0, 0, 1)),
        (bits(-1, 0), bits(2**40, 10**6)),
    ],
)
def test_neighbours_steps_seeds_and_layers_are_uncorrelated(one: Tensor, other: Tensor) -> None:
    bound = 5 / math.sqrt(len(one))  # five sigma
    assert abs(float((one * other).mean())) < bound
    assert abs(float(((one.abs() - 3**0.5 / 2) * (other.abs() - 3**0.5 / 2)).mean())) < bound / 4  # the deviation of |u| is 1/2


def test_one_network_and_the_same_among_many_get_the_same_numbers() -> None:
    x = torch.empty(3, 5, 7)  # 35 elements: the last word is cut
    many, one = Keyed(), Keyed()
    many.key = torch.zeros(3, dtype=torch.int64)
    set_step(many, torch.tensor([4, 5, 6]), 2)
    set_step(one, 5, 2)
    assert torch.equal(many.bits(x)[1], one.bits(x[1]))
    assert torch.equal(one.bits(x[1, :2]), one.bits(x[1])[:2])  # a smaller batch sees the same first samples


if torch.cuda.is_available():  # a skipped test fails continuous integration, which has no GPU

    def test_the_gpu_gives_the_same_bits() -> None:
        here, there = Keyed(), Keyed().cuda()
        for keyed in (here, there):
            set_step(keyed, 5, 2)
        assert torch.equal(here.bits(torch.empty(1001)), there.bits(torch.empty(1001, device="cuda")).cpu())


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9])
def test_dropout_keeps_a_share_and_scales_it_so_that_the_expectation_stays(p: float) -> None:
    dropout = HashDropout(p)
    set_step(dropout, 0, 0)
    y = dropout(torch.ones(N))
    kept = (y != 0).double().mean().item()
    assert kept == pytest.approx(1 - p, abs=5 * math.sqrt(p * (1 - p) / N) + 2**-17)  # five sigma, and p is rounded to 2^-16
    assert y.double().mean().item() == pytest.approx(1, abs=5 * math.sqrt(p / (1 - p) / N) + 1e-7)
    assert y.unique().tolist() == pytest.approx([0.0, 1 / (1 - p)] if p else [1.0], rel=1e-4)


def test_over_steps_each_element_is_dropped_as_often() -> None:
    dropout, kept, steps = HashDropout(0.3), torch.zeros(200), 2000
    for step in range(steps):
        set_step(dropout, 1, step)
        kept += dropout(torch.ones(200)) != 0
    assert (kept / steps - 0.7).abs().max() < 5 * math.sqrt(0.3 * 0.7 / steps)  # five sigma


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_alpha_dropout_keeps_mean_and_variance(p: float) -> None:
    dropout = HashAlphaDropout(p)
    set_step(dropout, 0, 0)
    y = dropout(torch.selu(torch.randn(N, generator=torch.Generator().manual_seed(0), dtype=torch.float64)))
    assert y.mean().item() == pytest.approx(0, abs=5e-3)  # five sigma
    assert y.var().item() == pytest.approx(1, abs=1e-2)


def test_alpha_dropout_maps_values_as_torchs_does() -> None:
    x = torch.linspace(0, 3, 50, dtype=torch.float64)  # above what dropped elements become
    ours, theirs = HashAlphaDropout(0.25), nn.AlphaDropout(0.25)
    set_step(ours, 0, 0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        expected = theirs(x)
    found = ours(x)
    for same in ((found == found.min()) & (expected == expected.min()), (found > found.min()) & (expected > expected.min())):
        assert same.any()
        torch.testing.assert_close(found[same], expected[same])


def test_random_slopes_are_uniform_in_training_and_their_mean_in_evaluation() -> None:
    rrelu = HashRReLU(0.1, 0.3)
    set_step(rrelu, 0, 0)
    slopes = -rrelu(-torch.ones(N, dtype=torch.float64))
    assert 0.1 < slopes.min() < 0.1001
    assert 0.2999 < slopes.max() < 0.3
    assert slopes.mean().item() == pytest.approx(0.2, abs=5 * 0.2 / math.sqrt(12 * N))  # five sigma
    assert torch.equal(rrelu(torch.ones(9)), torch.ones(9))
    assert rrelu.eval()(torch.tensor([-2.0, 2.0])).tolist() == pytest.approx([-0.4, 2.0])


@pytest.mark.parametrize("module", [HashDropout(0.5), HashAlphaDropout(0.5)])
def test_evaluation_changes_nothing(module: nn.Module) -> None:
    x = torch.randn(100, generator=torch.Generator().manual_seed(0))
    assert torch.equal(module.eval()(x), x)


def test_a_step_that_is_set_leaves_torchs_generator_alone() -> None:
    dropout, before = HashDropout(0.5), torch.get_rng_state()
    set_step(dropout, 0, 0)
    first = dropout(torch.ones(100))
    assert torch.equal(first, dropout(torch.ones(100)))
    assert torch.equal(before, torch.get_rng_state())


def test_in_any_other_training_loop_masks_come_from_torchs_generator() -> None:
    dropout = HashDropout(0.5)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first, second = dropout(torch.ones(100)), dropout(torch.ones(100))
        torch.manual_seed(0)
        again = dropout(torch.ones(100))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_gradients_pass_where_elements_stay() -> None:
    dropout, x = HashDropout(0.5), torch.ones(100, requires_grad=True)
    set_step(dropout, 0, 0)
    dropout(x).sum().backward()
    assert torch.equal(x.grad, dropout.noise(x))


@pytest.mark.parametrize("p", [-0.1, 1.0, math.nan])
def test_a_rate_that_is_no_probability_is_refused(p: float) -> None:
    with pytest.raises(InputError, match=r"a probability in \[0, 1\)"):
        HashDropout(p)


def test_a_seed_for_each_run_is_asked_for() -> None:
    with pytest.raises(InputError, match=r"shape \(\); got shape \(2,\)"):
        set_step(HashDropout(0.5), torch.arange(2), 0)
