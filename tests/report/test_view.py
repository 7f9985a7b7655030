"""Report -> what is shown: the sentences, numbers and states that every rendering shares."""

from __future__ import annotations

import math
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest

from evengrad import synthetic
from evengrad.report import Report
from evengrad.report.numbers import factor, number, percent, quantity, seconds
from evengrad.report.planes import blocks, middles, planes, relative, shown_index, thin
from evengrad.report.profile import profile
from evengrad.report.trials import trials
from evengrad.report.view import patch_lines, view
from evengrad.report.wording import change_label, change_phrase
from evengrad.signals import relative_profile
from evengrad.types import Curve, Facts, Finding, Proposal


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.71, "0.71"),
        (18.0, "18"),
        (2.84e-12, "2.8e-12"),
        (0.0, "0"),
        (-0.5, "−0.5"),
        (12345.0, "12,345"),
        (1e9, "1e9"),
        (0.00315, "0.00315"),
    ],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text


def test_a_share_never_rounds_to_an_end_it_does_not_reach() -> None:
    assert [percent(x) for x in (0.0, 0.001, 0.5, 0.999, 1.0)] == ["0%", "<1%", "50%", ">99%", "100%"]


def test_a_signal_is_read_by_its_kind() -> None:
    assert quantity("gradient_gain", 0.24) == "×0.24 a layer"
    assert quantity("gradient_slope", -1.0) == "×0.10 a layer"
    assert quantity("dead_fraction", 0.84) == "84%"
    assert quantity("zero_layers", 3, "layers") == "3 layers"
    assert [seconds(x) for x in (0.06, 3.21, 74.2, 250)] == ["0.06 s", "3.2 s", "74 s", "4 min 10 s"]
    assert factor(2.8e-12) == "×2.8e-12"


def test_verdict_of_a_check_names_the_fault_the_number_and_the_cause(samples: ModuleType) -> None:
    shown = view(samples.check())
    assert shown.verdict.headline == "This network is unlikely to train: its gradient vanishes on its way down."
    assert "×0.24 a layer (−0.62 decades, R² 1.00)" in shown.verdict.detail
    assert "layer 1 receives 1.6e-12 of what layer 20 gets" in shown.verdict.detail
    assert shown.verdict.detail.endswith("Cause: the sigmoid activation.")
    assert (shown.verdict.tone, shown.verdict.figure) == ("bad", "2%")
    assert shown.header == "20 layers, one batch of 128, 0.06 s"
    assert shown.next == "evengrad fix stuck.py:experiment"


def test_cause_lines_come_from_the_interventions(samples: ModuleType) -> None:
    finding = view(samples.check()).findings[0]
    assert finding.proof == "tanh (Glorot) in place of sigmoid brings it to ×0.98 a layer; new initialisation (He) alone leaves ×0.26"
    assert finding.also == ("batch norm before each activation (×1.07)", "skip connections around every second layer (×0.91)")
    assert finding.attempt == "swap_activation sigmoid → tanh (Glorot)"
    assert finding.evidence == ("gradient gain ×0.24 a layer < ×0.78 a layer",)


def test_nothing_restored_is_said_without_a_cause(samples: ModuleType) -> None:
    base = samples.check()
    report = replace(base, interventions=base.interventions[:1], proposals=())
    assert view(report).findings[0].proof == "new initialisation (He) leaves ×0.26"


def test_verbs_agree_with_the_change(samples: ModuleType) -> None:
    base = samples.check()
    inputs = replace(base.interventions[0], proposal=Proposal(remedy="standardize_input", summary="standardize_input"), after=math.nan)
    skips = replace(base.interventions[3], cause="bad_hidden_activation")
    proof = view(replace(base, interventions=(inputs, skips))).findings[0].proof
    assert proof == (
        "skip connections around every second layer bring it to ×0.91 a layer; standardised inputs alone leave nothing finite to measure"
    )


def test_verdicts_of_a_fix(samples: ModuleType) -> None:
    fixed, failed = view(samples.fixed()).verdict, view(samples.nothing_helped()).verdict
    assert (fixed.tone, fixed.headline, fixed.figure) == ("good", "Fixed: sigmoid → tanh (Glorot).", "84.1%")
    assert fixed.detail.startswith("Accuracy 10.0% → 84.1%, median of 5 seeds.")
    assert (failed.tone, failed.headline) == ("bad", "Nothing that was tried helps.")
    assert view(replace(samples.fixed(), verdict="improved")).verdict.headline.startswith("Better, not yet healthy")


