"""The fault benchmark: every cause has cases in both halves, no case is in two, and the command tells a fault from health."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # benchmarks are no installed package

from benchmarks.faults import base, biting, figures, healthy, others, runs  # noqa: E402
from benchmarks.faults.cases import candidates  # noqa: E402
from benchmarks.faults.programs import PROGRAMS  # noqa: E402
from evengrad import synthetic  # noqa: E402
from evengrad.types import SYMPTOMS  # noqa: E402

CAUSES = set(
    """lr_too_high lr_too_low undertrained bad_init_large bad_init_small constant_init input_not_normalized target_not_scaled
bad_hidden_activation missing_activation wrong_output_activation redundant_output_activation wrong_loss loss_reduction unstable_loss
sign_error missing_normalization_layer too_deep_no_skip too_narrow_relu no_grad_clip no_warmup over_regularized over_clipped
batch_too_small labels_corrupt data_nan missing_zero_grad frozen_params bn_stats scheduler_bug low_precision long_memory attention_logits
selu_conditions init_activation_mismatch capacity_too_small""".split()
)
PLACES = {"inputs", "targets", "loss", "optimizer", "loop", "validation", "layers", "head", "norms"}
KINDS = {"mlp", "deep", "conv", "residual", "recurrent", "attention", "tabular", "regression", "points"}
OPERATORS = {case.operator.name: case.operator for case in candidates().values()}
every_operator = pytest.mark.parametrize("operator", OPERATORS.values(), ids=list(OPERATORS))


def test_each_half_has_programs_of_every_kind() -> None:
    for half in base.HALVES:
        assert {p.kind for p in PROGRAMS.values() if p.half == half} == KINDS


@every_operator
def test_operator_fits_its_programs_and_changes_them(operator: base.Operator) -> None:
    assert operator.cause in CAUSES
    assert set(operator.also) <= CAUSES - {operator.cause}
    assert operator.symptoms
    assert set(operator.symptoms) <= set(SYMPTOMS)
    assert operator.places
    assert set(operator.places) <= PLACES
    assert operator.on
    for name in operator.on:
        program = PROGRAMS[name]
        assert program.half == operator.half
        assert operator.fits(program)
        assert operator.mutate(program) != program


def test_every_cause_has_cases_that_bite_in_every_half() -> None:
    counts = Counter((case.cause, case.half) for case in biting.cases())
    assert {cause for cause, _ in counts} == CAUSES
    for cause in CAUSES:
        assert counts[cause, "tuning"] + counts[cause, "reported"] >= 3, cause
        assert min(counts[cause, half] for half in base.HALVES) >= 1, cause
    assert sum(counts.values()) >= 210
    assert sum(n for (_, half), n in counts.items() if half == "held_out") >= 80


def test_halves_share_no_program_and_no_operator() -> None:
    for part in ("operator", "program"):
        seen = [{getattr(case, part if part == "operator" else "twin").name for case in biting.cases(half)} for half in base.HALVES]
        assert sum(map(len, seen)) == len(set.union(*seen))


def test_every_candidate_has_a_verdict_with_figures() -> None:
    kept = biting.stored()
    assert set(kept) >= set(candidates())
    for name, found in kept.items():
        assert isinstance(found["bites"], bool), name
        if found["bites"]:
            assert found["bites_at"] is None or 1 <= found["bites_at"] <= found["steps"], name
            assert set(found["also"]) <= CAUSES, name


def test_there_are_a_hundred_healthy_runs_and_more() -> None:
    found = healthy.runs()
    assert len(found) >= 100
    assert min(Counter(run.half for run in found.values()).values()) >= 50


def test_weights_depend_on_the_seed_alone() -> None:
    program = PROGRAMS["wine"]
    drawn = []
    for seed in (0, 0, 1):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            drawn.append(program.experiment().model().state_dict()["0.weight"])
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_a_fault_bites_that_keeps_a_network_from_learning_and_its_twin_does_not() -> None:
    case = candidates()["over_clipped/clipped-at-1e-4/waves"]
    quick = {"epochs": 6}
    faulty, twin = (biting.track(p.having(**quick), 0) for p in (case.program, case.twin))
    assert biting._bites(faulty, twin, 0.0)
    assert not biting._bites(twin, twin, 0.0)


def test_interval_of_a_share_is_wilsons() -> None:
    low, high = figures.wilson(9, 10)
    assert (round(low, 3), round(high, 3)) == (0.596, 0.982)  # Wilson 1927, as in any table


def test_restated_thresholds_fire_on_what_they_were_made_for() -> None:
    dead = synthetic.run(synthetic.chain(4, steps=40, grad_abs_mean=1e-9, zero_fraction=0.9, dead_fraction=0.9), loss=np.full(100, 2.3))
    found = others.verdicts(dead, {"score": 0.1})
    assert all(found[name]["fired"] for name in found if name != "UMLAUT")  # which looks at data and settings alone
    assert "bad_hidden_activation" in found["DeepDiagnosis"]["causes"]


def test_command_tells_a_fault_from_health(tmp_path: Path) -> None:
    names = ["over_clipped/clipped-at-1e-4/waves", "healthy/wine/0"]
    command = [sys.executable, "-m", "benchmarks.faults", "--cache", str(tmp_path), "--only", *names, "--untimed"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "1 cases, 1 healthy runs" in done.stdout
    assert "false alarms                       0.000" in done.stdout
    again = runs.kept(runs.subject(names[0]), tmp_path, rejudge=True)
    assert again.report.causes == ("over_clipped",)
    assert again.meta["score"] < 0.3
