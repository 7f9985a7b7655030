"""Every discovered rule goes through the same table, and every symptom has a code."""

from __future__ import annotations

import operator
import re
from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evengrad import rules, synthetic
from evengrad.causes import CAUSES
from evengrad.rules import Rule, discovered
from evengrad.types import SEVERITIES, SYMPTOMS, Facts, Finding, Trace

# design.md, Vocabulary
SYMPTOM_WORDS = """nan_or_inf exploding_gradient vanishing_gradient zero_gradient signal_collapse dead_relu saturated_activation
loss_divergence loss_stuck plateau slow_convergence oscillating_loss loss_spike constant_output train_eval_gap no_parameter_update
identical_units huge_initial_loss overfitting generalization_failure""".split()
CAUSE_WORDS = """lr_too_high lr_too_low undertrained bad_init_large bad_init_small constant_init input_not_normalized target_not_scaled
bad_hidden_activation missing_activation wrong_output_activation redundant_output_activation wrong_loss loss_reduction unstable_loss
sign_error missing_normalization_layer too_deep_no_skip too_narrow_relu no_grad_clip no_warmup over_regularized over_clipped
batch_too_small labels_corrupt data_nan missing_zero_grad frozen_params bn_stats scheduler_bug low_precision long_memory attention_logits
selu_conditions init_activation_mismatch capacity_too_small""".split()
RELATIONS = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le, "==": operator.eq, "!=": operator.ne}
PLACES = {"inputs", "targets", "loss", "optimizer", "loop", "validation"}  # where a fault can be beside the layers
RULES = [pytest.param(member(), id=code) for code, member in discovered().items()]
SICK = [pytest.param(m(), t, id=f"{c}-{i}") for c, m in discovered().items() for i, t in enumerate(m.examples().sick)]
HEALTHY = [pytest.param(m(), t, id=f"{c}-{i}") for c, m in discovered().items() for i, t in enumerate(m.examples().healthy)]
every_rule = pytest.mark.parametrize("rule", RULES)


def found(rule: Rule, trace: Trace) -> tuple[Finding, ...]:
    return tuple(rule.check(trace))


def test_rules_are_found() -> None:
    codes = "ACT001 ACT002 ACT003 DAT001 EXP001 INI001 INI002 INI003 NUM001 VAN001 VAN002".split()
    assert set(codes) <= set(discovered())


def test_vocabulary_is_the_one_of_the_types() -> None:
    assert set(SYMPTOMS) == set(SYMPTOM_WORDS)
    assert set(CAUSES) == set(CAUSE_WORDS)


@every_rule
def test_code_is_three_letters_and_three_digits(rule: Rule) -> None:
    assert re.fullmatch(r"(VAN|EXP|NUM|ACT|INI|OPT|NRM|DAT|ARC|GEN)\d{3}", rule.code)
    assert discovered()[rule.code] is type(rule)
    assert getattr(rules, type(rule).__name__) is type(rule)


@every_rule
def test_words_are_of_the_vocabulary(rule: Rule) -> None:
    assert rule.symptom is None or rule.symptom in SYMPTOM_WORDS
    assert rule.causes
    assert set(rule.causes) <= set(CAUSE_WORDS)


@every_rule
def test_explains_itself(rule: Rule) -> None:
    text = type(rule).__doc__ or ""
    assert rule.title
    assert rule.helps
    assert "Reference:" in text
    assert re.search(r"Reference:.*\d{3,4}", text, re.DOTALL)  # a year, or the number of a standard
    assert rule.signal[0]
    assert rule.needs


@every_rule
def test_thresholds_are_documented_fields_that_nobody_can_change(rule: Rule) -> None:
    names = [f.name for f in fields(rule)]
    assert names
    for name in names:
        assert f"        {name}: " in (type(rule).__doc__ or ""), name
        assert isinstance(getattr(rule, name), (int, float))
        with pytest.raises(FrozenInstanceError):
            setattr(rule, name, 0)


@every_rule
def test_has_examples_on_both_sides(rule: Rule) -> None:
    examples = rule.examples()
    assert examples.sick
    assert examples.healthy


