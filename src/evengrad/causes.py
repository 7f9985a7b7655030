"""Findings -> the causes behind them, the first cause first, and which findings are only effects of another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from evengrad.types import SEVERITIES, Finding

_POOR = frozenset({"loss_stuck", "plateau", "slow_convergence", "constant_output"})  # any fault can end in a loss that does not fall
WILD = frozenset({"nan_or_inf", "exploding_gradient", "loss_divergence", "loss_spike", "oscillating_loss"})
_DEAD = frozenset({"dead_relu", "saturated_activation", "zero_gradient", "vanishing_gradient", "signal_collapse"})
_APART = frozenset({"generalization_failure", "overfitting", "train_eval_gap"})
_ALL = _POOR | WILD | _DEAD | _APART | {"huge_initial_loss", "no_parameter_update", "identical_units"}

BRINGS: dict[str, frozenset[str]] = {  # cause -> symptoms that follow from it; what others follow from comes first
    "data_nan": _ALL,
    "labels_corrupt": _POOR | _APART | {"oscillating_loss"},
    "sign_error": _ALL,
    "wrong_loss": _POOR | WILD | _DEAD | {"huge_initial_loss"},
    "unstable_loss": _ALL,
    "redundant_output_activation": _POOR | _DEAD | {"no_parameter_update"},
    "wrong_output_activation": _POOR | _DEAD | {"huge_initial_loss", "no_parameter_update"},
    "missing_zero_grad": _POOR | WILD | _DEAD,
    "frozen_params": _POOR | {"no_parameter_update", "zero_gradient", "signal_collapse"},
    "bn_stats": _POOR | WILD | _APART,
    "low_precision": _POOR | WILD | {"no_parameter_update", "zero_gradient"},
    "target_not_scaled": _POOR | WILD | _DEAD | {"huge_initial_loss"},
    "input_not_normalized": _POOR | WILD | _DEAD | _APART | {"huge_initial_loss"},
    "loss_reduction": _POOR | WILD | _DEAD | {"huge_initial_loss"},
    "constant_init": _POOR | _DEAD | {"identical_units", "huge_initial_loss"},
    "missing_activation": _POOR | {"huge_initial_loss"},
    "selu_conditions": _POOR | WILD | _DEAD,
    "bad_init_large": _POOR | WILD | _DEAD | {"huge_initial_loss", "overfitting"},
    "bad_init_small": _POOR | _DEAD,
    "too_narrow_relu": _POOR | _DEAD,
    "too_deep_no_skip": _POOR | WILD | _DEAD,
    "bad_hidden_activation": _POOR | _DEAD,
    "init_activation_mismatch": _POOR | WILD | _DEAD,
    "missing_normalization_layer": _POOR | WILD | _DEAD,
    "long_memory": _POOR | {"vanishing_gradient", "exploding_gradient"},
    "attention_logits": _POOR | WILD | _DEAD,
    "batch_too_small": _POOR | WILD | _DEAD | {"train_eval_gap"},
    "scheduler_bug": _POOR | WILD | _DEAD | {"no_parameter_update"},
    "no_warmup": _POOR | WILD | _DEAD,
    "over_clipped": _POOR | {"no_parameter_update", "vanishing_gradient"},
    "over_regularized": _POOR | _DEAD | {"train_eval_gap", "loss_divergence", "oscillating_loss", "loss_spike"},
    "lr_too_high": _POOR | WILD | _DEAD | {"overfitting"},
    "lr_too_low": _POOR | {"no_parameter_update", "vanishing_gradient"},  # which training would have mended
    "no_grad_clip": _POOR | WILD | _DEAD,
    "capacity_too_small": _POOR,
    "undertrained": _POOR | {"no_parameter_update"},
}
CAUSES = tuple(BRINGS)


def folded(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Returns the findings with `effect_of` set where another one's cause brings them about: one explosion is one finding.

    A finding that knows its own cause stands by itself, unless that cause has a finding already. Notes explain nothing but notes.
    """
    result = list(findings)
    roots: list[Finding] = []
    for i in sorted(range(len(findings)), key=lambda i: (not findings[i].cause, _rank(findings[i]))):
        root = next((r for r in roots if _explains(r, findings[i])), None)
        if root is not None:
            result[i] = replace(findings[i], effect_of=root.code)
        else:
            result[i] = replace(findings[i], effect_of=None)
            roots += [result[i]] if result[i].cause else []
    return tuple(result)


def root_causes(findings: Sequence[Finding]) -> tuple[str, ...]:
    """Returns the causes of findings that are no effects, each once: those of warnings and errors, the first cause first; then of notes."""
    named = sorted((f for f in findings if f.cause and f.effect_of is None), key=_rank)
    return tuple(dict.fromkeys(f.cause for f in named if f.cause))


def _explains(root: Finding, finding: Finding) -> bool:
    if root is finding or root.code == finding.code or root.cause is None:
        return False
    if root.severity == SEVERITIES[-1] != finding.severity:
        return False
    if finding.cause == root.cause:
        return True
    return finding.cause is None and finding.symptom in BRINGS.get(root.cause, ())


def _rank(finding: Finding) -> tuple[bool, int, int]:
    cause = CAUSES.index(finding.cause) if finding.cause in CAUSES else len(CAUSES)
    return finding.severity == SEVERITIES[-1], cause, SEVERITIES.index(finding.severity)
