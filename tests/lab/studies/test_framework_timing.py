"""S15: frameworks do the same work, model-steps are counted right, and each round is set beside plain torch."""

from dataclasses import replace

import numpy as np
import pytest

from evengrad.errors import EvengradError, InputError, UnknownNameError
from evengrad.lab import frameworks
from evengrad.lab.data import few, load
from evengrad.lab.frameworks import BATCH, FRAMEWORKS, LEARNING, Trainer, Work, installed, measure, measure_apart
from evengrad.lab.studies import framework_timing
from evengrad.lab.studies.framework_timing import FrameworkTiming
from evengrad.lab.study import Cell, Row, Rows


@pytest.mark.parametrize("text", ["digits", "digits 64-", "digits 64 64", "digits -64", ""])
def test_work_that_cannot_be_read_is_refused(text):
    with pytest.raises(InputError, match="digits 64-64"):
        Work.parsed(text)


def test_an_unknown_framework_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match="torch"):
        installed("pytorch")


def test_two_classes_have_one_logit_and_the_last_smaller_batch_is_a_step():
    two, ten = Work.parsed("two_circles 5-5"), Work.parsed("digits 64")
    assert (two.outputs, two.steps, two.hidden) == (1, 16, (5, 5))
    assert (ten.outputs, ten.steps) == (10, 45)


@pytest.mark.parametrize("data", ["two_circles", "digits"])
def test_one_batch_of_all_samples_teaches_evengrad_and_torch_the_same(data):
    """With one batch an epoch their order does not matter, so that the same weights follow the same path."""
    work = Work(few(load(data), BATCH, 0), (8,))
    ours, theirs = (FRAMEWORKS[name][0](work, 2, 3) for name in ("evengrad", "torch"))
    before = ours.loss()
    assert before == pytest.approx(theirs.loss(), rel=1e-5)
    ours.train(LEARNING)
    theirs.train(LEARNING)
    assert ours.loss() == pytest.approx(theirs.loss(), rel=1e-5)  # single precision, another order of sums
    assert ours.loss() < before


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name == "keras" else ()) for name in FRAMEWORKS])
def test_every_framework_learns_alike(name):
    if not installed(name):
        pytest.skip(f"{name} is not installed: pip install {name}")
    text = "digits 64-64"  # Keras sets seeds and threads for its whole process
    found = measure_apart(name, text, 1, 0, 0.01) if name == "keras" else measure(name, Work.parsed(text), 1, 0, 0.01)
    assert 0.08 < found["loss"] < 0.13  # 0.097 to 0.11 over seeds and frameworks


def test_model_steps_count_every_network(monkeypatch):
    now = [0.0]

    def slow(work, networks, seed):
        def train(epochs):
            now[0] += 0.001 * epochs * work.steps * networks

        return Trainer(train, lambda: 0.5)

    monkeypatch.setattr(frameworks.time, "process_time", lambda: now[0])
    monkeypatch.setitem(FRAMEWORKS, "slow", (slow, "torch"))
    found = measure("slow", Work.parsed("two_circles 5"), 7, 0, 3.0)
    assert found["model_steps_per_second"] == pytest.approx(1000)
    assert found["start_seconds"] == pytest.approx(0.001 * 16 * 7)
    assert now[0] > 3


def test_a_process_of_its_own_gives_what_this_one_gives():
    apart, here = measure_apart("evengrad", "two_circles 5", 2, 1, 0.01), measure("evengrad", Work.parsed("two_circles 5"), 2, 1, 0.01)
    assert apart.keys() == here.keys()
    assert apart["loss"] == pytest.approx(here["loss"], rel=1e-6)


def test_a_process_that_fails_says_why():
    with pytest.raises(EvengradError, match="no data set"):
        measure_apart("torch", "nowhere 5", 1, 0, 0.01)


def test_a_round_is_set_beside_torch(monkeypatch):
    rates = {("evengrad", 1): 200.0, ("evengrad", 10): 900.0, ("torch", 1): 100.0}
    monkeypatch.setattr(
        framework_timing, "measure", lambda f, work, n, seed, seconds: {"model_steps_per_second": rates[f, n] * (1 + seed), "loss": 0.1}
    )
    study = replace(FrameworkTiming.quick(), work=("digits 8", "two_circles 8"))
    rounds = study.groups(study.cells())
    assert [{(c.arm["work"], c.seed) for c in own} for own in rounds] == [{(w, s)} for w in study.work for s in (0, 1)]
    assert [row.values["times_torch"] for row in study.compute(rounds[1])] == [2, 9, 1]
    (alone,) = study.compute([Cell({"work": "digits 8", "framework": "evengrad", "networks": 1}, 0)])
    assert np.isnan(alone.values["times_torch"])


def test_only_evengrad_trains_several_networks_and_what_is_not_installed_is_no_arm(monkeypatch):
    monkeypatch.setattr(framework_timing, "installed", lambda name: name != "keras")
    arms = FrameworkTiming(work=("digits 64",), networks=(1, 10)).arms()
    assert [(a["framework"], a["networks"]) for a in arms] == [("evengrad", 1), ("evengrad", 10), ("torch", 1), ("scikit-learn", 1)]


def row(framework, networks, rate, times, loss=0.1):
    arm = {"work": "digits 64-64", "framework": framework, "networks": networks}
    return Row(arm, 0, {"model_steps_per_second": rate, "times_torch": times, "loss": loss})


def test_the_answer_sets_all_beside_torch_and_names_who_is_missing():
    rows = Rows([row("evengrad", 10, 9000.0, 9.0), row("torch", 1, 1000.0, 1.0), row("scikit-learn", 1, 1500.0, 1.5, loss=0.11)])
    answer = FrameworkTiming().answer(rows)
    assert "plain torch takes 1,000 model-steps a second; evengrad (10 networks) 9 times, scikit-learn 1.5 times." in answer
    assert "from 0.1 to 0.11, alike" in answer
    assert answer.endswith("not asked for: keras.")


def test_the_answer_doubts_rates_of_unlike_work():
    answer = FrameworkTiming(framework=("torch", "keras")).answer(Rows([row("keras", 1, 50.0, 0.1, loss=2.3), row("torch", 1, 500.0, 1.0)]))
    assert "too far apart to be the same work" in answer
    assert "Left out" not in answer
    assert "keras 50 model-steps a second" in FrameworkTiming().answer(Rows([row("keras", 1, 50.0, np.nan)]))
