"""S10: all networks of an arm's depth have as many layers, each seed takes its best rate, the answer tells who trains and who diverges."""

import numpy as np
import pytest

from evengrad.errors import InputError, UnknownNameError
from evengrad.lab.studies.residual_depth import KINDS, ResidualDepth
from evengrad.lab.study import Cell, Row, Rows


@pytest.mark.parametrize("depth", [4, 12])
@pytest.mark.parametrize("network", KINDS)
def test_every_network_of_a_depth_has_as_many_layers_of_one_width(network, depth):
    built = ResidualDepth(width=16).net({"network": network, "depth": depth}).build(0)
    shapes = [tuple(p.shape) for p in built.parameters() if p.dim() > 1]
    assert shapes == [(16, 64), *[(16, 16)] * (depth - 2), (10, 16)]


@pytest.mark.parametrize("depth", [2, 7])
def test_a_depth_that_blocks_of_two_do_not_make_is_refused(depth):
    with pytest.raises(InputError, match="even"):
        ResidualDepth().net({"network": "skip", "depth": depth})


def test_an_unknown_network_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match="rezero"):
        ResidualDepth().net({"network": "re-zero", "depth": 6})


def test_each_seed_stands_at_the_rate_that_was_best_on_its_held_out_samples():
    study = ResidualDepth(width=16, lr=(1e-6, 0.05, 100.0), epochs=2)
    rows = study.compute([Cell({"network": "rezero", "depth": 6}, seed) for seed in (0, 1)])
    assert [row.values["rate"] for row in rows] == [0.05, 0.05]
    assert [row.seed for row in rows] == [0, 1]
    assert not np.array_equal(rows[0].series["grad_abs_mean"], rows[1].series["grad_abs_mean"])


def test_gradients_are_those_of_the_first_batch_from_the_first_layer_to_the_last_hidden_one():
    study = ResidualDepth(width=16, lr=(0.05,), epochs=1)
    plain, fixup = (study.compute([Cell({"network": n, "depth": 6}, 0)])[0] for n in ("plain", "fixup"))
    first = plain.series["grad_abs_mean"][0]
    assert plain.values["first_gradient"] == first[0]
    assert plain.values["gradient_ratio"] == pytest.approx(first[0] / first[4])  # six layers, the last one is the head
    assert fixup.values["first_gradient"] == 0
    assert np.isnan(fixup.values["gradient_ratio"])


def row(network, depth, seed, accuracy, **values):
    values = {
        "train_accuracy": accuracy,
        "test_accuracy": accuracy,
        "diverged": 0.0,
        "first_gradient": 0.1,
        "gradient_ratio": np.nan,
    } | values
    return Row({"network": network, "depth": depth}, seed, values)


def test_the_answer_names_the_depths_at_which_most_seeds_train():
    rows = Rows(
        row("plain", d, seed, a)
        for d, accuracies in {6: (0.95, 0.95, 0.5), 22: (0.95, 0.3, 0.2)}.items()
        for seed, a in enumerate(accuracies)
    )
    assert (
        "plain: trains at 6 layers; at 22 it reaches 30.0% on test samples, its first layer's gradient starts at 0.1 (0.1 at 6)."
        in ResidualDepth().answer(rows)
    )


def test_the_answer_says_who_diverges_and_how_steep_the_gradient_is():
    rows = Rows([row("skip", 6, 0, 0.5), row("skip", 102, 0, 0.0, diverged=1.0, first_gradient=2e5, gradient_ratio=2.0)])
    told = "no depth that was tried; at 102 it diverges under every rate, its first layer's gradient starts at 2e5 (0.1 at 6), 2 times"
    assert told in ResidualDepth().answer(rows)
