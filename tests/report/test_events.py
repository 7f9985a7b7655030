"""What happened on the way: told where it is seldom, counted where it is often, and never read as markup."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from evengrad.report import Report
from evengrad.report.events import happenings
from evengrad.report.html import render
from evengrad.report.text import plain
from evengrad.types import Curve, Event

LOG = Event(step=60, kind="bad_operation", message="first gradient that is not finite: log in net.3 made -inf")
EVIL = "<script>alert(1)</script> [red] \x1b[31m </dd><img src=x onerror=alert(2)>"


def with_events(report: Report, *events: Event, **curves: Curve) -> Any:
    assert report.trace is not None
    return replace(report, trace=replace(report.trace, events=events, curves=report.trace.curves | curves))


def skips(*steps: int) -> tuple[Event, ...]:
    return tuple(Event(step=s, kind="skip", message=f"the norm of step {s} is 12 times its median") for s in steps)


def test_few_events_are_told_one_by_one_in_the_order_of_their_kinds(samples: ModuleType) -> None:
    text = plain(with_events(samples.run(), *skips(12, 14), LOG))
    told = text.split("what happened on the way:\n")[1].split("\n\n")[0].splitlines()
    assert told == [
        "  skip, step 12: the norm of step 12 is 12 times its median",
        "  skip, step 14: the norm of step 14 is 12 times its median",
        "  bad operation, step 60: first gradient that is not finite: log in net.3 made -inf",
    ]


def test_many_events_of_a_kind_are_folded_and_the_first_three_shown(samples: ModuleType) -> None:
    events = skips(*range(12, 941, 29))
    text = plain(with_events(samples.run(), LOG, *events))
    assert f"  skip: {len(events)} times, steps 12 to 940\n    step 12: " in text
    assert all(f"    step {s}: the norm" in text for s in (12, 41, 70))
    assert "step 99:" not in text
    assert "bad operation, step 60: " in text


def test_a_curve_counts_what_the_events_no_longer_hold(samples: ModuleType) -> None:
    curve = Curve(np.arange(5, 5005, dtype=np.int64), np.ones(5000))
    trace = with_events(samples.run(), *skips(*range(5, 1005)), skip=curve).trace
    (found,) = happenings(trace)
    assert (found.count, found.summary, len(found.told)) == (5000, "5,000 times, steps 5 to 5,004", 3)


def test_the_page_has_a_section_of_it(samples: ModuleType) -> None:
    page = render(with_events(samples.run(), *skips(1, 2, 3, 4), LOG))
    assert "What happened on the way" in page
    assert "<dt>skip</dt><dd>4 times, steps 1 to 4</dd><dd><b>step 1</b> the norm of step 1" in page
    assert "<dt>bad operation</dt><dd><b>step 60</b> first gradient" in page


def test_where_nothing_happened_nothing_is_said(samples: ModuleType) -> None:
    for report in (samples.run(), samples.check(), Report(run=samples.run().run)):
        assert "on the way:" not in plain(report)
        assert "What happened" not in render(report)


@pytest.mark.parametrize("count", [1, 9])
def test_kinds_and_messages_are_inert(samples: ModuleType, count: int) -> None:
    report = with_events(samples.run(), *(Event(step=i, kind=EVIL, message=EVIL) for i in range(count)))
    page = render(report)
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "\x1b" not in page + plain(report)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "[red]" in plain(report)


@pytest.mark.parametrize("width", [60, 100])
def test_long_messages_are_wrapped(samples: ModuleType, width: int) -> None:
    report = with_events(samples.run(), *(Event(step=i, kind="skip", message="many words " * 40) for i in range(9)))
    assert max(map(len, plain(report, width).splitlines())) <= width


def test_events_are_in_the_json(samples: ModuleType) -> None:
    report = with_events(samples.run(), LOG)
    assert Report.from_json(report.to_json()).trace.events == (LOG,)  # type: ignore[union-attr]
