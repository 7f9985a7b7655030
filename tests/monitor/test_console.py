"""The live panel says what matters at any width, stays below what the program prints, and is silent where there is no terminal."""

from __future__ import annotations

import io
import math
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import wraps
from typing import Any

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console
from tqdm import tqdm

from evengrad import synthetic
from evengrad.monitor import console as console_module
from evengrad.monitor.console import Panel
from evengrad.monitor.lines import Moment, lines
from evengrad.types import Curve, Event, Finding, Trace

WIDTHS = (40, 80, 140)


def finding(code: str, step: int, message: str = "the gradient vanishes", severity: str = "error") -> Finding:
    return Finding(code=code, symptom=None, severity=severity, message=message, steps=(step, step + 5))


def curve(values: Sequence[float] | np.ndarray) -> Curve:
    return Curve(np.arange(len(values)), np.asarray(values, np.float64))


def trace(layers: int = 20, *, events: tuple[Event, ...] = (), curves: dict[str, Curve] | None = None, **columns: Any) -> Trace:
    given = {"grad_out_norm": synthetic.geometric(layers, 0.24), "update_norm": 1e-3, "weight_norm": 1.0} | columns
    standard = {"loss": curve(np.linspace(2.3, 0.4, 500)), "grad_norm": curve(np.logspace(0, -2, 500)), "clipped": curve([0, 1] * 250)}
    made = synthetic.chain(layers, steps=3, **given)
    return replace(made, curves=standard if curves is None else curves, events=events)


def shown(moment: Moment, width: int = 80, title: str = "train.py") -> str:
    console = Console(record=True, force_terminal=True, width=width, file=io.StringIO(), color_system="truecolor", _environ={})
    for line in lines(moment, title, width):
        console.print(line, highlight=False)
    return console.export_text()


def strip(text: str, name: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(name))[11:]


FULL = Moment(
    trace=trace(events=(Event(step=812, kind="clip", message="norm 31, clipped to 1"),)),
    findings=(finding("VAN001", 3, "the gradient is multiplied by 0.24 at each layer"), finding("ACT002", 40, severity="warning")),
    step=1239,
    loss=0.4123,
    rate=86.3,
)


@pytest.mark.parametrize("width", WIDTHS)
def test_says_all_of_it_at_any_width(width: int) -> None:
    text = shown(FULL, width)
    parts = ("train.py", "step 1,239 · 86.3 steps/s", "0.412", "0.01", "clipped", "ACT002", "VAN001", "clip", "norm 31")
    assert [part for part in parts if part not in text] == []
    for name in ("loss", "grad norm", "gradient", "update"):
        assert re.match(r"[▁▂▃▄▅▆▇█]{6}", strip(text, name))
    assert [line for line in text.splitlines() if cell_len(line) > width] == []
    assert "…" in text if width == 40 else "the gradient is multiplied by 0.24 at each layer" in text


def test_half_of_the_steps_were_clipped() -> None:
    assert "50% of steps clipped" in shown(FULL)
    never = FULL.trace.curves | {"clipped": curve(np.zeros(500))}
    assert "clipped" not in shown(Moment(trace=trace(curves=never)))


def test_curves_fall_as_they_fell() -> None:
    text = shown(FULL, 100)
    for name in ("loss", "grad norm"):  # the logarithm of the norm, which falls by a factor, is as even as the loss
        heights = ["▁▂▃▄▅▆▇█".index(c) for c in strip(text, name).split("  ")[0]]
        assert heights == sorted(heights, reverse=True)
        assert np.abs(np.diff(np.bincount(heights))).max() <= 1


def test_noise_is_flat() -> None:
    wobble = curve(2.3 + 0.001 * np.sin(np.arange(500)))
    text = shown(Moment(trace=trace(curves={"loss": wobble, "grad_norm": wobble})))
    for name in ("loss", "grad norm"):
        assert set(strip(text, name).split("  ")[0]) <= {"▄", "▅"}


def test_the_strip_is_the_gradient_of_the_last_look() -> None:
    columns = np.stack([synthetic.geometric(20, 10.0), synthetic.geometric(20, 0.24), np.full(20, np.nan)])
    strip_of = strip(shown(Moment(trace=trace(grad_out_norm=columns)), 140), "gradient")
    assert strip_of.split("  ")[0] == strip(shown(FULL, 140), "gradient").split("  ")[0]
    assert "×0.24 a layer (−0.62 decades, R² 1.00)" in strip_of


