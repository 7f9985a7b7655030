"""Jobs: trainings as plain data, those of one shape trained as one network."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

import evengrad as eg
from evengrad.errors import InputError, UnknownNameError
from evengrad.judge import chosen_rules, judge
from evengrad.lab.data import load
from evengrad.lab.engine.optimizers import SGD, Adam
from evengrad.lab.engine.plan import Clip
from evengrad.lab.jobs import Data, Job, chunks, run_jobs
from evengrad.lab.models import CNN, MLP
from evengrad.lab.traces import trace_of


def job(**options: object) -> Job:
    net = MLP(inputs=2, outputs=1, depth=2, width=5, activation="tanh", initialiser="glorot_normal")
    defaults = {"net": net, "data": Data(name="two_circles"), "optimizer": SGD(lr=0.1, momentum=0.9), "epochs": 3}
    return Job(**(defaults | options))  # type: ignore[arg-type]


def test_a_job_is_what_train_makes_of_the_same_network_and_seed() -> None:
    (done,) = run_jobs([job(seed=7, epochs=20)], keep=True)
    split = load("two_circles")
    experiment = eg.Experiment(
        lambda: job().net.build(7),
        (split.x_train, split.y_train.float()[:, None]),
        nn.BCEWithLogitsLoss(),
        lambda m: torch.optim.SGD(m.parameters(), 0.1, 0.9),
        validation=(split.x_test, split.y_test.float()[:, None]),
        epochs=20,
        batch_size=32,
        metric="loss",
        maximize=False,
    )
    alone = eg.train(experiment, seed=7)
    assert done.values["test_loss"] == pytest.approx(alone.metric, rel=1e-3)  # 320 steps in single precision
    for ours, theirs in zip(done.network.parameters(), alone.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=5e-3, atol=5e-4)
    answers = (done.network(split.x_test)[:, 0] > 0).long()
    assert done.values["test_accuracy"] == pytest.approx(float((answers == split.y_test).float().mean()))


def test_jobs_of_one_shape_share_a_chunk_whatever_their_numbers() -> None:
    base = job().net
    scaled = MLP(**{k: v for k, v in vars(base).items() if k not in {"initialiser", "init_scale"}}, initialiser="he_normal", init_scale=0.5)
    same = [job(), job(seed=3), job(optimizer=SGD(lr=0.3, weight_decay=0.1)), job(net=scaled)]
    other = [job(optimizer=Adam()), job(batch_size=16), job(clip=Clip(kind="norm", threshold=1.0))]
    assert chunks([*same, *other]) == [[0, 1, 2, 3], [4], [5], [6]]
    assert chunks([*same, *other], chunk=3) == [[0, 1, 2], [3], [4], [5], [6]]


def test_results_come_in_the_order_of_the_jobs() -> None:
    jobs = [job(seed=1), job(seed=1, optimizer=Adam(lr=0.1)), job(seed=2), job(seed=1, epochs=1)]
    told: list[tuple[int, int]] = []
    done = run_jobs(jobs, chunk=1, progress=lambda n, of: told.append((n, of)))
    assert [d.job for d in done] == jobs
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    again = run_jobs(jobs[::-1], chunk=1)[::-1]
    assert [d.values for d in done] == [d.values for d in again]


def test_convolutions_on_a_cpu_are_trained_one_by_one() -> None:
    cnn = CNN(inputs=(1, 8, 8), outputs=10, channels=(2, 2), dense=4)
    jobs = [job(net=cnn, data=Data(name="digits", options=(("flat", False),)), seed=s) for s in range(3)]
    assert chunks(jobs) == [[0], [1], [2]]


def test_curves_and_records_have_the_lengths_that_were_asked_for() -> None:
    (done,) = run_jobs([job(epochs=5, evaluate_every=2, record=2)])
    per_epoch = math.ceil(500 / 32)
    assert done.series["steps"].tolist() == [2 * per_epoch, 4 * per_epoch, 5 * per_epoch]
    assert {"loss", "accuracy", "test_loss", "test_accuracy"} <= done.series.keys()
    assert done.series["record_steps"].tolist() == [0, 2 * per_epoch, 4 * per_epoch]
    assert done.series["grad_abs_mean"].shape == (3, 3)
    assert done.layers == ("0", "2", "4")
    (bare,) = run_jobs([job(evaluate_every=0, record=0)])
    assert bare.series == {}
    assert 0 <= bare.values["test_accuracy"] <= 1


def test_evaluations_can_look_at_the_first_samples_only() -> None:
    data, split = Data(name="two_circles", validation=0.2), load("two_circles")
    (done,) = run_jobs([job(data=data, seed=2, evaluate_samples=30)], keep=True)
    right = (done.network(split.x_train)[:, 0] > 0) == (split.y_train == 1)
    train, held = data.parts(split, 2)
    assert done.values["train_accuracy"] == pytest.approx(float(right[train[:30]].float().mean()))
    assert done.values["val_accuracy"] == done.series["val_accuracy"][-1] == pytest.approx(float(right[held[:30]].float().mean()))
    answers = (done.network(split.x_test)[:, 0] > 0) == (split.y_test == 1)
    assert done.values["test_accuracy"] == pytest.approx(float(answers.float().mean()))  # all of them
    (other,) = run_jobs([job(seed=2, evaluate_samples=30)])
    assert other.series["test_accuracy"][-1] * 30 == pytest.approx(round(other.series["test_accuracy"][-1] * 30))
    with pytest.raises(InputError, match="evaluate_samples must be at least 1"):
        job(evaluate_samples=0)


def test_images_are_evaluated_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr(nn.functional, "conv2d", lambda x, *rest, of=nn.functional.conv2d: (seen.append(len(x)), of(x, *rest))[1])
    net = CNN(inputs=(1, 28, 28), outputs=10, channels=(2,), dense=0)
    run_jobs([job(net=net, data=Data(name="fashion_mnist", options=(("flat", False),), samples=200), epochs=1, evaluate_every=0)])
    assert max(seen) == 128
    assert sum(seen[-8:]) == 1000  # the test set


def test_validation_is_held_out_by_share_or_fold_and_watched() -> None:
    folds = [job(data=Data(name="two_circles", fold=(i, 5)), seed=1, record=0) for i in range(5)]
    assert len(chunks(folds)) == 1
    done = run_jobs(folds)
    assert all("val_accuracy" in d.series and "val_loss" in d.values for d in done)
    split = load("two_circles")
    held = [Data(name="two_circles", fold=(i, 5)).parts(split, 1)[1] for i in range(5)]
    assert sorted(np.concatenate(held).tolist()) == list(range(500))
    train, part = Data(name="two_circles", validation=0.2).parts(split, 1)
    assert (len(train), len(part)) == (400, 100)
    assert not set(train) & set(part)


def test_few_samples_are_drawn_by_the_seed() -> None:
    data, split = Data(name="two_circles", samples=40), load("two_circles")
    one, other = data.parts(split, 1)[0], data.parts(split, 2)[0]
    assert len(one) == len(other) == 40
    assert set(one) != set(other)
    assert int(split.y_train[one].sum()) == 20  # stratified


def test_a_run_that_diverges_says_so() -> None:
    relu = MLP(inputs=2, outputs=1, depth=2, width=5, activation="relu", initialiser="he_normal")
    (done,) = run_jobs([job(net=relu, optimizer=SGD(lr=1e30), epochs=2)])
    assert done.values["diverged"] == 1.0
    assert done.values["test_accuracy"] == 0.0
    assert done.values["train_loss"] == math.inf


def test_steps_to_a_target_are_those_of_the_first_evaluation_that_reaches_it() -> None:
    done = run_jobs([job(target=0.6, epochs=30, seed=1), job(target=2.0, seed=1)])
    reached = done[0].series["test_accuracy"] >= 0.6
    assert done[0].values["steps_to_target"] == done[0].series["steps"][np.argmax(reached)]
    assert math.isnan(done[1].values["steps_to_target"])


def test_keeps_what_is_decided_over_the_plane() -> None:
    done = run_jobs([job(boundary=(0, 3), seed=1), job(boundary=(), seed=1)], keep=True)
    share, box = done[0].series["boundary"], done[0].series["boundary_box"]
    assert share.shape == (2, 64, 64)
    assert "boundary" not in done[1].series
    x = torch.linspace(box[0], box[1], 64)[10], torch.linspace(box[2], box[3], 64)[50]
    expected = torch.sigmoid(done[0].network(torch.stack(x)[None])).item()
    assert share[1, 50, 10] == pytest.approx(expected, abs=1e-5)  # rows go along the second feature


def test_a_job_is_plain_data() -> None:
    text = json.dumps(job(clip=Clip(kind="value", threshold=0.5)).describe(), sort_keys=True)
    assert text == json.dumps(job(clip=Clip(kind="value", threshold=0.5)).describe(), sort_keys=True)
    assert '"lr": 0.1' in text
    assert "glorot_normal" in text


def test_what_a_job_recorded_is_judged_by_the_same_rules() -> None:
    net = MLP(inputs=2, outputs=1, depth=20, width=16, activation="sigmoid", initialiser="glorot_normal")
    healthy = MLP(inputs=2, outputs=1, depth=20, width=16, activation="tanh", initialiser="orthogonal")
    sick, well = (trace_of(run_jobs([job(net=n, epochs=1, signals=True)])[0]) for n in (net, healthy))
    assert [layer.name for layer in sick.layers][:2] == ["0", "2"]
    assert sick.layers[0].activation == "sigmoid"
    rules = chosen_rules(select=["VAN"])
    assert {f.code for f in judge(sick, rules).findings} == {"VAN001"}
    assert not judge(well, rules).findings


def test_what_cannot_be_trained_is_refused_with_what_to_do() -> None:
    with pytest.raises(InputError, match="patience"):
        job(patience=3)
    with pytest.raises(InputError, match="epochs must be at least 1; got 0"):
        job(epochs=0)
    with pytest.raises(InputError, match=r"'digits', whose samples have the shape \(64,\)"):
        run_jobs([job(data=Data(name="digits"))])
    with pytest.raises(UnknownNameError, match="two_circles"):
        run_jobs([job(data=Data(name="two_circle"))])
    with pytest.raises(InputError, match="decision boundary is drawn for samples of two features"):
        run_jobs([job(net=MLP(inputs=64, outputs=10, depth=1, width=4), data=Data(name="digits"), boundary=(1,))])
    with pytest.raises(InputError, match="too large for memory"):
        run_jobs([job(net=MLP(inputs=2, outputs=1, depth=2, width=4_000_000))])  # 64 terabytes of weights
    with pytest.raises(InputError, match="fold"):
        Data(name="digits", fold=(5, 5))