def test_a_clean_check_says_how_many_rules_looked(samples: ModuleType) -> None:
    shown = view(samples.healthy())
    assert shown.verdict.headline == "No fault found."
    assert shown.verdict.detail.startswith("10 rules looked and found nothing.")
    assert shown.next == ""


def test_without_a_chance_the_deciding_number_is_shown(samples: ModuleType) -> None:
    verdict = view(samples.run()).verdict
    assert verdict.headline == "This network has a fault: many of its units are dead."
    assert (verdict.figure, verdict.caption) == ("84%", "dead fraction, net.0")


def test_trials_are_distributions_and_a_diverged_seed_is_the_worst(samples: ModuleType) -> None:
    table = trials(samples.fixed())
    assert table is not None
    assert [r.label for r in table.rows] == [
        "nothing",
        "new initialisation (He)",
        "sigmoid → tanh (Glorot)",
        "batch norm before each activation",
    ]
    assert [r.chosen for r in table.rows] == [False, False, True, False]
    assert [r.findings for r in table.rows] == ["VAN001", "VAN001", "none", "none"]
    best, norm = table.rows[2:]
    assert (best.low, best.median, best.high) == (0.82, 0.841, 0.85)
    assert (norm.low, norm.median, norm.failed, len(norm.dots)) == (-math.inf, 0.786, 1, 4)
    assert table.rows[0].values == (0.098, 0.1, 0.1, 0.1, 0.104)


def test_skipped_is_grouped_by_reason(samples: ModuleType) -> None:
    assert view(samples.check()).skipped == (("updates, OPT001", "no step was taken"), ("validation", "no data given"))


def test_patch_lines_know_what_goes_and_what_comes() -> None:
    kinds = [line.kind for line in patch_lines("--- a.py\n+++ b.py\n-old\n+new\n same\n")]
    assert kinds == ["context", "context", "del", "add", "context"]


def test_changes_read_as_words() -> None:
    swap = Proposal(remedy="swap_activation", summary="swap_activation relu -> selu")
    rate = Proposal(remedy="lower_rate", summary="lower_rate 1.0 -> 0.1")
    assert (change_label(swap), change_phrase(swap)) == ("relu → selu", "selu in place of relu")
    assert change_phrase(rate) == "rate 1.0 → 0.1"
    assert change_label(Proposal(remedy="clip_norm")) == "clipping by norm"
    pair = Proposal(remedy="initialize+clip_norm", options={"parts": ["initialize (he_normal)", "clip_norm 1"]}, summary="x and y")
    assert change_label(pair) == "new initialisation (he normal) and clipping by norm (1)"
    assert change_label(Proposal(remedy="own_idea", summary="Halve the depth")) == "Halve the depth"


def test_relative_planes_agree_with_the_signal(samples: ModuleType) -> None:
    trace = samples.run().trace
    for index in (0, 60, 100):
        ours, theirs = relative(trace, "grad_out_norm", last=True)[index], relative_profile(trace, index=index)
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)  # ours is float32


def test_zero_and_not_finite_are_states_of_their_own(samples: ModuleType) -> None:
    gradient = planes(samples.run().trace)[0].values
    assert (gradient[100, :2] == 0).all()
    assert np.isinf(gradient[-6:]).all()
    assert np.isfinite(gradient[:70]).all()


def test_a_single_step_that_blew_up_is_not_taken_for_unseen() -> None:
    trace = synthetic.chain(3, grad_out_norm=[np.nan, np.inf, 1.0], facts=Facts(loss={"value": 1.0}))
    assert list(relative(trace, "grad_out_norm", last=True)[0]) == [np.inf, np.inf, 1.0]
    unseen = synthetic.chain(3, grad_out_norm=[np.nan, 0.5, 1.0])
    assert np.isnan(relative(unseen, "grad_out_norm", last=True)[0, 0])
    states = [b.state for b in profile(Report(run=trace.run, trace=trace)).strips[0].bars]  # type: ignore[union-attr]
    assert states == ["nan", "nan", "value"]


