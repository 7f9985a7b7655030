"""Rules about a training over time: silent on noise and schedules of every kind, and sure of a cause only where it shows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evengrad import synthetic
from evengrad.rules import discovered
from evengrad.types import Facts, Finding, Series, Trace

CODES = "OPT001 OPT002 OPT003 OPT004 OPT005 OPT006 OPT007 GEN001 GEN002 GEN003 GEN004 GEN005".split()
LOSS = {"value": 2.3, "baseline": 2.3, "op": "cross_entropy", "toward_targets": 1.0, "batch_growth": 1.0}
STEPS = np.arange(400)
FALL = 0.1 + 2.2 * np.exp(-STEPS / 60)
AT = np.arange(0, 400, 25)


def run(
    curve: Any, *, ratio: float = 3e-3, columns: dict[str, Any] | None = None, curves: dict[str, Any] | None = None, **facts: Any
) -> Trace:
    facts = {"loss": LOSS, "loop": {"steps": len(curve), "epochs": 10}, "optimizer": {"name": "SGD", "lr": 0.05}} | facts
    made = synthetic.chain(3, steps=4, facts=Facts(**facts), **({"weight_norm": 1.0, "update_norm": ratio} | (columns or {})))
    return synthetic.run(made, loss=curve, **(curves or {}))


def findings(trace: Trace, *codes: str) -> list[Finding]:
    rules = [discovered()[code]() for code in codes or CODES]
    return [found for rule in rules if rule.missing(trace) is None for found in rule.check(trace)]


def loud(trace: Trace, *codes: str) -> list[str]:
    return [f.code for f in findings(trace, *codes) if f.severity != "note"]


def cause(trace: Trace, code: str) -> str | None:
    (found,) = findings(trace, code)
    return found.cause


def noisy(kind: str, course: Series, size: float, seed: int) -> Series:
    """A course with noise, never below zero; that of skewed losses is in proportion to them, as of small batches near the end."""
    generator = np.random.default_rng(seed)
    if kind == "normal":
        return np.abs(course + size * generator.standard_normal(len(course)))
    if kind == "skewed":
        return course * generator.gamma(1 / (4 * size), 4 * size, len(course))
    return np.abs(course + size * generator.standard_t(3, len(course)) / 3**0.5)


def test_a_loss_that_falls_is_not_flagged_whatever_its_noise() -> None:
    """None of 400 curves of any speed, floor, length and noise up to a quarter is."""
    generator = np.random.default_rng(0)
    flagged = []
    for seed in range(400):
        kind, length = generator.choice(["normal", "skewed", "heavy"]), int(generator.integers(60, 1500))
        size, speed, floor = generator.uniform(0.01, 0.25), generator.uniform(0.02, 0.25), generator.uniform(0.0, 0.5)
        course = floor + (2.3 - floor) * np.exp(-np.arange(length) / (speed * length))
        codes = loud(run(noisy(str(kind), course, size, seed)))
        flagged += [(codes, kind, length, round(size, 3))] if codes else []
    assert flagged == []


@pytest.mark.parametrize("kind", ["normal", "skewed", "heavy"])
@pytest.mark.parametrize("code", ["OPT001", "OPT005", "OPT006"])
def test_flat_noise_is_neither_rise_nor_swing_nor_spike(kind: str, code: str) -> None:
    """Of 300 curves 0.3 are expected; over 4 would have a chance of 1 in 10,000."""
    alarms = sum(bool(findings(run(noisy(kind, np.full(800, 0.9), 0.25, seed)), code)) for seed in range(300))
    assert alarms <= 4


def test_a_long_run_of_losses_in_random_order_has_no_spike() -> None:
    """Ten runs of 10,000 steps: 1 in 12 would have one."""
    generator = np.random.default_rng(3)
    assert not any(findings(run(generator.gamma(0.3, 2.0, 10_000)), "OPT006") for _ in range(5))


def warm_restarts() -> Series:
    return np.concatenate([0.2 + c * np.exp(-np.arange(100) / 25) for c in (2.1, 0.5, 0.4, 0.3)])


@pytest.mark.parametrize(
    "curve",
    [
        pytest.param(warm_restarts(), id="warm restarts"),
        pytest.param(np.where(STEPS < 40, 2.3, 0.1 + 2.2 * np.exp(-(STEPS - 40).clip(0) / 50)), id="warm-up"),
        pytest.param(np.full(400, 0.02), id="converged"),
        pytest.param(np.full(400, 1e-9), id="converged to nothing"),
        pytest.param(np.zeros(400), id="zero"),
        pytest.param(0.15 + 0.02 * np.sin(STEPS), id="fine-tuning"),
        pytest.param(np.where(STEPS % 20 == 19, 0.3, 1.0) * FALL, id="a smaller last batch of a sum"),
    ],
)
def test_what_is_usual_is_not_flagged(curve: Series) -> None:
    assert loud(run(curve)) == []


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2, 0.5])
def test_a_run_in_progress_is_not_called_slow_or_flat(share: float) -> None:
    seen = run(noisy("normal", FALL, 0.1, 0)).until(int(share * 400))
    assert (
        loud(replace(seen, steps=seen.steps[:1], columns={k: v[:1] for k, v in seen.columns.items()}), "OPT002", "OPT003", "OPT004") == []
    )


def test_a_slow_and_a_stuck_loss_are_told_apart() -> None:
    assert loud(run(2.3 - 1e-3 * STEPS + 0.01 * np.random.default_rng(0).standard_normal(400))) == ["OPT004"]
    assert loud(run(2.3 + 0.01 * np.random.default_rng(0).standard_normal(400))) == ["OPT002"]


STUCK = 2.3 + 0.02 * np.random.default_rng(0).standard_normal(400)


@pytest.mark.parametrize(
    ("named", "changes"),
    [
        ("sign_error", {"loss": LOSS | {"toward_targets": -1.0}, "curve": 2.3 * 1.01**STEPS, "code": "OPT001"}),
        ("sign_error", {"columns": {"update_agreement": -0.8}}),
        ("frozen_params", {"columns": {"update_norm": 0.0, "grad_norm": 1.0}}),
        ("missing_zero_grad", {"loop": {"steps": 400, "accumulated": 0.9}}),
        ("scheduler_bug", {"curves": {"lr": 0.1 * 0.8**STEPS}}),
        ("scheduler_bug", {"curves": {"lr": 0.01 * 1.02**STEPS}, "curve": 0.3 * 1.02**STEPS, "code": "OPT001"}),
        ("low_precision", {"columns": {"unchanged_fraction": 0.9}, "modules": {"dtypes": ["bfloat16"]}}),
        ("over_clipped", {"columns": {"grad_norm": 1e-4, "grad_raw_norm": 1.0}}),
        ("over_regularized", {"modules": {"dropouts": [{"name": "1", "p": 0.9, "training": True}]}}),
        ("redundant_output_activation", {"head": {"layer": "4", "min": 0.0, "row_sum": 1.0, "width": 10}}),
        ("lr_too_low", {"optimizer": {"name": "SGD", "lr": 1e-5}, "ratio": 1e-6}),
        ("lr_too_high", {"optimizer": {"name": "SGD", "lr": 10.0}, "ratio": 1.0}),
        ("target_not_scaled", {"loss": LOSS | {"op": "mse"}, "targets": {"mean": 900.0, "std": 50.0}, "ratio": 1.0}),
        ("input_not_normalized", {"inputs": {"mean": 100.0, "std": 70.0, "feature_std_max": 90.0}}),
        ("loss_reduction", {"loss": LOSS | {"batch_growth": 2.0}, "curve": 2.3 * 1.02**STEPS, "code": "OPT001"}),
        (None, {}),
        (None, {"ratio": 1e-6}),  # the rate is usual: something else makes the steps small
        (None, {"ratio": 1.0, "loss": LOSS | {"value": 90.0}}),  # the first pass was odd already
        (None, {"curves": {"lr": np.full(400, 0.1)}}),
    ],
)
def test_evidence_beside_the_curve_names_the_cause(named: str | None, changes: dict[str, Any]) -> None:
    changes = dict(changes)
    code, curve = changes.pop("code", "OPT002"), changes.pop("curve", STUCK)
    assert cause(run(curve, **changes), code) == named


def test_a_low_rate_is_seen_by_its_steps_before_the_loss_tells() -> None:
    early = STUCK[:12]
    low = {"optimizer": {"name": "Adam", "lr": 1e-7}, "loop": {"steps": 400}}
    assert cause(run(early, ratio=1e-6, **low), "OPT004") == "lr_too_low"
    assert not findings(run(0.1 * early, ratio=1e-6, **low), "OPT004")  # fine-tuning


def test_a_short_run_of_usual_steps_is_undertrained() -> None:
    short = run(2.3 - 0.01 * np.arange(24), loop={"steps": 24, "epochs": 1})
    assert cause(short, "OPT004") == "undertrained"
    assert not findings(run(2.3 - 0.01 * np.arange(24), loop={"steps": 240, "epochs": 10}), "OPT004")  # it goes on


def test_first_steps_that_overshoot_name_the_rate() -> None:
    curve = np.r_[2.3, 300.0, 80.0, 20.0, STUCK[4:]]
    assert cause(run(curve, ratio=0.9), "OPT006") == "lr_too_high"
    (found,) = findings(run(np.r_[2.3, 300.0, 80.0, 20.0, FALL[4:]], ratio=0.9), "OPT006")
    assert found.severity == "note"


def test_a_negated_loss_diverges_downwards() -> None:
    (found,) = findings(run(-2.3 * 1.02**STEPS, loss={"value": -2.3, "op": "cross_entropy", "toward_targets": -1.0}), "OPT001")
    assert found.cause == "sign_error"
    assert loud(run(-2.3 * 1.02**STEPS, loss={"value": -2.3, "op": "other", "toward_targets": 1.0})) == []  # a likelihood


def test_shuffled_labels_are_named_where_neighbours_disagree() -> None:
    near = {"shape": [64], "labels": {str(k): 100 for k in range(10)}, "neighbour_error": 0.01, "neighbour_chance": 0.1}
    curves = {"val_loss": (AT, 2.3 + AT / 100), "eval_loss": (AT, FALL[AT])}
    assert cause(run(FALL, curves=curves, targets=near | {"neighbour_agreement": 0.1}), "GEN002") == "labels_corrupt"
    assert cause(run(FALL, curves=curves, targets=near | {"neighbour_agreement": 0.7}), "GEN002") is None


def test_validation_that_fails_by_its_mode_is_no_fault_of_the_data() -> None:
    curves = {"val_loss": (AT, 2.3 + AT / 50), "eval_loss": (AT, 2.3 + AT / 50)}
    assert loud(run(FALL, curves=curves), "GEN001", "GEN002") == []
    assert loud(run(FALL, curves=curves), "GEN003") == ["GEN003"]


def test_confident_answers_overfit_by_a_note_where_they_stay_right() -> None:
    curves = {"val_loss": (AT, 0.5 + AT / 100), "accuracy": (AT, 0 * AT + 1.0), "val_accuracy": (AT, 0 * AT + 0.95)}
    (found,) = findings(run(FALL, curves=curves), "GEN001")
    assert found.severity == "note"


@settings(max_examples=40, deadline=None)
@given(factor=st.floats(1e-4, 1e4))
def test_rules_over_time_do_not_depend_on_the_loss_s_scale(factor: float) -> None:
    """But the first loss's, which declares it."""
    for curve in (FALL, STUCK, 2.3 * 1.01**STEPS, 2.3 - 1e-3 * STEPS, 1.5 + 0.6 * np.sin(STEPS / 15)):
        scaled = {k: v * factor if k in {"value", "baseline"} else v for k, v in LOSS.items()}
        one, other = (findings(run(c, loss=facts), *CODES[:6]) for c, facts in ((curve, LOSS), (factor * curve, scaled)))
        assert [(f.code, f.severity, f.cause) for f in one] == [(f.code, f.severity, f.cause) for f in other]


