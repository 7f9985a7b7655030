"""S9: folds cover the samples, a row is the mean over them, early stopping restores the best weights, the answer tells remedies apart."""

import numpy as np
import pytest

from evengrad.errors import InputError
from evengrad.lab.jobs import Trained, run_jobs
from evengrad.lab.studies.regularisation import CURVES, Regularisation, _row, alone, penalties
from evengrad.lab.study import Cell, Row, Rows

PLAIN = {"samples": 100, "dropout": 0.0, "penalty": "none", "early_stopping": False}
SMALL = Regularisation(samples=60, folds=3, width=16, steps=200, patience=2)


def test_penalties_are_l1_then_l2():
    assert [penalties(text) for text in ("none", "l1 0.001", "l2 0.01")] == [(0, 0), (0.001, 0), (0, 0.01)]


@pytest.mark.parametrize("text", ["l2", "l2 much", "l3 0.1", "l1 -1", "none 0.1", ""])
def test_a_penalty_that_cannot_be_read_is_refused(text):
    with pytest.raises(InputError, match=r"l2 0\.01"):
        penalties(text)


def test_each_sample_is_held_out_once_and_trained_on_otherwise():
    jobs = [SMALL.job(PLAIN | {"samples": 60}, 3, fold) for fold in range(3)]
    parts = [job.data.parts(job.data.split(), 3) for job in jobs]
    held = np.concatenate([held for _, held in parts])
    assert len(set(held)) == len(held) == 60
    assert all(set(train) == set(held) - set(own) for train, own in parts)


@pytest.mark.parametrize("samples", [60, 1600])
def test_every_number_of_samples_gets_the_same_steps(samples):
    job = Regularisation(steps=500).job(PLAIN | {"samples": samples}, 0, 0)
    batches = int(np.ceil(0.8 * samples / job.batch_size))
    assert 500 <= job.epochs * batches < 500 + batches


def test_an_arm_holds_what_it_is_called():
    job = SMALL.job(PLAIN | {"dropout": 0.5, "penalty": "l1 0.01", "early_stopping": True}, 0, 0)
    assert (job.net.dropout, job.l1, job.optimizer.weight_decay, job.patience) == (0.5, 0.01, 0, 2)
    job = SMALL.job(PLAIN | {"penalty": "l2 0.01"}, 0, 0)
    assert (job.net.dropout, job.l1, job.optimizer.weight_decay, job.patience) == (0, 0, 0.01, None)


def test_early_stopping_restores_the_weights_that_were_best_on_the_held_out_fold():
    jobs = [SMALL.job(PLAIN | {"samples": 60, "early_stopping": True}, seed, fold) for seed in range(2) for fold in range(3)]
    for trained in run_jobs(jobs):
        at = list(trained.series["steps"]).index(trained.values["stopped_at"])
        assert trained.values["val_loss"] == pytest.approx(trained.series["val_loss"][at], rel=1e-5)  # summed in other parts
        assert trained.series["val_loss"][at] == trained.series["val_loss"][: at + 3].min()  # two more evaluations, none of them better


def test_a_row_is_the_mean_over_folds_and_tells_how_far_off_they_are():
    def fold(train, val, test):
        values = {"train_accuracy": train, "val_accuracy": val, "test_accuracy": test}
        return Trained(job=None, values=values, series={name: np.array([val, 2 * val]) for name in CURVES}, layers=())

    row = _row(Cell(PLAIN, 1), [fold(1.0, 0.9, 0.8), fold(0.9, 0.7, 0.8)])
    assert row.values["gap"] == pytest.approx(0.95 - 0.8)
    assert row.values["folds_error"] == pytest.approx(0.0)
    assert row.values["holdout_error"] == pytest.approx(0.1)
    assert row.series["val_loss"] == pytest.approx([0.8, 1.6])


def row(seed=0, *, test, train=0.95, val=0.9, **arm):
    values = {"train_accuracy": train, "val_accuracy": val, "test_accuracy": test, "gap": train - val, "test_loss": 0.5}
    return Row(PLAIN | arm, seed, values | {"stopped_at": 200.0, "folds_error": 0.02, "holdout_error": 0.05})


def test_the_answer_sets_each_remedy_beside_nothing():
    rows = Rows(
        [row(test=0.80, train=1.0), row(test=0.88, early_stopping=True), row(test=0.86, penalty="l2 0.01"), row(test=0.87, dropout=0.5)]
    )
    rows = Rows([*rows, row(test=0.89, val=0.7, dropout=0.5, early_stopping=True)])
    answer = Regularisation().answer(rows)
    assert "Nothing done: 100.0% on training samples, 90.0% on held-out ones, 80.0% on test points" in answer
    assert (
        "early stopping: 95.0% on training samples, 90.0% on held-out ones, 88.0% on test points (loss 0.5), from step 200 of 2,000."
        in answer
    )
    assert "The best of 5 on test points is dropout 0.5, early stopping" in answer
    assert set(alone(rows)) == {"early stopping", "l2 0.01", "dropout 0.5"}


def test_cross_validation_chooses_by_held_out_accuracy_in_each_seed():
    chosen = [row(seed, test=test, val=val, penalty=p) for seed in (0, 1) for p, test, val in (("none", 0.9, 0.8), ("l2 0.01", 0.8, 0.85))]
    assert "highest mean over folds gets 80.0% on test points" in Regularisation().answer(Rows(chosen))


def test_the_answer_tells_how_the_gap_closes_with_more_samples():
    rows = Rows([row(test=0.85, train=1.0, val=0.8, samples=25), row(test=0.9, train=0.9, val=0.88, samples=1600)])
    said = "Penalty none: from 25 to 1,600 samples the gap falls from 20 to 2 points, test accuracy goes from 85.0% to 90.0%."
    assert said in Regularisation().answer(rows)


def test_a_run_of_one_combination_alone_can_be_told_and_drawn():
    both = Rows([row(test=0.9, dropout=0.5, penalty="l2 0.01")])
    assert "The best of 1" in Regularisation().answer(both)
    assert [draw() for draw in Regularisation().figures(both).values()]
