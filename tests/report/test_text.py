"""Report -> terminal text: the numbers are there, nothing is read as markup, nothing prints by itself."""

from __future__ import annotations

import io
from dataclasses import replace
from types import ModuleType

import pytest
from rich.console import Console

from evengrad.report.text import plain, render

NAMES = ("check", "fixed", "fixed_run", "nothing_helped", "healthy", "run", "hostile", "hostile_run")


def test_a_check_reads_like_a_compiler(samples: ModuleType) -> None:
    lines = plain(samples.check()).splitlines()
    assert lines[0] == "20 layers, one batch of 128, 0.06 s"
    text = "\n".join(lines)
    for part in (
        "×0.24 a layer (−0.62 decades, R² 1.00)",
        "ERROR VAN001  the gradient is multiplied by 0.24",
        "      cause   bad_hidden_activation: tanh (Glorot) in place of sigmoid brings it to ×0.98 a layer",
        "      try     swap_activation sigmoid → tanh (Glorot) | also works:",
        "could it train?  2%",
        "not looked at:   updates, OPT001 (no step was taken); validation (no data given)",
        "next:            evengrad fix stuck.py:experiment",
    ):
        assert part in text


def test_a_fix_shows_before_and_after_and_every_trial(samples: ModuleType) -> None:
    text = plain(samples.fixed())
    for part in (
        "gradient before",
        "gradient after",
        "tried on 5 seeds",
        "82.0 – 85.0%",
        "not finite – 82.0%",
        "✕1",
        "✓ sigmoid → tanh",
        "+eg.initialize_",
    ):
        assert part in text


def test_every_curve_begins_in_one_column_behind_its_name(samples: ModuleType) -> None:
    report = samples.run()
    curves = dict(report.trace.curves) | {"val_accuracy": report.trace.curves["val_loss"]}
    lines = plain(replace(report, trace=replace(report.trace, curves=curves))).splitlines()
    named = [line for line in lines if line.startswith(("loss ", "val loss ", "val accuracy "))]
    assert len(named) == 3
    assert all(line[12:14] == "  " and line[14] != " " for line in named)


def test_a_fix_tells_the_loss_before_and_after(samples: ModuleType) -> None:
    lines = [" ".join(line.split()[:2]) for line in plain(samples.fixed_run()).splitlines()]
    assert "loss before" in lines
    assert "loss after" in lines


def test_marks_for_zero_and_not_finite(samples: ModuleType) -> None:
    text = plain(samples.run())
    assert "✕" in text.split("loss")[1].splitlines()[0]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_lines_fit_the_width(samples: ModuleType, name: str, width: int) -> None:
    report = getattr(samples, name)()
    code = {f"  {line}" for line in report.patch.splitlines()}
    assert "errors left" in plain(report, width) or not report.outcomes
    assert [x for x in plain(report, width).splitlines() if len(x) > width and x not in code] == []


def test_markup_in_a_name_is_text(samples: ModuleType) -> None:
    console = Console(file=io.StringIO(), width=200, force_terminal=True, color_system="truecolor", _environ={})
    render(samples.hostile(), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "[red]" in text
    assert "\x1b[31m " not in text
    assert "<script>alert(1)</script>" in text


def test_a_console_without_unicode_gets_ascii(samples: ModuleType) -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii")
    render(samples.fixed(), Console(file=file, width=100, _environ={}))
    file.flush()
    assert "x0.24 a layer (-0.62 decades" in raw.getvalue().decode("ascii")


def test_nothing_is_printed_by_itself(samples: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert str(samples.check()) == plain(samples.check())
    assert capsys.readouterr() == ("", "")
