"""Which networks the names stand for, who trains together, and what the study says of hand-made rows."""

from __future__ import annotations

import math

import pytest

from evengrad.errors import InputError, UnknownNameError
from evengrad.lab.models.recurrent import Recurrent
from evengrad.lab.studies.rnn_lstm import NETWORKS, RnnLstm, parsed, sequences
from evengrad.lab.study import Row, Rows


def row(network: str, length: int, *, learned: bool, seed: int = 0, task: str = "adding", **values: float) -> Row:
    usual = {"learned": float(learned), "sequences": 9600.0 if learned else math.nan, "gradient_ratio": 1.0, "gradient_ratio_end": 1.0}
    arm = {"task": task, "length": length, "network": network}
    return Row(arm, seed, {**usual, "zero_fraction": 0.0, "diverged": 0.0, **values}, {})


def test_names_stand_for_cells_initialisers_and_forget_biases() -> None:
    options, rate = parsed("lstm forget 1 at 0.05")
    assert (options, rate) == ({"cell": "lstm", "forget_bias": 1.0}, 0.05)
    nets = {name: Recurrent(inputs=2, outputs=1, hidden=4, **options) for name, options in NETWORKS.items()}
    hidden = nets["irnn"].build(0).get_parameter("cells.weight_hh_l0")
    assert (hidden.trace().item(), hidden.sum().item()) == (4.0, 4.0)
    assert nets["irnn"].activation == "relu"
    matrix = nets["rnn orthogonal"].build(0).get_parameter("cells.weight_hh_l0")
    assert (matrix @ matrix.T).sub(matrix.new_ones(4).diag()).abs().max().item() < 1e-5


def test_what_no_network_is_called_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="'lstm'"):
        RnnLstm(network=("lstm at 0.1",))
    with pytest.raises(InputError, match=r"such as 'gru at 0.05'; got 'gru'"):
        parsed("gru")
    with pytest.raises(UnknownNameError, match=r"'add'.*adding"):
        RnnLstm(task=("add",))


def test_sequences_have_the_length_that_was_asked_for_and_the_answer_at_the_start() -> None:
    for task, features in (("adding", 2), ("recall", 10)):
        assert sequences(task, 12, 7, 5).x_test.shape == (5, 12, features)
    recall = sequences("recall", 12, 7, 5)
    assert (recall.x_test[:, 0].argmax(1) == recall.y_test).all()


def test_networks_of_one_cell_train_together() -> None:
    study = RnnLstm(task=("adding",), length=(50,), seeds=2)
    groups = [{cell.arm["network"].split(" at")[0] for cell in group} for group in study.groups(study.cells())]
    assert groups == [{"rnn", "rnn orthogonal"}, {"irnn"}, {"lstm forget 0", "lstm forget 1"}, {"gru"}]
    assert [len(group) for group in RnnLstm(task=("adding",), length=(50,), seeds=2, chunk=3).groups(study.cells())] == [3, 1, 2, 3, 1, 2]


def test_a_network_reaches_what_most_of_its_seeds_learn() -> None:
    rows = [row("gru at 0.05", n, learned=seed < most, seed=seed) for n, most in ((50, 3), (100, 2), (200, 1)) for seed in range(3)]
    rows += [row("rnn at 0.001", n, learned=False, seed=seed) for n in (50, 100) for seed in range(3)]
    answer = RnnLstm(length=(50, 100, 200)).answer(Rows(rows))
    assert answer.startswith("adding, within 12,800 sequences: gru at 0.05 over 100 steps; not over 50 steps: rnn at 0.001.")
    assert "recall" not in answer


def test_the_published_number_of_sequences_stands_beside_those_that_learn() -> None:
    network = "lstm forget 0 at 0.05"
    rows = Rows(row(network, 100, learned=seed > 0, seed=seed) for seed in range(4))
    answer = RnnLstm().answer(rows)
    assert "published 74,000 sequences (Hochreiter & Schmidhuber 1997), here a median of 9,600 in 3 of 4 seeds" in answer
    assert "here none learns; not reached by any of 2 seeds" in RnnLstm().answer(
        Rows(row(network, 100, learned=False, seed=s) for s in (0, 1))
    )
    assert "published" not in RnnLstm(steps=50).answer(rows)


def test_learning_is_counted_apart_where_the_first_gradient_vanishes() -> None:
    rows = [
        row("gru at 0.05", 50, learned=True, gradient_ratio=1e-19, gradient_ratio_end=0.5),
        row("rnn at 0.001", 50, learned=False, gradient_ratio=math.nan),
    ]
    rows += [row("irnn at 0.0001", 50, learned=False), row("irnn at 0.0001", 100, learned=True, zero_fraction=0.5)]
    answer = RnnLstm().answer(Rows(rows))
    assert "Of 2 runs in which the first 32nd" in answer
    assert "before training, 1 learn (by then it gets 0.5 of it, median); of the other 2, 1." in answer
    assert "Over 100 steps the gradient there is exactly zero, less than the smallest float, in irnn at 0.0001 (50%)." in answer


def test_who_diverged_is_named() -> None:
    rows = [row("gru at 0.05", 400, learned=False, task="recall", seed=s, diverged=float(s > 0)) for s in range(3)]
    assert RnnLstm().answer(Rows(rows)).endswith("2 runs diverged: gru at 0.05 (recall over 400 steps).")
    assert "diverged" not in RnnLstm().answer(Rows(rows[:1]))


def test_an_epoch_may_be_longer_than_the_usual_number_of_sequences() -> None:
    study = RnnLstm(task=("adding",), length=(2,), network=("rnn at 0.001",), hidden=2, steps=50, batch_size=100, tested=8, seeds=1)
    assert study.compute(study.cells())[0].series["loss"].shape == (2,)


def test_a_run_of_the_study_keeps_what_the_figures_need() -> None:
    study = RnnLstm(task=("adding",), length=(30,), network=("rnn at 0.001",), hidden=4, steps=100, batch_size=4, tested=16, seeds=1)
    (found,) = study.compute(study.cells())
    assert found.values["learned"] == 0.0
    assert math.isnan(found.values["sequences"])
    assert found.series["loss"].shape == (3,)  # before, and after each 50 steps
    start = found.series["gradient_start"]
    assert found.values["gradient_ratio"] == start[0] / start[-1]
    assert found.series["zeros_end"].shape == (30,)
    assert found.values["diverged"] == 0.0