def test_zero_and_not_finite_have_marks_of_their_own() -> None:
    values = synthetic.geometric(20, 0.9)
    values[0], values[7] = 0, np.inf
    text = shown(Moment(trace=trace(grad_out_norm=values)), 140)
    assert strip(text, "gradient")[:40].replace("█", "").startswith("○○")
    assert strip(text, "gradient")[14:16] == "✕✕"
    assert "○ exactly zero; ✕ not finite" in text
    values[7] = np.nan
    unseen = shown(Moment(trace=trace(grad_out_norm=values)), 140)
    assert strip(unseen, "gradient")[14:16] == "··"
    assert "not finite" not in unseen


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("bad", "mark"), [(0.0, "○"), (np.inf, "✕"), (1e-20, "▁")])
def test_one_bad_layer_of_ten_thousand_is_seen(width: int, bad: float, mark: str) -> None:
    values = np.ones(10_000, np.float32)
    values[4321] = bad
    text = strip(shown(Moment(trace=trace(10_000, grad_out_norm=values)), width), "gradient")
    assert text.count(mark) == 1
    assert len(text) <= width - 11


def test_colours_are_those_of_the_report() -> None:
    drawn = next(line for line in lines(FULL, "t", 80) if line.plain.startswith("gradient"))
    colours = [str(span.style) for span in drawn.spans if str(span.style).startswith("rgb")]
    assert colours[0] == "rgb(33,102,172)"  # blue: far below the last layer
    assert colours[-1] == "rgb(150,155,165)"


def test_without_a_look_inside_the_weights_gradient_is_shown() -> None:
    made = trace(grad_norm=synthetic.geometric(20, 0.5))
    del made.columns["grad_out_norm"]
    text = shown(Moment(trace=made), 140)
    assert "weight gradient relative to the last" in text
    assert strip(text, "gradient").startswith("▁")


def test_newest_findings_come_first_and_at_most_five() -> None:
    many = [finding(f"AAA00{i}", step) for i, step in enumerate((5, 900, 20, 7, 7, 30, 1))]
    text = shown(Moment(trace=trace(), findings=many))
    assert re.findall(r"AAA00\d", text) == ["AAA001", "AAA005", "AAA002", "AAA003", "AAA004"]
    assert "and 2 more" in text


def test_newest_events_come_first_and_at_most_three() -> None:
    events = tuple(Event(step=i, kind="clip", message=f"number {i}") for i in range(9))
    assert re.findall(r"number \d", shown(Moment(trace=trace(events=events)))) == ["number 8", "number 7", "number 6"]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1.7e308, -1.7e308, 0.0, 5e-324])
@pytest.mark.parametrize("width", [1, 12, 40, 300])
def test_any_value_is_rendered(bad: float, width: int) -> None:
    curves = {name: curve([1.0, bad, -bad, bad]) for name in ("loss", "grad_norm", "clipped")}
    columns = {name: np.full(5, np.float32(np.clip(bad, -3e38, 3e38))) for name in ("grad_out_norm", "update_norm", "weight_norm")}
    seen = trace(5, curves=curves, **columns)
    text = shown(Moment(trace=seen, findings=[finding("NUM001", 2**62)], step=2**62, loss=bad, rate=bad), width)
    assert [line for line in text.splitlines() if cell_len(line) > max(width, 20)] == []
    if width == 40:
        assert ("not finite" in strip(text, "loss")) == (not math.isfinite(bad))


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_seen_yet_is_a_line(width: int) -> None:
    empty = replace(synthetic.chain(0), steps=np.zeros(0, np.int64))
    assert shown(Moment(trace=empty), width).rstrip("\n").count("\n") == 0


def test_nothing_is_read_as_markup_and_no_name_moves_the_cursor() -> None:
    layer = replace(synthetic.chain(1).layers[0], name="[red]\x1b[2J", depth=None)
    seen = replace(trace(1), layers=(layer,), events=(Event(step=1, kind="[b]", message="a\x1b[2J\nb[/b]"),))
    drawn = lines(Moment(trace=seen, findings=[finding("V[b]", 1, "x\x1b[1A[bold]y[/bold]\r\n")]), "[b]t\x1b]0;x\x07\n", 80)
    text = "\n".join(line.plain for line in drawn)
    assert "\x1b" not in text
    assert "\r" not in text
    assert all("\n" not in line.plain for line in drawn)
    assert "[bold]y[/bold]" in text


