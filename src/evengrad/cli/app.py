"""The command line: `evengrad check stuck.py:experiment`."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evengrad.cli.compare import compare
from evengrad.cli.explain import explain
from evengrad.cli.fix import fix
from evengrad.cli.options import (
    AsJson,
    Baseline,
    Device,
    FailOn,
    Ignore,
    Output,
    Rule,
    Seconds,
    Seed,
    Select,
    Target,
    WriteBaseline,
    accepted,
    chosen,
    console_of,
    folder_of,
    progress,
    shown_as,
    writable,
)
from evengrad.cli.recommend import recommend
from evengrad.cli.report import report as report_command
from evengrad.cli.report import show as _show
from evengrad.cli.search import search
from evengrad.cli.serve import serve
from evengrad.cli.study import commands as study_commands
from evengrad.cli.watch import watch
from evengrad.errors import EvengradError, ForwardError
from evengrad.types import SEVERITIES

if TYPE_CHECKING:
    from evengrad.report import Report

app = typer.Typer(
    name="evengrad",
    help="Sees how gradients flow through a deep network, explains why they vanish, explode or die, fixes it and proves the fix.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.add_typer(study_commands, name="study")
app.command()(explain)
app.command()(fix)
app.command()(recommend)
app.command()(search)
app.command()(serve)
app.command()(report_command)
app.command()(compare)
app.command(context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True})(watch)


def main() -> None:
    """Runs the command line; errors that evengrad raises on purpose end with exit code 2 and no traceback of ours."""
    try:
        app()
    except EvengradError as error:
        if isinstance(error, ForwardError) and error.__cause__ is not None:
            print(_users_traceback(error.__cause__), end="", file=sys.stderr)
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception:
        traceback.print_exc()
        print("error: this is a fault of evengrad's own, not of your network; please report it with the lines above", file=sys.stderr)
        raise SystemExit(3) from None


@app.command()
def check(
    target: Target,
    *,
    json: AsJson = False,
    output: Output = None,
    device: Device = None,
    seed: Seed = 0,
    fail_on: FailOn = None,
    select: Select = None,
    ignore: Ignore = None,
    rule: Rule = None,
    baseline: Baseline = None,
    write_baseline: WriteBaseline = None,
    causes: Annotated[bool, typer.Option(help="Look for causes by experiment on a copy.")] = True,
) -> None:
    """Look at one batch before training: signals by layer, findings, causes, chance to train."""
    settings = chosen(folder_of(target), select=select, ignore=ignore, fail_on=fail_on, rules=rule or (), baseline=baseline)
    hide = accepted(settings, write_baseline)
    writable(output)
    from evengrad.cli.load import load_experiment
    from evengrad.examine import check_rig
    from evengrad.training import build, first_batch

    rig = build(load_experiment(target, device), seed)
    report = hide(check_rig(rig, first_batch(rig), settings.rules(), causes=causes, name=shown_as(target)))
    _show(report, json, output)
    _exit_by_findings(report, settings.fail_on)


@app.command()
def diagnose(
    target: Target,
    *,
    json: AsJson = False,
    output: Output = None,
    device: Device = None,
    seed: Seed = 0,
    fail_on: FailOn = None,
    select: Select = None,
    ignore: Ignore = None,
    rule: Rule = None,
    baseline: Baseline = None,
    write_baseline: WriteBaseline = None,
    max_seconds: Seconds = None,
) -> None:
    """Train once with every layer watched, and judge the whole run."""
    settings = chosen(folder_of(target), select=select, ignore=ignore, fail_on=fail_on, rules=rule or (), baseline=baseline)
    hide = accepted(settings, write_baseline)
    writable(output)
    from evengrad.cli.load import load_experiment
    from evengrad.examine import diagnose_run

    experiment = load_experiment(target, device)
    with progress(json) as say:
        say("training once, every layer watched")
        report, _ = diagnose_run(experiment, settings.rules(), seed=seed, max_seconds=max_seconds, name=shown_as(target))
    report = hide(report)
    _show(report, json, output)
    _exit_by_findings(report, settings.fail_on)


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE.html", help="Where the report goes.")] = Path(
        "evengrad-demo.html"
    ),
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds that each change is tried on.")] = 3,
) -> None:
    """Two networks that do not train, on real data: found, explained, fixed, proved. Writes an HTML report."""
    from evengrad.cli.demo import run

    writable(output)
    with progress(False) as say:
        reports = run(seeds=seeds, progress=say)
    from evengrad.report.html import write_many
    from evengrad.report.text import render

    console = console_of()
    for report in reports:
        render(report, console)
        console.print()
    path = write_many(reports, "evengrad demo: two networks that do not train", output)
    console.print(f"report: {path.resolve()}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def doctor(json: AsJson = False) -> None:
    """Show what this installation can do, and what is missing."""
    from evengrad.cli.doctor import findings_of_installation, render

    found = findings_of_installation()
    if json:
        import json as encoder

        print(encoder.dumps(found, indent=2))
    else:
        render(found, console_of())


@app.command()
def rules(json: AsJson = False) -> None:
    """List what is looked for."""
    from evengrad.rules import discovered

    if json:
        import json as encoder

        print(encoder.dumps({c: {"title": r.title, "symptom": r.symptom, "causes": r.causes} for c, r in discovered().items()}, indent=2))
        return
    for code, rule in discovered().items():
        print(f"{code}  {rule.title}")


def _users_traceback(error: BaseException) -> str:
    """The traceback without the frames that are ours, torch's dispatch or the import system's."""
    shown = traceback.TracebackException.from_exception(error)
    ours = (str(Path(__file__).parents[1]), "<frozen ", str(Path("torch", "nn", "modules", "module.py")))
    frames = [f for f in shown.stack if not f.filename.startswith(ours[:2]) and not f.filename.endswith(ours[2])]
    shown.stack = traceback.StackSummary.from_list(frames)
    return "".join(shown.format() if frames else shown.format_exception_only())


def _exit_by_findings(report: Report, fail_on: str) -> None:
    bad = SEVERITIES[: SEVERITIES.index(fail_on) + 1]
    raise typer.Exit(1 if any(f.severity in bad for f in report.findings) else 0)
