"""Several findings of one fault are one: its effects are folded under its cause."""

from __future__ import annotations

import pytest

from evengrad.causes import BRINGS, CAUSES, folded, root_causes
from evengrad.types import SYMPTOMS, Finding


def finding(code: str, symptom: str | None = None, cause: str | None = None, severity: str = "warning") -> Finding:
    return Finding(code=code, symptom=symptom, severity=severity, message=f"{code} 1", cause=cause)


def effects(*findings: Finding) -> dict[str, str | None]:
    return {f.code: f.effect_of for f in folded(findings)}


def test_causes_bring_symptoms_of_the_vocabulary() -> None:
    assert len(CAUSES) == 36
    for brings in BRINGS.values():
        assert brings <= set(SYMPTOMS)


def test_an_explosion_is_one_finding() -> None:
    rate = finding("OPT001", "loss_divergence", "lr_too_high", "error")
    found = effects(
        finding("NUM001", "nan_or_inf", severity="error"), rate, finding("ACT001", "dead_relu"), finding("EXP001", "exploding_gradient")
    )
    assert found == {"NUM001": "OPT001", "OPT001": None, "ACT001": "OPT001", "EXP001": "OPT001"}


def test_a_cause_with_two_findings_has_one_that_stands() -> None:
    found = effects(
        finding("DAT001", None, "input_not_normalized"), finding("ACT002", "saturated_activation", "input_not_normalized", "error")
    )
    assert sorted(map(str, found.values())) == ["ACT002", "None"]


def test_what_a_cause_does_not_bring_stands_by_itself() -> None:
    assert effects(finding("OPT004", "slow_convergence", "lr_too_low"), finding("NUM001", "nan_or_inf"))["NUM001"] is None


def test_two_faults_are_both_named_the_first_in_the_chain_first() -> None:
    findings = folded([finding("OPT001", "loss_divergence", "lr_too_high", "error"), finding("DAT003", None, "labels_corrupt")])
    assert [f.effect_of for f in findings] == [None, None]
    assert root_causes(findings) == ("labels_corrupt", "lr_too_high")


def test_a_note_explains_no_warning_and_its_cause_comes_last() -> None:
    findings = folded([finding("DAT001", None, "input_not_normalized", "note"), finding("OPT002", "loss_stuck", "lr_too_low")])
    assert [f.effect_of for f in findings] == [None, None]
    assert root_causes(findings) == ("lr_too_low", "input_not_normalized")


@pytest.mark.parametrize("times", [1, 2])
def test_folding_twice_is_folding_once(times: int) -> None:
    findings = (finding("OPT001", "loss_divergence", "lr_too_high"), finding("NUM001", "nan_or_inf"), finding("NUM001", "nan_or_inf"))
    once = folded(findings)
    for _ in range(times):
        assert folded(once) == once
    assert len(once) == 3
