"""Every remedy × networks of every shape: proposals are pure data, changes matter, and undo is exact to the bit."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from evengrad.causes import BRINGS
from evengrad.errors import InputError
from evengrad.recording import trace_of
from evengrad.remedies import Remedy, discovered
from evengrad.rig import Rig
from evengrad.trace.batch import Batch
from evengrad.training import Experiment, build, first_batch, train
from evengrad.types import SYMPTOMS, Finding, Proposal, Trace
from tests.remedies.contract import output, saved, snapshot, stepped

CASES = ("perceptron", "functional", "convolutional", "shared", "transformer", "tied", "keywords", "sequence")
REMEDIES = sorted(discovered())
DIAGNOSTIC = [name for name in REMEDIES if discovered()[name].diagnostic]  # the others have patients in files of their own
PROPOSES_NOTHING = {  # remedy -> cases that have nothing for it
    "batch_norm": {"transformer", "sequence"},
    "layer_norm": {"convolutional"},
    "standard_step": set(CASES),  # none has a step of its own: tests/remedies/test_standard_step.py
    "standardize_input": {"tied"},
    "swap_activation": set(),
}
FLOATING = [c for c in CASES if c != "tied"]


def finding(word: str, trace: Trace, *, everywhere: bool = True) -> Finding:
    """A finding of this symptom (or code) that names all rows, or none."""
    where = tuple(x.name for x in trace.layers if x.depth is not None) if everywhere else ()
    symptom, code = (word, "XXX001") if word in SYMPTOMS else (None, word)
    return Finding(code=code, symptom=symptom, severity="error", message="for a test", where=where)


def proposals(remedy: Remedy, trace: Trace) -> list[Proposal]:
    """What the remedy proposes for any of its symptoms and causes, each change once."""
    findings = [finding(word, trace, everywhere=everywhere) for word in remedy.symptoms for everywhere in (True, False)]
    findings += [replace(finding("XXX001", trace), cause=cause) for cause in remedy.causes]
    found = [proposal for one in findings for proposal in remedy.propose(one, trace)]
    return list({json.dumps(dataclasses.asdict(proposal), sort_keys=True): proposal for proposal in found}.values())


@pytest.fixture
def case(request: pytest.FixtureRequest, zoo: dict[str, Experiment]) -> Iterator[tuple[Experiment, Rig, Batch, Trace]]:
    experiment = zoo[request.param]
    rig = build(experiment, 0)
    batch = first_batch(rig)
    with torch.random.fork_rng():
        stepped(rig, batch)  # so that the optimizer has a state
        yield experiment, rig, batch, trace_of(rig, batch)


each_case = pytest.mark.parametrize("case", CASES, indirect=True)
each_remedy = pytest.mark.parametrize("name", REMEDIES)
Case = tuple[Experiment, Rig, Batch, Trace]


@pytest.mark.parametrize("name", DIAGNOSTIC)
@each_case
def test_proposes_something_wherever_it_applies(name: str, case: Case, request: pytest.FixtureRequest) -> None:
    found = proposals(discovered()[name](), case[3])
    assert bool(found) == (request.node.callspec.params["case"] not in PROPOSES_NOTHING.get(name, set()))


@each_remedy
@each_case
def test_proposing_is_pure_and_gives_plain_data(name: str, case: Case) -> None:
    _, rig, _, trace = case
    before, seen = snapshot(rig), copy.deepcopy(trace.facts)
    columns = {k: v.copy() for k, v in trace.columns.items()}
    remedy = discovered()[name]()
    first, again = proposals(remedy, trace), proposals(remedy, trace)
    assert first == again
    for proposal in first:
        text = json.dumps(dataclasses.asdict(proposal), allow_nan=False)
        back = json.loads(text)
        assert Proposal(**{**back, "where": tuple(back["where"]), "needs": tuple(back["needs"])}) == proposal
        assert proposal.remedy == name
        assert proposal.summary
        assert proposal.cause
        assert any(line[0] in "+-" for line in proposal.code.splitlines())
        assert all(line[0] in "+- " for line in proposal.code.splitlines())
    assert snapshot(rig) == before
    assert trace.facts == seen
    assert all((trace.columns[k].tobytes() == v.tobytes()) for k, v in columns.items())


@each_remedy
@each_case
def test_undo_is_exact_to_the_bit_and_applying_again_gives_the_same(name: str, case: Case) -> None:
    _, rig, batch, trace = case
    remedy = discovered()[name]()
    before = snapshot(rig)
    outputs = [output(rig, batch, training=t) for t in (True, False)]
    for proposal in proposals(remedy, trace):
        plain = json.loads(json.dumps(dataclasses.asdict(proposal)))  # what was stored and read back must apply, too
        changed = []
        for _ in range(2):
            undo = remedy.apply(rig, Proposal(**plain))
            changed.append(output(rig, batch))
            undo()
            assert snapshot(rig) == before, proposal.summary
        assert torch.equal(changed[0], changed[1])
        assert all(torch.equal(output(rig, batch, training=t), old) for t, old in zip((True, False), outputs, strict=True))


@each_remedy
@each_case
def test_undo_after_training_takes_back_everything_but_what_was_learned(name: str, case: Case) -> None:
    _, rig, batch, trace = case
    remedy = discovered()[name]()
    assert rig.optimizer is not None
    for proposal in proposals(remedy, trace)[:1]:
        before = snapshot(rig)
        undo = remedy.apply(rig, proposal)
        stepped(rig, batch)
        undo()
        after = snapshot(rig)
        for part in ("modules", "parameters", "attributes", "hooks", "groups", "optimizer hooks"):
            assert after[part] == before[part], part
        assert set(after["state"]) == set(before["state"])
        assert set(after["optimizer"]) == set(before["optimizer"])


@each_remedy
@each_case
def test_a_change_changes_training_and_the_changed_model_trains(name: str, case: Case) -> None:
    experiment, _, _, trace = case
    plain = train(experiment, max_steps=2).model
    for proposal in proposals(discovered()[name](), trace):
        repaired = experiment.repaired([proposal])
        result = train(repaired, max_steps=2)
        start = build(repaired).model
        assert torch.isfinite(torch.as_tensor(result.losses)).all()
        moved = [not torch.equal(a, b) for a, b in zip(start.parameters(), result.model.parameters(), strict=True)]
        assert any(moved)
        same = [torch.equal(p, q) for p, q in zip(plain.parameters(), result.model.parameters(), strict=False)]
        assert not all(same), f"{proposal.summary} changes nothing"


@each_remedy
@each_case
def test_the_changed_model_can_be_copied_pickled_and_moved(name: str, case: Case) -> None:
    _, rig, batch, trace = case
    remedy = discovered()[name]()
    for proposal in proposals(remedy, trace):
        undo = remedy.apply(rig, proposal)
        expected = output(rig, batch)
        for model in (copy.deepcopy(rig.model), pickle.loads(pickle.dumps(rig.model)), saved(rig.model)):
            assert torch.equal(output(Rig(model), batch), expected), proposal.summary
        double = copy.deepcopy(rig.model).to(torch.float64)
        moved = output(Rig(double), _double(batch))
        assert moved.dtype == torch.float64
        torch.testing.assert_close(moved.float(), expected, rtol=1e-3, atol=1e-3)  # float32 rounding through a few layers
        undo()
        assert snapshot(rig)["hooks"] == snapshot(Rig(copy.deepcopy(rig.model), rig.optimizer, scheduler=rig.scheduler))["hooks"]


def _double(batch: Batch) -> Batch:
    def turn(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: turn(v) for k, v in value.items()}
        return value.double() if value.is_floating_point() else value

    return Batch(turn(batch.inputs), batch.targets)


@each_case
def test_changes_nest_and_come_off_in_reverse_order(case: Case) -> None:
    _, rig, _, trace = case
    states, undos = [snapshot(rig)], []
    for name in [n for n in REMEDIES if n != "layer_norm"]:  # one norm behind a layer is enough
        for proposal in proposals(discovered()[name](), trace)[:1]:
            undos.append(discovered()[name]().apply(rig, proposal))
            states.append(snapshot(rig))
    assert len(undos) >= 4
    while undos:
        states.pop()
        undos.pop()()
        assert snapshot(rig) == states[-1]


@each_remedy
def test_a_change_proposed_for_another_model_is_refused_and_leaves_no_trace(name: str, zoo: dict[str, Experiment]) -> None:
    other = nn.Sequential(nn.Linear(6, 5), nn.Sigmoid(), nn.Linear(5, 4), nn.Sigmoid(), nn.Linear(4, 5), nn.Sigmoid(), nn.Linear(5, 3))
    rig = build(zoo["perceptron"], 0)
    trace = trace_of(Rig(other, build(zoo["perceptron"], 0).optimizer, rig.loss_fn), first_batch(rig))
    stepped(rig, first_batch(rig))
    before = snapshot(rig)
    found = proposals(discovered()[name](), trace)
    assert found or name not in DIAGNOSTIC or name == "standard_step"  # which fits every model
    for proposal in found:
        if proposal.where or "plans" in proposal.options:  # a change of the whole model fits every model
            with pytest.raises(InputError, match="another model"):
                discovered()[name]().apply(rig, proposal)
            assert snapshot(rig) == before


@pytest.mark.parametrize("name", ["clip_norm", "clip_value", "lower_rate"])
def test_what_needs_an_optimizer_says_so(name: str, zoo: dict[str, Experiment]) -> None:
    rig = build(zoo["perceptron"], 0)
    proposal = proposals(discovered()[name](), trace_of(rig, first_batch(rig)))[0]
    with pytest.raises(InputError, match=f"{name} needs an optimizer; give"):
        discovered()[name]().apply(Rig(rig.model), proposal)


def test_every_remedy_is_found_under_its_name_and_has_words() -> None:
    for name, remedy in discovered().items():
        assert remedy.name == name
        assert remedy.title
        assert (remedy.__doc__ or "").strip()
        assert remedy.symptoms or remedy.causes
        assert set(remedy.causes) <= set(BRINGS)
        assert remedy() == remedy()  # frozen data
