"""The command line as its users meet it: what is printed where, and the exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import evengrad as eg
from evengrad import synthetic
from evengrad.remedies import discovered as remedies
from evengrad.report import Report
from evengrad.rules import discovered
from evengrad.store import RunFile

Run = Callable[..., Any]  # fixtures `cli` and `shell`: arguments -> code, out, err
COMMANDS = ("check", "diagnose", "fix", "demo", "doctor", "rules", "explain", "report", "compare")


# ---------------------------------------------------------------- processes of their own


WORDS = [["--help"], ["rules"], ["rules", "--json"], ["explain", "VAN001"]]
WORDS += [["report", "run.npz"], ["report", "run", "-o", "run.html"], ["report", "run", "--json"], ["compare", "run", "run.npz"]]


@pytest.mark.parametrize("arguments", WORDS, ids=" ".join)
def test_asking_for_words_does_not_import_torch(shell: Run, arguments: list[str], tmp_path: Path) -> None:
    trace = synthetic.chain(3, steps=2, grad_out_norm=1.0)
    trace.save(tmp_path / "run.npz")
    with RunFile.create(tmp_path, "run") as file:
        file.write(layers=trace.layers, frames={0: {"grad_out_norm": trace.columns["grad_out_norm"][0]}})
    arguments = [*arguments, "--store", str(tmp_path)] if arguments[0] in {"report", "compare"} else arguments
    code = (
        "import sys\nfrom evengrad.cli import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    print('torch' in sys.modules, stop.code, file=sys.stderr)"
    )
    done = shell(*arguments, code=code, cwd=tmp_path)
    assert done.err.split()[-2:] == ["False", "0"]
    assert done.out


def test_a_file_is_checked_in_a_process_of_its_own(shell: Run, folder: Path) -> None:
    done = shell("check", "stuck.py:experiment", "-o", "report.html", cwd=folder)
    assert done.code == 1
    assert "VAN001" in done.out
    assert "stuck.py" in done.out
    assert done.err.strip() == f"report: {(folder / 'report.html').resolve()}"
    assert "VAN001" in (folder / "report.html").read_text(encoding="utf-8")


def test_json_is_all_that_stdout_gets(shell: Run, folder: Path) -> None:
    done = shell("fix", "stuck.py:experiment", "--seeds", "1", "--json", cwd=folder)
    document = json.loads(done.out)
    assert document["verdict"] == "fixed"
    assert (done.code, done.err) == (0, "")


# ---------------------------------------------------------------- words


def test_help_names_every_command(cli: Run) -> None:
    done = cli("--help")
    assert done.code == 0
    assert all(f" {name} " in done.out for name in COMMANDS)
    for name in COMMANDS:
        assert cli(name, "--help").code == 0


def test_no_argument_shows_help(cli: Run) -> None:
    assert "check" in cli().out


def test_rules_lists_every_rule_with_its_title(cli: Run) -> None:
    done = cli("rules")
    assert done.code == 0
    assert done.out.splitlines() == [f"{code}  {rule.title}" for code, rule in discovered().items()]


def test_rules_as_json(cli: Run) -> None:
    found = json.loads(cli("rules", "--json").out)
    assert list(found) == list(discovered())
    assert set(found["VAN001"]) == {"title", "symptom", "causes"}
    assert found["VAN001"]["symptom"] == "vanishing_gradient"


@pytest.mark.parametrize("code", sorted(discovered()))
def test_explain_tells_meaning_causes_help_and_thresholds(cli: Run, code: str) -> None:
    done, rule = cli("explain", code), discovered()[code]
    assert done.code == 0
    assert done.out.startswith(f"{code}: {rule.title}\n")
    assert rule.helps in done.out
    assert all(cause in done.out for cause in rule.causes)
    assert "for example" in done.out
    assert "source " in done.out
    assert all(f"  {name} = " in done.out for name in rule().__dict__)
    assert "Attributes:" not in done.out


def test_explain_takes_small_letters(cli: Run) -> None:
    assert cli("explain", "van001").out == cli("explain", "VAN001").out


def test_doctor_says_what_is_there(cli: Run) -> None:
    found = json.loads(cli("doctor", "--json").out)
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["evengrad"] == eg.__version__
    assert found["devices"][0] == "cpu"
    assert (found["rules"], found["remedies"]) == (len(discovered()), len(remedies()))
    done = cli("doctor")
    assert done.code == 0
    assert f"torch          {found['torch']}" in done.out
    assert "sklearn" in done.out


# ---------------------------------------------------------------- check, diagnose, fix


@pytest.mark.parametrize("verb", ["check", "diagnose"])
def test_findings_end_with_one_and_none_with_zero(cli: Run, folder: Path, verb: str) -> None:
    sick, healthy = cli(verb, "stuck.py:experiment"), cli(verb, "stuck.py:healthy")
    assert (sick.code, healthy.code) == (1, 0)
    assert "ERROR VAN001" in sick.out
    assert "ERROR" not in healthy.out
    assert cli(verb, "stuck.py").code == 1  # `experiment` is meant


@pytest.mark.parametrize(
    ("found", "fail_on", "code"), [("NOTE INI001", "note", 1), ("NOTE INI001", "warning", 0), ("ERROR VAN001", "error", 1)]
)
def test_fail_on_sets_the_severity_that_counts(cli: Run, folder: Path, found: str, fail_on: str, code: int) -> None:
    done = cli("check", "stuck.py", "--select", found.split()[1], "--fail-on", fail_on)
    assert found in done.out
    assert done.code == code


def test_select_and_ignore(cli: Run, folder: Path) -> None:
    def codes(*options: str) -> set[str]:
        return {f["code"] for f in json.loads(cli("check", "stuck.py", "--json", "--no-causes", *options).out)["findings"]}

    every = codes()
    assert {"VAN001", "INI001"} <= every
    assert codes("--select", "VAN") == {c for c in every if c.startswith("VAN")}
    assert codes("--select", "VAN", "--select", "INI001") == {c for c in every if c.startswith(("VAN", "INI001"))}
    assert codes("--ignore", "VAN", "--ignore", "ACT") == {c for c in every if not c.startswith(("VAN", "ACT"))}


def test_causes_can_be_left_out(cli: Run, folder: Path) -> None:
    report = Report.from_json(cli("check", "stuck.py", "--json", "--no-causes").out)
    assert report.findings
    assert report.interventions == ()


@pytest.mark.parametrize("verb", ["check", "diagnose"])
def test_json_reads_back_as_the_report(cli: Run, folder: Path, verb: str) -> None:
    done = cli(verb, "stuck.py", "--json", "--seed", "3", "-o", "r.html")
    report = Report.from_json(done.out)
    assert (report.run.name, report.run.verb, report.run.seed) == ("stuck.py:experiment", verb, 3)
    assert (folder / "r.html").exists()
    assert "VAN001" in {f.code for f in report.findings}


def test_the_same_seed_gives_the_same_findings(cli: Run, folder: Path) -> None:
    def evidence(seed: str) -> list[Any]:
        return [f["evidence"] for f in json.loads(cli("check", "stuck.py", "--json", "--seed", seed).out)["findings"]]

    assert evidence("1") == evidence("1") != evidence("2")


def test_fix_fixes_shows_the_patch_and_ends_with_zero(cli: Run, folder: Path) -> None:
    before = (folder / "stuck.py").read_bytes()
    done = cli("fix", "stuck.py", "--seeds", "2", "-o", "fixed.html")
    assert done.code == 0
    assert done.out.lstrip().splitlines()
    assert "Fixed: " in done.out
    assert "in your code:" in done.out
    assert ": seed 1\n" in done.err
    assert f"report: {folder / 'fixed.html'}" in done.err
    assert (folder / "stuck.py").read_bytes() == before


def test_fix_ends_with_zero_where_nothing_is_wrong(cli: Run, folder: Path) -> None:
    done = cli("fix", "stuck.py:healthy", "--seeds", "1", "--json")
    assert (done.code, json.loads(done.out)["verdict"]) == (0, "nothing_wrong")


def test_fix_ends_with_one_where_nothing_helps(cli: Run, folder: Path) -> None:
    source = (folder / "stuck.py").read_text(encoding="utf-8") + "\nfrom dataclasses import replace\n"
    (folder / "hopeless.py").write_text(source + "experiment = replace(experiment, metric=lambda model: 0.5, epochs=1)\n", encoding="utf-8")
    done = cli("fix", "hopeless.py", "--seeds", "1", "--json")
    assert (done.code, json.loads(done.out)["verdict"]) == (1, "nothing_helped")
    assert cli("fix", "stuck.py", "--max-seconds", "0.001", "--json").code == 1


def test_the_device_of_the_command_line_takes_precedence(cli: Run, folder: Path) -> None:
    source = (folder / "stuck.py").read_text(encoding="utf-8") + "\nfrom dataclasses import replace\n"
    (folder / "far.py").write_text(source + "experiment = replace(experiment, device='cuda:7')\n", encoding="utf-8")
    assert cli("check", "far.py").code == 2
    assert cli("check", "far.py", "--device", "cpu").code == 1


# ---------------------------------------------------------------- files of every kind


def test_a_file_is_found_from_anywhere_with_its_helpers(cli: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    assert cli("check", "../stuck.py", "--no-causes").code == 1
    assert cli("check", f"{folder}/stuck.py:experiment", "--no-causes").code == 1


def test_a_file_may_bear_the_name_of_a_module_that_python_has(cli: Run, folder: Path) -> None:
    for name in ("random", "types", "evengrad"):
        (folder / f"{name}_copy.py").write_text((folder / "stuck.py").read_text(encoding="utf-8"), encoding="utf-8")
        (folder / f"{name}_copy.py").rename(folder / f"{name}.py")
    before = {name: sys.modules[name] for name in ("random", "types", "evengrad")}
    for name in before:
        assert cli("check", f"{name}.py", "--no-causes").code == 1
    assert {name: sys.modules[name] for name in before} == before


def test_a_file_with_dataclasses_a_main_guard_and_spaces_in_its_name(cli: Run, folder: Path) -> None:
    text = "from __future__ import annotations\nfrom dataclasses import dataclass\n"
    text += (folder / "stuck.py").read_text(encoding="utf-8")
    text += "\n@dataclass\nclass Settings:\n    rate: float = 0.1\n\nif __name__ == '__main__':\n    raise SystemExit('run me not')\n"
    (folder / "my file é.py").write_text(text, encoding="utf-8")
    assert cli("check", "my file é.py:experiment", "--no-causes").code == 1
