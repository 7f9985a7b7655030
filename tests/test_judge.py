"""A trace and rules -> findings in the order in which they are told, what was checked, and what was not and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

from evengrad import synthetic
from evengrad.errors import InputError, UnknownNameError
from evengrad.judge import chosen_rules, judge
from evengrad.rules import Rule, discovered
from evengrad.rules.base import Examples
from evengrad.rules.non_finite import NonFinite
from evengrad.rules.vanishing_gradient import VanishingGradient
from evengrad.types import Curve, Event, Facts, Finding, Trace

VANISHED = synthetic.chain(6, grad_out_norm=synthetic.geometric(6, 0.25))  # 3.0 decades: an error by default


@dataclass(frozen=True, kw_only=True)
class Fixed(Rule):
    """Always finds the same."""

    code: ClassVar[str] = "FIX001"
    symptom: ClassVar[str | None] = None
    title: ClassVar[str] = "fixed"
    signal: ClassVar[tuple[str, str]] = ("nothing", "")
    told: tuple[tuple[str, str, str | None], ...] = ()

    def check(self, trace: Trace) -> Iterator[Finding]:
        for code, severity, symptom in self.told:
            yield Finding(code=code, symptom=symptom, severity=severity, message="")

    def value(self, trace: Trace) -> float:
        return 0.0

    @classmethod
    def examples(cls) -> Examples:
        return Examples(sick=(), healthy=())


# ---------------------------------------------------------------- which rules run


def codes(**choice: object) -> list[str]:
    return [rule.code for rule in chosen_rules(**choice)]  # type: ignore[arg-type]


def test_all_rules_run_in_the_order_of_their_codes() -> None:
    assert codes() == sorted(discovered())


def test_select_and_ignore_take_codes_and_their_beginnings() -> None:
    van = sorted(c for c in discovered() if c.startswith("VAN"))
    assert len(van) >= 2
    assert codes(select=["VAN"]) == van
    assert codes(select=["VAN001"]) == ["VAN001"]
    assert codes(select=("VAN", "NUM001")) == ["NUM001", *van]
    assert codes(ignore=["VAN"]) == [c for c in sorted(discovered()) if c not in van]
    assert codes(select=["VAN"], ignore=["VAN001"]) == [c for c in van if c != "VAN001"]
    assert codes(ignore=[]) == codes(select=None) == sorted(discovered())
    assert codes(select=iter(["VAN001"])) == ["VAN001"]


def test_one_code_as_a_string_is_one_code() -> None:
    assert codes(select="VAN001") == ["VAN001"]
    assert "VAN001" not in codes(ignore="VAN001")


@pytest.mark.parametrize("choice", ["select", "ignore"])
def test_a_code_that_fits_nothing_gets_the_nearest(choice: str) -> None:
    with pytest.raises(UnknownNameError, match=r"no rule is called 'VAN01'\. Did you mean 'VAN001'\? Known: ACT001"):
        codes(**{choice: ["VAN01"]})


def test_a_rule_with_ones_own_threshold_takes_the_place_of_its_namesake() -> None:
    strict = VanishingGradient(max_lost_decades=0.5, error_decades=1.0)
    chosen = chosen_rules([strict])
    assert [r.code for r in chosen] == sorted(discovered())
    assert strict in chosen
    mild = synthetic.chain(6, grad_out_norm=synthetic.geometric(6, 0.5))  # 1.5 decades
    assert judge(mild, chosen_rules(select=["VAN001"])).findings == ()
    assert [f.severity for f in judge(mild, chosen_rules([strict], select=["VAN001"])).findings] == ["error"]


def test_a_rule_of_ones_own_joins_the_others_and_can_be_selected() -> None:
    assert codes(rules=[Fixed()], select=["FIX"]) == ["FIX001"]
    assert "FIX001" not in codes()


def test_a_rule_class_in_place_of_a_rule_is_refused() -> None:
    with pytest.raises(InputError, match=r"rules must hold instances of evengrad\.Rule; got .*Write rules=\[eg"):
        chosen_rules([VanishingGradient])  # type: ignore[list-item]


# ---------------------------------------------------------------- what is told


def test_errors_come_first_then_by_symptom_then_by_code() -> None:
    told = (
        ("AAA001", "note", "nan_or_inf"),
        ("BBB001", "error", None),
        ("CCC002", "error", "vanishing_gradient"),
        ("CCC001", "error", "vanishing_gradient"),
        ("DDD001", "error", "nan_or_inf"),
        ("EEE001", "warning", "exploding_gradient"),
    )
    found = judge(VANISHED, [Fixed(told=told)]).findings
    assert [f.code for f in found] == ["DDD001", "CCC001", "CCC002", "BBB001", "EEE001", "AAA001"]


def test_a_rule_without_its_column_is_skipped_with_the_reason() -> None:
    unseen = judge(synthetic.chain(6), chosen_rules(select=["VAN001"]))
    assert (unseen.findings, unseen.checked) == ((), ())
    assert unseen.skipped == {"VAN001": f"{VanishingGradient.title}: no layer has a grad_out_norm"}
    nan = synthetic.chain(6, grad_out_norm=np.nan)
    assert judge(nan, chosen_rules(select=["VAN001"])).skipped == unseen.skipped


def test_a_rule_without_its_fact_is_skipped_with_the_reason() -> None:
    without = judge(synthetic.chain(3, facts=Facts(inputs=None)), chosen_rules(select=["DAT001"]))
    assert list(without.skipped) == ["DAT001"]
    assert without.skipped["DAT001"].endswith("nothing is known of the inputs")


def test_every_rule_is_either_checked_or_skipped() -> None:
    judged = judge(VANISHED, chosen_rules())
    assert sorted([*judged.checked, *judged.skipped]) == sorted(discovered())
    assert not set(judged.checked) & set(judged.skipped)
    assert "VAN001" in judged.checked
    assert [f.code for f in judged.findings] == ["VAN001"]


def test_a_rule_judges_the_steps_at_which_its_columns_were_seen() -> None:
    gradient = np.full((6, 6), np.nan)
    gradient[1] = synthetic.geometric(6, 0.25)
    trace = synthetic.chain(6, steps=6, grad_out_norm=gradient, weight_norm=1.0)
    (finding,) = judge(trace, [VanishingGradient()]).findings
    assert finding.steps == (1, 1)
    apart = synthetic.chain(2, steps=2, a=[[1.0, 1.0], [np.nan, np.nan]], b=[[np.nan, np.nan], [1.0, 1.0]])
    assert not len(apart.seen(["a", "b"]).steps)


def test_a_loss_that_is_not_finite_is_blamed_on_the_loss_only_if_the_layers_were_seen() -> None:
    loss = Curve(np.arange(4), np.array([1.0, 1.0, np.nan, np.nan]))
    seen = replace(synthetic.chain(3, steps=4, out_abs_max=1.0), curves={"loss": loss})
    assert "the loss itself makes it" in judge(seen, [NonFinite()]).findings[0].message
    event = Event(step=2, kind="bad_operation", message="log in 1 made 1 of 96 values -inf", where="1")
    told = judge(replace(seen, events=(event,)), [NonFinite()]).findings[0]
    assert (told.message, told.steps) == (event.message, (2, 2))
