"""The playground: states are checked, looks and changes are right, a worker that is stuck ends."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from evengrad.errors import EvengradError
from evengrad.judge import chosen_rules, report_of
from evengrad.recording import Recording
from evengrad.serve.app import create_app
from evengrad.serve.guard import TOKEN_HEADER
from evengrad.serve.play import process
from evengrad.serve.play.network import experiment_of
from evengrad.serve.play.presets import START, STUDIES, SYMPTOMS
from evengrad.serve.play.runs import Frame, Interrupted, Workshop
from evengrad.serve.play.state import CHOICES, State
from evengrad.training import loop_facts, train, validation_of
from evengrad.types import SYMPTOMS as VOCABULARY
from tests.serve.conftest import BASE, TOKEN

SICK = {"activation": "sigmoid", "depth": 20, "width": 32}


@pytest.fixture(scope="module")
def shop() -> Workshop:
    return Workshop()


def test_a_state_is_checked() -> None:
    assert State.of({}) == State()
    assert State.of({"depth": 20.0, "unknown": 1}).depth == 20
    for bad in ({"depth": 10**6}, {"rate": float("nan")}, {"data": "../etc"}, {"initialiser": "constant(__import__)"}, {"width": "7"}):
        with pytest.raises(EvengradError):
            State.of(bad)


@pytest.mark.parametrize("preset", [START, *SYMPTOMS, *STUDIES], ids=lambda p: p.key or "start")
def test_every_preset_is_a_state_of_the_page(preset: Any) -> None:
    state = State.of(preset.state)
    assert {k: getattr(state, k) for k in preset.state} == dict(preset.state)


def test_every_symptom_and_every_study_has_a_preset() -> None:
    from evengrad.lab.studies import discovered

    assert {p.key for p in SYMPTOMS} == set(VOCABULARY)
    assert {p.key for p in STUDIES} == set(discovered())


@pytest.mark.slow
@pytest.mark.parametrize("preset", SYMPTOMS, ids=lambda p: p.key)
def test_a_symptoms_preset_shows_the_symptom(shop: Workshop, preset: Any) -> None:
    state = State.of(preset.state)
    experiment = experiment_of(state)
    recording = Recording(loop=loop_facts(experiment), validation=validation_of(experiment))
    trace = recording.trace(train(experiment, seed=state.seed, watcher=recording).losses)
    found = shop.judge(state, report_of(trace, chosen_rules()))
    assert preset.key in {f["symptom"] for f in found["findings"]}


@pytest.mark.parametrize(("scale", "word"), [(0.2, "vanishing"), (1.0, "healthy"), (4.0, "exploding")])
def test_the_scale_of_the_weights_goes_from_vanishing_to_exploding(shop: Workshop, scale: float, word: str) -> None:
    state = State(depth=20, width=64, activation="relu", initialiser="he_normal", scale=scale)
    assert shop.look(state)["layers"]["word"] == word


@pytest.mark.parametrize("activation", CHOICES["activation"])
def test_every_activation_can_be_looked_at(shop: Workshop, activation: str) -> None:
    found = shop.look(State(activation=activation, depth=3), with_points=True)
    assert len(found["layers"]["spread"]) == 4
    assert len(found["points"]["x"]) == 500


@pytest.mark.parametrize(("name", "value"), [(n, v) for n in ("data", "norm", "optimizer", "initialiser") for v in CHOICES[n]])
def test_every_choice_trains(shop: Workshop, name: str, value: str) -> None:
    frames: list[Frame] = []
    with pytest.raises(Interrupted):
        shop.train(State.of({"depth": 3, name: value, "residual": name == "norm", "clip": 1.0}), frames.append, _enough)
    assert frames[0]["step"] == 1
    assert len(frames[0]["boundary"]["kind"]) == 48 * 48 * 4 // 3


def _enough(_: object) -> None:
    raise Interrupted


def test_the_rules_say_what_is_wrong_and_why(shop: Workshop) -> None:
    found = shop.judge(State.of(SICK))
    assert found["findings"][0]["code"] == "VAN001"
    assert found["findings"][0]["cause"] == "the sigmoid activation"
    assert {"words": "sigmoid and its derivative", "address": "/rules/activations.html#sigmoid"} in found["findings"][0]["links"]
    assert any(p["summary"].startswith("swap_activation") for p in found["proposals"])
    assert shop.judge(State(depth=3))["findings"] == []


def test_a_change_is_applied_and_is_better(shop: Workshop) -> None:
    found = shop.fix(State.of(SICK))
    assert found["better"]
    assert len(found["tried"]) > 1
    mended = shop.look(State.of({**SICK, "fix": found["fix"]}))
    assert mended["layers"]["word"] == "healthy"


def test_a_link_with_a_change_works_in_a_process_that_never_saw_it() -> None:
    state = State.of({**SICK, "fix": "swap_activation sigmoid -> tanh (glorot_normal)"})
    assert Workshop().look(state)["layers"]["word"] == "healthy"
    with pytest.raises(EvengradError, match="is not offered"):
        Workshop().look(State.of({**SICK, "fix": "rm -rf"}))


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with TestClient(create_app(tmp_path, token=TOKEN), base_url=BASE, headers={TOKEN_HEADER: TOKEN}) as found:
        yield found


def _ask(client: TestClient, what: str, **more: Any) -> Any:
    return client.post("/play/do", json={"session": "0123456789ab", "do": what, **more})


def test_questions_are_answered_by_a_process_of_its_own(client: TestClient) -> None:
    assert _ask(client, "look", state={"depth": 4}).json()["layers"]["word"] == "healthy"
    assert _ask(client, "train", state={"depth": 4}).json()["started"]
    assert _ask(client, "judge", state={"depth": 4}).json()["findings"] == []
    assert _ask(client, "stop").status_code == 200
    assert "no rule found" in _ask(client, "fix", state={"depth": 4}).text


def test_a_question_that_is_none_is_refused(client: TestClient) -> None:
    for message in (
        [],
        {"session": "../..", "do": "look"},
        {"session": "0123456789ab", "do": "eval"},
        {"session": "0123456789ab", "do": "look", "state": []},
    ):
        assert client.post("/play/do", json=message).status_code == 400
    assert client.post("/play/do", content=b"x" * 30_000).status_code == 400
    assert client.post("/play/do", content=b"{").status_code == 400
    assert _ask(client, "look", state={"depth": 9999}).status_code == 400
    assert client.get("/play/frames?session=..").status_code == 400


def test_a_process_that_is_stuck_is_killed_and_another_takes_its_place(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _ask(client, "look").status_code == 200
    monkeypatch.setitem(process.PATIENCE, "fix", 0.05)
    answer = _ask(client, "fix", state=SICK)
    assert answer.status_code == 504
    assert "its process was stopped" in answer.text
    assert _ask(client, "look").status_code == 200


def test_a_look_that_waits_behind_a_stuck_training_is_answered_by_the_next_process(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, start = [], process.Worker.start

    async def started(worker: process.Worker) -> None:
        await start(worker)
        made.append(worker)

    monkeypatch.setattr(process.Worker, "start", started)
    assert _ask(client, "look").status_code == 200
    os.kill(made[-1]._process.pid, signal.SIGSTOP)  # as if it were lost in a kernel
    monkeypatch.setitem(process.PATIENCE, "stop", 0.5)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(_ask, client, "look", state={"depth": 3})
        time.sleep(0.1)
        assert _ask(client, "stop").status_code == 504
        assert waiting.result().status_code == 200