def test_a_drawing_of_ten_thousand_layers_is_quick() -> None:
    seen = trace(10_000)
    seen = replace(
        seen,
        steps=np.arange(160),
        columns={k: np.repeat(v[:1], 160, 0) for k, v in seen.columns.items()},
        curves={"loss": curve(np.ones(2**16))},
    )
    lines(Moment(trace=seen), "t", 120)
    began = time.process_time()
    for _ in range(5):
        lines(Moment(trace=seen), "t", 120)
    assert (time.process_time() - began) / 5 < 0.2  # about 0.02 s


class Terminal(io.StringIO):
    """What a terminal shows: enough of one for the moves that the panel and progress bars make (checked beside tmux)."""

    def __init__(self, width: int = 100, height: int = 30) -> None:
        super().__init__()
        self.width, self.height = width, height
        self.rows, self.row, self.column, self.saved = [""], 0, 0, (0, 0)
        self.written = ""

    def isatty(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    def write(self, text: str) -> int:
        self.written += text
        for part in re.findall(r"\x1b\[[\d;?]*[A-Za-z]|\x1b.|[\r\n]|[^\x1b\r\n]", text):
            self.take(part)
        return len(text)

    def take(self, part: str) -> None:
        top = max(0, len(self.rows) - self.height)
        if part in {"\n", "\x1bD"}:
            self.row += 1
            self.column = 0 if part == "\n" else self.column
            self.rows += [""] * (self.row + 1 - len(self.rows))
        elif part == "\r":
            self.column = 0
        elif part == "\x1b7":
            self.saved = self.row - top, self.column
        elif part == "\x1b8":
            self.row, self.column = self.saved[0] + top, self.saved[1]
        elif part.startswith("\x1b["):
            self.control(part[-1], int(re.sub(r"\D.*", "", part[2:-1]) or 1), top)
        else:
            line = self.rows[self.row].ljust(self.column)
            self.rows[self.row] = line[: self.column] + part + line[self.column + 1 :]
            self.column += 1

    def control(self, kind: str, n: int, top: int) -> None:
        if kind == "A":
            self.row = max(top, self.row - n)
        elif kind == "B":
            self.row = min(max(len(self.rows), top + self.height) - 1, self.row + n)
            self.rows += [""] * (self.row + 1 - len(self.rows))
        elif kind == "J":
            self.rows[self.row] = self.rows[self.row][: self.column]
            self.rows[self.row + 1 :] = [""] * len(self.rows[self.row + 1 :])  # what scrolled away does not come back
        elif kind == "K":
            self.rows[self.row] = ""
        else:
            assert kind == "m", f"a terminal in these tests knows no {kind!r}"

    def screen(self) -> list[str]:
        """Everything down to the cursor or the last line with something in it."""
        rows = [row.rstrip() for row in self.rows]
        while len(rows) > self.row + 1 and not rows[-1]:
            rows.pop()
        return rows


@pytest.fixture
def terminal() -> Terminal:
    return Terminal()


def on_terminal(test: Callable[..., None]) -> Callable[..., None]:
    """Runs a test with stdout and stderr on its terminal (a fixture comes before pytest's own capture); the panel must give both back."""

    @wraps(test)
    def run(*, terminal: Terminal, **fixtures: Any) -> None:
        with redirect_stdout(terminal), redirect_stderr(terminal):
            test(terminal=terminal, **fixtures)
            assert sys.stdout is terminal
            assert sys.stderr is terminal

    return run


def say(words: str, stream: str = "stdout", end: str = "\n") -> None:
    """What a user's program does."""
    print(words, file=getattr(sys, stream), end=end)


@pytest.fixture
def panel(terminal: Terminal) -> Panel:
    return Panel(Console(force_terminal=True, width=terminal.width, height=terminal.height, _environ={"TERM": "xterm"}), "train.py")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still until it is told."""
    now = [0.0]
    monkeypatch.setattr(console_module.time, "monotonic", lambda: now[0])
    return now


def panel_rows(screen: list[str]) -> list[int]:
    return [i for i, row in enumerate(screen) if row.startswith("train.py ─")]


def test_is_silent_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for file, forced in ((io.StringIO(), None), (io.StringIO(), True), (Terminal(), False)):  # forced: FORCE_COLOR in a log file
        monkeypatch.setattr(sys, "stdout", file)
        before = sys.stdout, sys.stderr
        made = Panel(Console(file=file, force_terminal=forced, _environ={}))
        made.start()
        assert not made.due
        made.update(FULL.trace, FULL.findings, step=1, loss=0.5)
        made.stop()
        assert file.getvalue() == ""
        assert (sys.stdout, sys.stderr) == before
    assert getattr(file, "written", "") == ""


@on_terminal
def test_is_silent_on_a_terminal_that_cannot_move_its_cursor(terminal: Terminal) -> None:
    made = Panel(Console(force_terminal=True, _environ={"TERM": "dumb"}))
    made.start()
    made.update(FULL.trace, (), step=1)
    made.stop()
    assert terminal.written == ""


@on_terminal
def test_is_silent_until_it_is_started(panel: Panel, terminal: Terminal) -> None:
    panel.update(FULL.trace, FULL.findings, step=1, loss=0.5)
    panel.stop()
    assert terminal.written == ""


@on_terminal
def test_starts_updates_and_stays_when_stopped(panel: Panel, terminal: Terminal, clock: list[float]) -> None:
    say("before")
    panel.start()
    for step in (1, 2, 3):
        clock[0] += 1
        panel.update(FULL.trace, FULL.findings, step=step, loss=0.5)
        assert sum(row.startswith("train.py") for row in terminal.screen()) == 1
    panel.stop()
    say("after")
    screen = terminal.screen()
    assert screen[0] == "before"
    assert screen[1].startswith("train.py ─")
    assert screen[1].endswith("step 3 · 1 steps/s")
    assert screen[-2:] == ["after", ""]
    assert "\x1b[?25l" not in terminal.written  # the cursor is never hidden: nothing is lost if the process is killed
    panel.stop()
    assert terminal.screen() == screen


@on_terminal
def test_is_drawn_at_most_four_times_a_second(panel: Panel, terminal: Terminal, clock: list[float]) -> None:
    panel.start()
    drawn = 0
    for step in range(1000):
        clock[0] += 0.01
        size = len(terminal.written)
        was_due = panel.due
        panel.update(FULL.trace, (), step=step, loss=0.5)
        drawn += len(terminal.written) > size
        assert was_due == (len(terminal.written) > size)
    panel.stop()
    assert 30 <= drawn <= 41
    assert "100 steps/s" in "".join(terminal.screen())
    assert "step 999" in "".join(terminal.screen())  # the last one is shown, drawn or not


@on_terminal
def test_a_slow_drawing_is_repeated_more_rarely(
    panel: Panel, terminal: Terminal, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console_module, "lines", lambda *_: clock.__setitem__(0, clock[0] + 0.02) or [])
    panel.start()
    panel.update(FULL.trace, (), step=1)
    clock[0] = 1.9  # a drawing of 20 ms has two seconds to pay for itself
    assert not panel.due
    clock[0] = 2.1
    assert panel.due
    panel.stop()


@on_terminal
def test_prints_go_above_it_as_they_are(panel: Panel, terminal: Terminal, clock: list[float]) -> None:
    said = ["[bold]no markup[/bold]", "long " * 30, "", "tab\tand 漢字"]
    panel.start()
    for i, words in enumerate(said):
        clock[0] += 1
        panel.update(FULL.trace, (), step=i, loss=0.5)
        say(words, ("stdout", "stderr")[i % 2])
        assert panel_rows(terminal.screen()) == [i + 2]  # below the cursor's line
    say("un", end="")
    clock[0] += 1
    panel.update(FULL.trace, (), step=9, loss=0.5)
    say("finished", end="")
    panel.stop()
    assert terminal.screen()[:5] == [*(words.rstrip() for words in said), "unfinished"]
    assert terminal.screen()[5].startswith("train.py ─")


@pytest.mark.parametrize("nested", [False, True])
@on_terminal
def test_progress_bars_look_as_they_do_without_it(panel: Panel, terminal: Terminal, clock: list[float], *, nested: bool) -> None:
    def train(update: Any) -> None:
        for epoch in tqdm(range(3), desc="epochs", mininterval=0, bar_format="{desc} {n}/{total}", ncols=60) if nested else range(3):
            for step in tqdm(range(4), desc=f"epoch {epoch}", mininterval=0, bar_format="{desc} {n}/{total}", ncols=60, leave=not nested):
                update(step)
                if step == 2:
                    tqdm.write(f"written {epoch}")

    def with_panel(step: int) -> None:
        clock[0] += 1
        panel.update(FULL.trace, (), step=step, loss=0.5)
        rows = panel_rows(terminal.screen())
        assert len(rows) == 1
        assert [row for row in terminal.screen()[: rows[0]] if re.match(r"epoch . ./4", row)]  # the bar is seen while it moves

    train(lambda _: None)
    expected, start = [row for row in terminal.screen() if row], len(terminal.screen()) - 1
    panel.start()
    train(with_panel)
    panel.stop()
    shown_rows = terminal.screen()[start:]
    assert [row for row in shown_rows[: panel_rows(shown_rows)[0]] if row] == expected


@on_terminal
def test_works_at_the_bottom_of_the_screen(panel: Panel, terminal: Terminal, clock: list[float]) -> None:
    panel.start()
    for i in range(60):
        clock[0] += 1
        say(f"line {i}")
        panel.update(FULL.trace, (), step=i, loss=0.5)
    panel.stop()
    screen = terminal.screen()
    assert screen[:60] == [f"line {i}" for i in range(60)]
    assert panel_rows(screen) == [60]


@on_terminal
def test_leaves_room_on_a_low_terminal(terminal: Terminal, clock: list[float]) -> None:
    terminal.height = 6
    made = Panel(Console(force_terminal=True, width=100, height=6, _environ={"TERM": "xterm"}), "train.py")
    made.start()
    for i in range(20):
        clock[0] += 1
        say(f"line {i}")
        made.update(FULL.trace, FULL.findings, step=i, loss=0.5)
        assert terminal.screen()[-5:-3] == [f"line {i}", ""] or f"line {i}" in terminal.screen()[-6:]
    made.stop()
    assert terminal.screen()[:20] == [f"line {i}" for i in range(20)]


@on_terminal
def test_ascii_where_there_is_nothing_else(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Terminal, "encoding", property(lambda _: "ascii"))
    made = Panel(Console(force_terminal=True, width=80, height=30, _environ={"TERM": "xterm"}), "träin.py")
    made.start()
    made.update(FULL.trace, FULL.findings, step=1, loss=math.nan)
    made.stop()
    assert terminal.written.isascii()
    assert "x0.24 a layer" in "\n".join(terminal.screen())
    assert "tr?in.py -" in terminal.screen()[0]


@on_terminal
def test_what_cannot_be_drawn_gives_the_terminal_back(panel: Panel, terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    panel.start()
    monkeypatch.setattr(console_module, "lines", broken)
    with pytest.raises(ZeroDivisionError):  # the monitor's guard takes it; see the fixture for what is checked
        panel.update(FULL.trace, (), step=1)
    assert not panel.due
    panel.stop()


@on_terminal
def test_stops_where_the_user_has_replaced_stdout(panel: Panel, terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    panel.start()
    ours, own = sys.stdout, io.StringIO()
    sys.stdout = own
    panel.stop()
    assert sys.stdout is own
    sys.stdout = ours
    say("late")  # to what stood in for stdout while the panel was there
    assert terminal.screen() == ["late", ""]
    sys.stdout = terminal


@on_terminal
def test_streams_keep_their_other_abilities(panel: Panel, terminal: Terminal) -> None:
    panel.start()
    assert sys.stdout.isatty()
    assert sys.stdout.encoding == "utf-8"
    sys.stdout.writelines(["a\n", "b\n"])
    sys.stdout.flush()
    panel.stop()
    assert terminal.screen() == ["a", "b", ""]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="workers are forked")
@on_terminal
def test_a_forked_worker_prints_without_touching_the_panel(panel: Panel, terminal: Terminal, clock: list[float]) -> None:
    panel.start()
    panel.update(FULL.trace, (), step=1, loss=0.5)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        size = len(terminal.written)
        say("worker")
        os.write(write, terminal.written[size:].encode())
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    assert os.read(read, 10_000) == b"worker\n"
    os.close(read)
    panel.stop()
