"""S8: rates follow the batch size by rule, every run gets its passes and its steps, and the answer says up to where larger batches pay."""

import numpy as np
import pytest

from evengrad.errors import UnknownNameError
from evengrad.lab.studies.batch_size import BatchSize
from evengrad.lab.study import Cell, Row, Rows


def test_rates_grow_with_the_batch_as_the_rule_says_and_meet_at_32():
    study = BatchSize(lr=0.1)
    rates = {
        rule: [study.job({"rule": rule, "batch_size": n}, 0).optimizer.lr for n in (8, 32, 128)] for rule in ("fixed", "sqrt", "linear")
    }
    assert rates["fixed"] == [0.1, 0.1, 0.1]
    assert rates["sqrt"] == pytest.approx([0.05, 0.1, 0.2])
    assert rates["linear"] == pytest.approx([0.025, 0.1, 0.4])


def test_an_unknown_rule_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match="linear"):
        BatchSize().job({"rule": "lineal", "batch_size": 8}, 0)


@pytest.mark.parametrize("size", [1, 32, 1024])
def test_every_run_gets_its_passes_and_its_steps(size):
    study = BatchSize(epochs=30, steps=1000)
    job = study.job({"rule": "fixed", "batch_size": size}, 0)
    train, held = job.data.parts(job.data.split(), 0)
    assert (len(train), len(held)) == (1024, 256)
    assert job.epochs >= 30
    assert job.epochs * 1024 / size >= 1000
    assert job.epochs == 30 or (job.epochs - 1) * 1024 / size < 1000


def test_a_row_counts_the_same_target_in_steps_passes_and_seconds():
    study = BatchSize(samples=256, epochs=4, steps=60, target=0.6, seeds=1)
    (row,) = study.compute([Cell({"rule": "linear", "batch_size": 64}, 0)])
    values, series = row.values, row.series
    assert values["epochs_to_target"] == values["steps_to_target"] / 4  # of 256 samples, 64 a step
    assert values["seconds_to_target"] == values["epochs_to_target"] * values["epoch_seconds"] > 0
    assert values["accuracy_after_epochs"] == series["val_accuracy"][list(series["steps"]).index(16)]


def row(size, seed, passes, accuracy, rule="linear"):
    values = {"steps_to_target": passes * 1024 / size, "epochs_to_target": passes, "epoch_seconds": 1 / size}
    return Row({"rule": rule, "batch_size": size}, seed, values | {"accuracy_after_epochs": accuracy, "test_accuracy": accuracy})


def test_the_answer_says_up_to_which_batch_the_passes_hold_and_who_never_arrives():
    given = {1: (4.0, 0.9), 32: (5.0, 0.93), 256: (12.0, 0.92), 512: (3.5, 0.91), 1024: (np.nan, 0.1)}
    rows = Rows(row(size, seed, *numbers) for size, numbers in given.items() for seed in range(3))
    answer = BatchSize().answer(rows)
    assert "32: 160 steps, 5 passes" in answer
    assert "not reached by most seeds: 1024" in answer
    assert "Up to batch 32 the passes stay below twice the fewest." in answer
    assert "10.0% (batch 1024) to 93.0% (batch 32)" in answer


def test_the_answer_stands_where_nobody_arrives():
    answer = BatchSize().answer(Rows([row(8, 0, np.nan, 0.2, "fixed"), row(64, 0, np.nan, 0.1, "fixed")]))
    assert "batch none; not reached by most seeds: 8, 64." in answer
    assert "Up to" not in answer