@pytest.mark.parametrize(("rule", "trace"), SICK)
def test_sick_example_is_flagged_by_a_finding_that_holds(rule: Rule, trace: Trace) -> None:
    assert rule.missing(trace) is None
    findings = found(rule, trace)
    assert findings
    for finding in findings:
        assert (finding.code, finding.symptom) == (rule.code, rule.symptom)
        assert finding.severity in SEVERITIES
        assert re.search(r"\d", finding.message), finding.message
        assert not re.search(r"\b(may|might|could|perhaps|possibly)\b", finding.message), finding.message
        assert finding.evidence
        assert finding.where
        assert set(finding.where) <= {layer.name for layer in trace.layers} | PLACES
        last = max([trace.steps[-1], *(curve.steps[-1] for curve in trace.curves.values())])
        assert trace.steps[0] <= finding.steps[0] <= finding.steps[1] <= last
        assert finding.cause is None or finding.cause in rule.causes  # named by direct evidence, or not yet
        for evidence in finding.evidence:
            assert RELATIONS[evidence.relation](evidence.value, evidence.threshold), evidence


@pytest.mark.parametrize(("rule", "trace"), SICK)
def test_deciding_number_of_a_sick_example_is_finite(rule: Rule, trace: Trace) -> None:
    assert np.isfinite(rule.value(trace))


@pytest.mark.parametrize(("rule", "trace"), HEALTHY)
def test_healthy_example_is_not_flagged(rule: Rule, trace: Trace) -> None:
    assert found(rule, trace) == ()


@pytest.mark.parametrize(("rule", "trace"), [*SICK, *HEALTHY])
def test_trace_is_only_read_and_read_alike_each_time(rule: Rule, trace: Trace) -> None:
    kept = {name: column.copy() for name, column in trace.columns.items()}
    for column in trace.columns.values():
        column.setflags(write=False)
    assert found(rule, trace) == found(rule, trace)
    rule.value(trace)
    for name, column in kept.items():
        np.testing.assert_array_equal(trace.columns[name], column)


@every_rule
def test_says_why_it_is_skipped(rule: Rule) -> None:
    for unseen in (synthetic.chain(4), synthetic.chain(4, **{n: np.nan for n in rule.needs if "." not in n}, facts=Facts())):
        reason = rule.missing(unseen)
        assert reason
        assert any(need.rpartition(".")[2] in reason for need in rule.needs)


@every_rule
def test_trace_without_layers_raises_nothing(rule: Rule) -> None:
    empty = replace(synthetic.chain(0), columns={})
    if rule.missing(empty) is None:
        assert found(rule, empty) == ()


@every_rule
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_columns_full_of_nothing_raise_nothing(rule: Rule, bad: float) -> None:
    for layer in ({"activation": "relu"}, {"activation": "tanh"}, {"activation": "unknown", "fan_in": 0, "fan_out": 0}):
        columns = {need: bad for need in rule.needs if "." not in need}
        trace = synthetic.chain(4, facts=Facts(inputs={}), layer=layer, **columns)
        if rule.missing(trace) is None:
            found(rule, trace)
            rule.value(trace)


@pytest.mark.parametrize(("rule", "trace"), [*SICK, *HEALTHY])
@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_findings_do_not_depend_on_the_scale_of_the_loss(rule: Rule, trace: Trace, factor: float) -> None:
    if rule.scale_dependent or rule.code.startswith("NUM"):  # infinity times anything is infinity, but 3e38 times 1000 is too
        return
    with np.errstate(under="ignore"):
        sized = [k for k in trace.columns if k.startswith("grad_") and not k.endswith("_agreement")]  # a cosine has no scale
        scaled = {k: np.float32(factor) * v if k in sized else v for k, v in trace.columns.items()}
    if any(((v == 0) != (scaled[k] == 0)).any() for k, v in trace.columns.items()):
        return  # single precision itself ends here: what became zero is zero
    other = replace(trace, columns=scaled)
    assert [(f.code, f.severity, f.where) for f in found(rule, other)] == [(f.code, f.severity, f.where) for f in found(rule, trace)]


