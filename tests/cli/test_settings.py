"""What is looked for: pyproject.toml near the file, then the command line; and what has been accepted is not told again."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from evengrad import synthetic
from evengrad.baseline import read_baseline, without, write_baseline
from evengrad.cli.explain import explanation
from evengrad.errors import InputError, UnknownNameError
from evengrad.judge import chosen_rules, report_of
from evengrad.report import Report
from evengrad.rules import discovered
from evengrad.settings import Settings, overridden, settings_near
from evengrad.types import Finding, Trace

Run = Callable[..., Any]

TABLE = """
[tool.evengrad]
select = ["VAN", "ACT"]
ignore = ["ACT003"]
fail-on = "error"
baseline = "known.json"

[tool.evengrad.rules.VAN001]
max_lost_decades = 3
error_decades = 4.5
"""


def vanishing(gain: float = 0.24) -> Trace:
    return synthetic.chain(20, grad_out_norm=synthetic.geometric(20, gain))


def threshold(settings: Settings, code: str, name: str) -> object:
    return getattr(next(r for r in settings.rules() if r.code == code), name)


# ---------------------------------------------------------------- pyproject.toml


def test_nearest_file_with_a_table_says_what_is_looked_for(tmp_path: Path) -> None:
    inner = tmp_path / "package" / "module"
    inner.mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text(TABLE, encoding="utf-8")
    (inner / "pyproject.toml").write_text("[tool.other]\nselect = 3\n", encoding="utf-8")
    for place in (inner / "train.py", inner, tmp_path / "train.py"):
        found = settings_near(place)
        assert (found.select, found.ignore, found.fail_on) == (("VAN", "ACT"), ("ACT003",), "error")
        assert found.baseline == tmp_path / "known.json"
        assert found.file == tmp_path / "pyproject.toml"
        codes = {r.code for r in found.rules()}
        assert codes == {c for c in discovered() if c.startswith(("VAN", "ACT"))} - {"ACT003"}
        assert threshold(found, "VAN001", "max_lost_decades") == 3.0
        assert isinstance(threshold(found, "VAN001", "max_lost_decades"), float)


def test_without_a_file_every_rule_runs_as_it_is(tmp_path: Path) -> None:
    assert settings_near(tmp_path / "train.py").file is None
    assert Settings().rules() == chosen_rules()


@pytest.mark.parametrize(
    ("table", "error", "words"),
    [
        ("[tool.evengrad]\nselekt = []", UnknownNameError, r"no key of .*pyproject.toml \[tool.evengrad\] is called 'selekt'.*'select'"),
        ('[tool.evengrad]\nselect = "VAN"', InputError, "select is 'VAN'; expected a list of codes"),
        ("[tool.evengrad]\nignore = [1]", InputError, r"ignore is \[1\]; expected a list"),
        ('[tool.evengrad]\nignore = ["VAX001"]', UnknownNameError, "ignore.*'VAX001'. Did you mean 'VAN001'"),
        ('[tool.evengrad]\nfail-on = "eror"', UnknownNameError, "'eror'. Did you mean 'error'"),
        ("[tool.evengrad]\nfail-on = 1", InputError, "severity.* is 1; expected one of error, warning, note"),
        ("[tool.evengrad]\nbaseline = 1", InputError, "baseline is 1; expected the name of a file"),
        ("[tool.evengrad]\nrules = 1", InputError, "rules is 1; expected a table for each code"),
        ("[tool.evengrad.rules]\nVAN001 = 3", InputError, "expected a table for each code"),
        ("[tool.evengrad.rules.VAN0]\nx = 1", UnknownNameError, "'VAN0'.*Known: "),
        ("[tool.evengrad.rules.VAN0]", UnknownNameError, "'VAN0'"),
        (
            "[tool.evengrad.rules.VAN001]\nmax_lost = 1",
            UnknownNameError,
            "threshold of VAN001 .*'max_lost'. Did you mean 'max_lost_decades'",
        ),
        ('[tool.evengrad.rules.VAN001]\nmax_lost_decades = "3"', InputError, "max_lost_decades is '3'; expected a number, such as 2.25"),
        ("[tool.evengrad.rules.VAN001]\nmax_lost_decades = true", InputError, "max_lost_decades is True; expected a number"),
        ("[tool.evengrad.rules.VAN001]\nmax_lost_decades = nan", InputError, "max_lost_decades is nan; expected a number"),
        ("[tool.evengrad.rules.NUM001]\nmax_nonfinite = 1.5", InputError, "max_nonfinite is 1.5; expected a whole number, such as 0"),
        ("[tool]\nevengrad = 3", InputError, "tool.evengrad is 3; expected a table"),
        ("[tool.evengrad", InputError, "cannot be read: "),
    ],
)
def test_what_is_wrong_in_the_file_is_named(tmp_path: Path, table: str, error: type[Exception], words: str) -> None:
    (tmp_path / "pyproject.toml").write_text(table, encoding="utf-8")
    with pytest.raises(error, match=words):
        settings_near(tmp_path)


def test_command_line_stands_in_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(TABLE, encoding="utf-8")
    held = settings_near(tmp_path)
    assert overridden(held) == held
    found = overridden(held, select=["EXP"], fail_on="note", rules=["VAN001.max_lost_decades=2"], baseline=tmp_path / "other.json")
    assert (found.select, found.ignore, found.fail_on) == (("EXP",), ("ACT003",), "note")
    assert found.thresholds == {"VAN001": {"max_lost_decades": 2.0, "error_decades": 4.5}}
    assert found.baseline == tmp_path / "other.json"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("VAN001", "'VAN001' is no threshold; expected CODE.NAME=VALUE"),
        ("VAN001.max_lost_decades", "expected CODE.NAME=VALUE"),
        ("VAN001.max_lost_decades=three", "max_lost_decades is 'three'; expected a number"),
        ("VAN01.max_lost_decades=3", "'VAN01'. Did you mean 'VAN001'"),
        ("VAN001.decades=3", "threshold of VAN001 .*'decades'"),
    ],
)
def test_a_threshold_that_is_none_is_told(text: str, words: str) -> None:
    with pytest.raises((InputError, UnknownNameError), match=words):
        overridden(Settings(), rules=[text])


def test_every_threshold_of_every_rule_can_be_set() -> None:
    texts = [f"{code}.{f.name}={getattr(rule(), f.name)}" for code, rule in discovered().items() for f in fields(rule)]
    texts = [t.replace("=True", "=true").replace("=False", "=false") for t in texts]
    assert overridden(Settings(), rules=texts).rules() == chosen_rules()


# ---------------------------------------------------------------- the commands


def test_commands_look_near_the_file_and_not_where_they_are_called(cli: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("check", "stuck.py").code == 1
    (folder / "pyproject.toml").write_text('[tool.evengrad]\nselect = ["EXP"]\n', encoding="utf-8")
    monkeypatch.chdir(folder.parent)
    done = cli("check", f"{folder}/stuck.py", "--json")
    assert (done.code, json.loads(done.out)["findings"]) == (0, [])
    assert cli("check", f"{folder}/stuck.py", "--select", "VAN").code == 1
    (folder / "pyproject.toml").write_text("[tool.evengrad.rules.VAN001]\nmax_lost_decades = 99\n", encoding="utf-8")
    done = cli("check", f"{folder}/stuck.py", "--select", "VAN001")
    assert done.code == 0
    assert cli("check", f"{folder}/stuck.py", "--select", "VAN001", "--rule", "VAN001.max_lost_decades=2").code == 1


def test_fix_leaves_alone_what_is_not_looked_for(cli: Run, folder: Path) -> None:
    done = cli("fix", "stuck.py:healthy", "--seeds", "1", "--select", "EXP", "--json")
    assert done.code == 0
    assert set(json.loads(done.out)["checked"]) <= {c for c in discovered() if c.startswith("EXP")}


def test_report_judges_by_the_settings_here(cli: Run, folder: Path) -> None:
    vanishing().save("run.npz")
    assert "VAN001" in cli("report", "run.npz").out
    (folder / "pyproject.toml").write_text('[tool.evengrad]\nignore = ["VAN"]\n', encoding="utf-8")
    assert "VAN001" not in cli("report", "run.npz").out
    assert "0.24" in cli("report", "run.npz", "--ignore", "EXP", "--rule", "VAN001.error_decades=20").out


def test_watch_judges_by_the_settings_near_the_script(cli: Run, folder: Path) -> None:
    script = (folder / "stuck.py").read_text(encoding="utf-8").split("def stuck")[0] + "\nmodel = deep(SIZES, nn.Sigmoid)\n"
    script += "optimizer = sgd(model)\nfor _ in range(4):\n    optimizer.zero_grad()\n    F.cross_entropy(model(x), y).backward()\n"
    (folder / "train.py").write_text(script + "    optimizer.step()\n", encoding="utf-8")
    arguments = ("watch", "--json", "--no-live", "--store", str(folder / "runs"))
    (folder / "pyproject.toml").write_text('[tool.evengrad]\nignore = ["EXP"]\n', encoding="utf-8")
    for more, left_out in (((), "EXP001"), (("--ignore", "VAN"), "VAN001")):
        shown = json.loads(cli(*arguments, *more, "train.py").out)
        assert {"EXP001", "VAN001"} - {left_out} <= {*shown["checked"], *shown["skipped"]}
        assert left_out not in {*shown["checked"], *shown["skipped"]}


def test_fail_on_of_the_file_decides_the_exit_code(cli: Run, folder: Path) -> None:
    (folder / "pyproject.toml").write_text("[tool.evengrad.rules.VAN001]\nerror_decades = 99\n", encoding="utf-8")
    arguments = ("check", "stuck.py", "--select", "VAN001")
    assert cli(*arguments).code == 1
    assert cli(*arguments, "--fail-on", "error").code == 0
    with (folder / "pyproject.toml").open("a", encoding="utf-8") as file:
        file.write('[tool.evengrad]\nfail-on = "error"\n')
    assert cli(*arguments).code == 0
    assert cli(*arguments, "--fail-on", "warning").code == 1


def test_a_wrong_setting_ends_with_2_before_any_work(cli: Run, folder: Path) -> None:
    for arguments in (["--rule", "VAN001.no=1"], ["--fail-on", "bad"], ["--select", "XYZ"], ["--baseline", "nowhere.json"]):
        done = cli("check", "stuck.py", *arguments)
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith("error: ")


# ---------------------------------------------------------------- the baseline


def report(*traces: Trace) -> Report:
    (trace,) = traces or (vanishing(),)
    return report_of(trace, chosen_rules(select=["VAN001"]))


def test_an_accepted_finding_is_hidden_and_said_to_be(tmp_path: Path) -> None:
    path = tmp_path / "known.json"
    assert write_baseline(path, report().findings) == 1
    found = without(report(), read_baseline(path), path.name)
    assert (found.findings, found.causes) == ((), ())
    assert found.skipped["accepted findings"] == "1 in known.json: VAN001 at 0"
    assert "VAN001 at 0" in " ".join(str(found).split())
    assert found.checked == ()  # nobody looked and found nothing
    assert without(report(vanishing(0.99)), read_baseline(path), path.name).findings == ()
    (entry,) = json.loads(path.read_text(encoding="utf-8"))["accepted"]
    assert entry["message"] == report().findings[0].message


def test_what_is_worse_or_elsewhere_is_told_again(tmp_path: Path) -> None:
    path = tmp_path / "known.json"
    (finding,) = report().findings
    write_baseline(path, [replace(finding, severity="warning", where=("0", "2"))])

    def told(**changes: Any) -> bool:
        changed: Finding = replace(finding, **{"severity": "warning", "where": ("2",), **changes})
        return bool(without(replace(report(), findings=(changed,)), read_baseline(path), "b").findings)

    assert not told()
    assert not told(severity="note", where=("2", "0"), message="another number")
    assert told(severity="error")
    assert told(where=("2", "4"))
    assert told(code="VAN002")


def test_commands_write_and_heed_a_baseline(cli: Run, folder: Path) -> None:
    done = cli("check", "stuck.py", "--write-baseline", "known.json")
    assert done.code == 0
    assert "accepted)" in done.err
    first = (folder / "known.json").read_bytes()
    done = cli("check", "stuck.py", "--baseline", "known.json", "--json")
    assert (done.code, json.loads(done.out)["findings"]) == (0, [])
    assert "VAN001" in json.loads(done.out)["skipped"]["accepted findings"]
    (folder / "pyproject.toml").write_text('[tool.evengrad]\nbaseline = "known.json"\n', encoding="utf-8")
    assert cli("check", "stuck.py", "--fail-on", "note").code == 0
    cli("check", "stuck.py", "--write-baseline", "known.json")  # what the baseline hides is written, too
    assert (folder / "known.json").read_bytes() == first


DAMAGED = ["", "{", "[]", "null", '{"schema": "other"}', '{"schema": "evengrad/baseline/1"}', "\udcff"]
DAMAGED += [json.dumps({"schema": "evengrad/baseline/1", "accepted": [entry]}) for entry in (3, {"code": "VAN001"})]


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_baseline_is_told_and_left(cli: Run, folder: Path, text: str) -> None:
    path = folder / "known.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    done = cli("check", "stuck.py", "--baseline", "known.json")
    assert (done.code, done.out) == (2, "")
    assert "the baseline 'known.json' cannot be read (" in done.err
    assert path.read_bytes() == text.encode("utf-8", "surrogateescape")
    assert cli("check", "stuck.py", "--write-baseline", "known.json").code == 0  # asked for by name
    assert read_baseline(path)


def test_a_baseline_that_cannot_be_written_leaves_the_old_one(folder: Path) -> None:
    with pytest.raises(InputError, match="there is no baseline"):
        read_baseline(folder / "known.json")
    with pytest.raises(InputError, match="cannot be written"):
        write_baseline(folder / "no" / "known.json", ())
    (folder / "known.json").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        write_baseline(folder / "known.json", ())
    assert [p.name for p in folder.iterdir() if p.name.startswith(".")] == []


# ---------------------------------------------------------------- docs/diagnosis.md


def blocks(language: str) -> list[str]:
    page = Path(__file__).parents[2] / "docs" / "diagnosis.md"
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [text for word, text in found if word == language]


def test_the_page_runs_from_top_to_bottom() -> None:
    names: dict[str, object] = {}
    for block in blocks("python"):
        exec(block, names)


def test_the_table_on_the_page_is_read(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(blocks("toml")[0], encoding="utf-8")
    found = settings_near(tmp_path)
    assert (found.ignore, found.fail_on) == (("DAT001",), "error")
    assert threshold(found, "VAN001", "max_lost_decades") == 3.0


def test_the_commands_on_the_page_run(cli: Run, folder: Path) -> None:
    lines = [line for block in blocks("") for line in block.splitlines() if line.startswith("evengrad check")]
    codes = [cli(*line.split("#")[0].split()[1:]).code for line in lines]
    assert codes == [0, 0]


def test_the_picture_on_the_page_is_drawn() -> None:
    (picture,) = [block for block in blocks("") if "explain" in block]
    drawn = explanation(discovered()["VAN001"])
    assert all(line in drawn for line in picture.splitlines()[1:] if line != "...")


# ---------------------------------------------------------------- explain


@pytest.mark.parametrize("code", sorted(discovered()))
def test_every_rule_shows_a_sick_and_a_healthy_picture(code: str) -> None:
    lines = explanation(discovered()[code]).splitlines()
    sick, healthy = (next(line for line in lines if line.startswith(f"  {word} ")) for word in ("sick", "healthy"))
    assert sick.replace("sick   ", "healthy") != healthy
    assert all(len(line) <= 140 for line in (sick, healthy))


def test_pictures_share_an_axis() -> None:
    lines = explanation(discovered()["VAN001"]).splitlines()
    sick, healthy = (next(line.split()[1] for line in lines if line.startswith(f"  {word} ")) for word in ("sick", "healthy"))
    assert (sick[0], sick[-1]) == ("▁", "█")
    assert set(healthy) == {"█"}