def test_steps_at_which_layers_were_not_looked_at_are_drawn_as_last_seen() -> None:
    seen = np.full((5, 3), np.nan)
    seen[1], seen[3] = (0.25, 0.5, 1.0), (np.inf, 0.5, 1.0)
    trace = synthetic.chain(3, steps=5, grad_out_norm=seen, update_norm=1e-3, weight_norm=1.0)
    gradient = next(p for p in planes(trace) if p.key == "gradient").values
    assert np.isnan(gradient[0]).all()
    np.testing.assert_allclose(gradient[1:3], [[0.25, 0.5, 1.0]] * 2)
    np.testing.assert_allclose(gradient[3:], [[np.inf, 0.5, 1.0]] * 2)


def test_a_first_update_that_has_not_come_is_unseen() -> None:
    update = np.full((3, 3), 1e-3)
    update[0] = np.nan
    trace = synthetic.chain(3, steps=3, update_norm=update, weight_norm=1.0, grad_out_norm=1.0)
    plane = next(p for p in planes(trace) if p.key.startswith("update"))
    assert np.isnan(plane.values[0]).all()
    np.testing.assert_allclose(plane.values[1:], 1e-3, rtol=1e-6)  # float32


def test_a_ratio_below_float32_is_not_zero() -> None:
    trace = synthetic.chain(2, grad_out_norm=[1e-30, 1e30])
    assert relative(trace, "grad_out_norm", last=True)[0, 0] > 0


def test_pooling_keeps_the_worst_state() -> None:
    values = np.array([1, 2, 3, 0, 5, np.inf, 7, np.nan], np.float32)
    assert list(middles(values, blocks(8, 4))) == [1.5, 0.0, np.inf, 7.0]


def test_thinning_a_curve_keeps_spikes_and_gaps() -> None:
    values = np.zeros(10_000)
    values[5000], values[7000] = 9.0, np.nan
    steps, thinned = thin(np.arange(10_000, dtype=np.int64), values)
    assert len(steps) < 1000
    assert 5000 in steps
    assert 7000 in steps
    assert np.nanmax(thinned) == 9.0


def test_the_strip_shows_the_step_of_the_finding(samples: ModuleType) -> None:
    assert shown_index(samples.run().trace, 301) == 75


@pytest.mark.parametrize("keep", [False, True])
def test_an_empty_report_has_a_view(samples: ModuleType, keep: bool) -> None:
    trace = samples.trace()
    bare = replace(trace, layers=(), columns={}, curves={"loss": Curve(np.zeros(0, np.int64), np.zeros(0))})
    shown = view(Report(run=trace.run, trace=bare if keep else None))
    assert shown.profile is None
    assert shown.verdict.headline == "No fault found."


def test_an_effect_stands_under_what_it_follows_from_and_ideas_are_against_the_root() -> None:
    root = Finding(code="OPT001", symptom="loss_divergence", severity="error", message="the loss grows to 317", cause="lr_too_high")
    effect = Finding(code="VAN001", symptom="vanishing_gradient", severity="error", message="×0.1 a layer", effect_of="OPT001")
    ideas = tuple(Proposal(remedy=r, cause=c, summary=r) for r, c in (("initialize", "bad_init_small"), ("lower_rate", "lr_too_high")))
    report = Report(run=synthetic.chain(3).run, findings=(effect, root), causes=("lr_too_high",), proposals=ideas)
    seen = view(report)
    assert "its loss diverges" in seen.verdict.headline
    assert [(f.code, f.brings) for f in seen.findings] == [("OPT001", ("VAN001 ×0.1 a layer",))]
    assert [idea.summary for idea in seen.ideas] == ["lower_rate"]
    assert len(view(replace(report, causes=())).ideas) == 2
    text, page = str(report), report.to_json()
    assert "brings  VAN001" in text
    assert Report.from_json(page) == report


def test_a_verdict_is_as_grave_as_what_its_root_brings_about(samples: ModuleType) -> None:
    base = samples.check()
    root = replace(base.findings[1], code="INI001", symptom=None, cause="init_activation_mismatch")
    brought = replace(base.findings[0], effect_of="INI001", cause=None)
    verdict = view(replace(base, findings=(root, brought), causes=("init_activation_mismatch",), trainability=None)).verdict
    assert (verdict.tone, verdict.headline) == ("bad", "This network has a fault: its gradient vanishes on its way down.")
    assert "Cause: an initialisation made for another activation" in verdict.detail
    assert verdict.figure == "×0.24"