@settings(max_examples=60, deadline=None)
@given(depth=st.integers(3, 60), decades=st.floats(-9, 9), size=st.floats(-20, 20), noise=st.integers(0, 2**32 - 1))
def test_gradient_rules_judge_the_total_change_alone(depth: int, decades: float, size: float, noise: int) -> None:
    """Whatever the depth, the absolute size and a jitter of 5%, four decades are an error and less than two are healthy."""
    jitter = 1 + 0.05 * np.random.default_rng(noise).standard_normal(depth).clip(-2, 2)
    profile = 10.0**size * np.logspace(decades, 0, depth) * jitter
    trace = synthetic.chain(depth, grad_out_norm=profile, out_spread=1.0)
    vanishing, exploding = found(discovered()["VAN001"](), trace), found(discovered()["EXP001"](), trace)
    assert not (vanishing and exploding)
    if decades < -2.6:
        assert vanishing
    if decades > 2.6:
        assert exploding
    if abs(decades) < 1.9:
        assert not vanishing
        assert not exploding
    if abs(decades) > 4.1:
        assert (vanishing or exploding)[0].severity == "error"


@settings(max_examples=60, deadline=None)
@given(
    depth=st.integers(0, 6),
    steps=st.integers(1, 4),
    draw=st.integers(0, 2**32 - 1),
    activation=st.sampled_from(["relu", "tanh", "unknown"]),
)
def test_numbers_of_any_kind_raise_nothing(depth: int, steps: int, draw: int, activation: str) -> None:
    generator = np.random.default_rng(draw)
    names = {need for member in discovered().values() for need in member.needs if "." not in need} | {"grad_out_abs_max", "grad_abs_max"}
    columns = {}
    for name in sorted(names):
        share = name.endswith("fraction")
        odd = [0.0, 1.0, np.nan] if share else [0.0, np.nan, np.inf, 1e-45, 3e38, 1.0]
        usual = generator.random((steps, depth)) if share else 10.0 ** generator.uniform(-30, 30, (steps, depth))
        columns[name] = np.where(generator.random((steps, depth)) < 0.5, usual, generator.choice(odd, (steps, depth)))
    trace = synthetic.chain(depth, steps=steps, layer={"activation": activation}, **columns)
    for member in discovered().values():
        if member().missing(trace) is None:
            assert all(finding.message for finding in found(member(), trace))
            member().value(trace)


def test_vanishing_within_a_run_is_flagged_only_if_it_lasts() -> None:
    healthy, sick = np.ones(8), synthetic.geometric(8, 0.1)
    rule = discovered()["VAN001"]()
    assert not found(rule, synthetic.chain(8, steps=3, grad_out_norm=np.stack((healthy, sick, healthy))))
    (finding,) = found(rule, synthetic.chain(8, steps=3, grad_out_norm=np.stack((healthy, sick, sick))))
    assert finding.steps == (1, 2)


def test_ends_of_a_network_count_whatever_their_shape() -> None:
    """Of five layers the three in the middle share a shape: the total is that of five, or a deeper network would look healthier."""
    trace = synthetic.chain(5, grad_out_norm=synthetic.geometric(5, 0.15))
    ends = tuple(replace(x, group=k) for x, k in zip(trace.layers, (1, 0, 0, 0, 2), strict=True))
    rule = discovered()["VAN001"]()
    (one,), (other,) = found(rule, trace), found(rule, replace(trace, layers=ends))
    assert one.severity == other.severity == "error"
    assert other.evidence[1].value == pytest.approx(4 * -np.log10(0.15), rel=1e-4)


def test_few_weights_have_a_mean_by_chance() -> None:
    """Sixteen weights of mean zero are half their RMS off once in twenty draws; a hundred with that mean are no chance."""
    rule = discovered()["INI003"]()
    for width, flagged in ((4, False), (10, True)):
        layer = {"fan_in": width, "fan_out": width}
        trace = synthetic.chain(3, width=width, layer=layer, weight_norm=width * 0.5, weight_mean=0.3)
        assert bool(found(rule, trace)) == flagged
