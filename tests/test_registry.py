"""Members are found in a package's files and in what other packages add, under names that nobody else has."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from evengrad import registry, synthetic
from evengrad.errors import EvengradError
from evengrad.judge import chosen_rules, judge
from evengrad.remedies import Remedy
from evengrad.remedies import discovered as remedies
from evengrad.rules import Rule
from evengrad.rules import discovered as rules

SHARED = {"schemes", "plans", "fills", "gains", "rescaling", "rates", "pacing", "clipping", "rewriting", "surgery", "fold", "over_time"}

RULE = '''
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from evengrad.rules import Rule, VanishingGradient
from evengrad.rules.base import Examples
from evengrad import synthetic


@dataclass(frozen=True, kw_only=True)
class TooWide(Rule):
    """A layer has more units than the office has chairs."""

    code: ClassVar[str] = "{code}"
    symptom: ClassVar[str | None] = None
    title: ClassVar[str] = "a layer is too wide"
    signal: ClassVar[tuple[str, str]] = ("width", "units")
    max_units: int = 8

    def check(self, trace):
        if trace.layers[0].fan_out > self.max_units:
            yield self.finding(trace, "warning", "too wide", evidence=(), where=(trace.layers[0].name,), at=(0, 0))

    def value(self, trace):
        return float(trace.layers[0].fan_out)

    @classmethod
    def examples(cls):
        return Examples(sick=(synthetic.chain(2, width=9),), healthy=(synthetic.chain(2, width=8),))


class _Hidden(TooWide):
    code = "HID001"
'''
Installed = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installed]:
    """Puts a third party's package with an entry point on the path, as pip would."""
    modules = set(sys.modules)

    def put(source: str, *, value: str = "office_rules", group: str = "evengrad.rules") -> None:
        (tmp_path / "office_rules.py").write_text(source, encoding="utf-8")
        info = tmp_path / "office_rules-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: office-rules\nVersion: 1.0\n", encoding="utf-8")
        (info / "entry_points.txt").write_text(f"[{group}]\noffice = {value}\n", encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)
        importlib.invalidate_caches()
        registry.members.cache_clear()

    registry.members.cache_clear()
    yield put
    registry.members.cache_clear()
    for name in set(sys.modules) - modules:
        if name.startswith("office_rules"):
            del sys.modules[name]


@pytest.mark.parametrize("value", ["office_rules", "office_rules:TooWide"], ids=["a module", "a class"])
def test_a_rule_of_a_third_party_is_found_and_runs(install: Installed, value: str) -> None:
    assert "WID001" not in rules()
    install(RULE.format(code="WID001"), value=value)
    found = rules()
    assert "WID001" in found
    assert "HID001" not in found  # a private class is nobody's member
    assert list(found) == sorted(found)
    report = judge(synthetic.chain(3, width=9), chosen_rules(select=["WID"]))
    assert [f.code for f in report.findings] == ["WID001"]
    assert report.checked == ("WID001",)


def test_two_members_with_one_code_are_refused_by_name(install: Installed) -> None:
    install(RULE.format(code="VAN001"))
    with pytest.raises(EvengradError, match=r"two members of evengrad\.rules are called 'VAN001': VanishingGradient and TooWide"):
        rules()


def test_a_member_without_a_code_is_refused_by_name(install: Installed) -> None:
    install(RULE.replace('    code: ClassVar[str] = "{code}"\n', "").split("class _Hidden")[0])
    with pytest.raises(EvengradError, match=r"office_rules\.TooWide has no 'code': give it one"):
        rules()


@pytest.mark.parametrize(("source", "value"), [("1 / 0", "office_rules"), ("", "office_rules:Missing"), ("", "nowhere_at_all")])
def test_what_cannot_be_loaded_is_named_with_its_package(install: Installed, source: str, value: str) -> None:
    install(source, value=value)
    with pytest.raises(
        EvengradError, match=r"'office', which office-rules adds to evengrad\.rules, cannot be loaded: .*Mend or uninstall it"
    ):
        rules()


def test_entry_points_of_another_group_are_left_alone(install: Installed) -> None:
    install(RULE.format(code="WID001"), group="somebody.elses")
    assert "WID001" not in rules()


def test_an_entry_point_that_is_neither_class_nor_module_is_passed(install: Installed) -> None:
    install("number = 3", value="office_rules:number")
    assert "VAN001" in rules()


@pytest.mark.parametrize(("discovered", "base", "key"), [(rules, Rule, "code"), (remedies, Remedy, "name")])
def test_every_file_of_a_family_holds_a_member(discovered: Callable[[], dict[str, type]], base: type, key: str) -> None:
    found = discovered()
    assert all(issubclass(member, base) and getattr(member, key) == name for name, member in found.items())
    package = importlib.import_module(base.__module__.rpartition(".")[0])
    files = {p.stem for p in Path(str(package.__file__)).parent.glob("*.py")} - {"__init__", "base", *SHARED}
    homes = {member.__module__.rpartition(".")[2] for member in found.values()}
    assert homes == {f for f in files if f != "insert_norm"} | ({"insert_norm"} & files)


def test_members_can_be_taken_from_their_package_by_class_name() -> None:
    import evengrad.remedies
    import evengrad.rules

    assert evengrad.rules.VanishingGradient is rules()["VAN001"]
    assert evengrad.remedies.BatchNorm is remedies()["batch_norm"]
    with pytest.raises(AttributeError, match="has no attribute 'VanishingGradeint'"):
        evengrad.rules.VanishingGradeint  # noqa: B018


def test_every_cause_has_a_remedy_that_is_meant_for_it() -> None:
    from evengrad.causes import CAUSES

    treated = {cause for member in remedies().values() for cause in member.causes}  # type: ignore[attr-defined]
    assert set(CAUSES) == treated