def test_a_batch_of_one_has_no_spread_and_no_constant_output() -> None:
    facts = Facts(head={"layer": "4", "activation": "none", "width": 10})
    made = synthetic.chain(3, out_spread=0.0, out_rms=1.0, facts=facts)
    assert loud(made, "GEN005") == ["GEN005"]
    assert loud(replace(made, run=replace(made.run, samples=1)), "GEN005") == []


@settings(max_examples=60, deadline=2000)
@given(draw=st.integers(0, 2**32 - 1), steps=st.integers(10, 400), step=st.floats(0.01, 1.0))
def test_a_loss_that_wanders_is_judged_in_finite_time(draw: int, steps: int, step: float) -> None:
    """Ramps, jumps that stay and jumps that come back: a search for where a spike ends goes on from each."""
    generator = np.random.default_rng(draw)
    with np.errstate(over="ignore"):
        findings(run(np.exp((step * generator.standard_t(2, steps)).cumsum().clip(-80, 80))))


@pytest.mark.parametrize(("options", "low"), [({"dampening": 0.99}, True), ({"eps": 1.0}, True), ({"dampening": 0.5}, False)])
def test_a_rate_that_is_damped_or_divided_away_is_low(options: dict[str, Any], low: bool) -> None:
    slow = run(2.3 - 1e-3 * STEPS, ratio=1e-5, optimizer={"name": "SGD", "lr": 0.05, **options})
    assert [f.cause == "lr_too_low" for f in findings(slow, "OPT004")] == [low]
