"""Report -> JSON and back: exact, strict, and clear about what it cannot read."""

from __future__ import annotations

import json
import math
from dataclasses import fields, is_dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from evengrad.errors import InputError
from evengrad.report import Report
from evengrad.report.json import dumps, loads
from evengrad.types import Evidence, Facts, Proposal

NAMES = ("check", "fixed", "nothing_helped", "healthy", "run", "hostile", "hostile_run")


def same(a: Any, b: Any) -> bool:
    """Equality to the bit: types, dtypes, NaN."""
    if type(a) is not type(b):
        return False
    if is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b) or (isinstance(a, float) and math.isnan(a) and math.isnan(b))


@pytest.mark.parametrize("name", NAMES)
def test_round_trip_is_exact(samples: ModuleType, name: str) -> None:
    report = getattr(samples, name)()
    assert same(Report.from_json(report.to_json()), report)


def test_values_that_json_lacks_survive(samples: ModuleType) -> None:
    odd = Proposal(remedy="x", options={"nan": math.nan, "pair": (1, -math.inf), "$array": "text", "deep": [{"a": (2.5,)}], "none": None})
    facts = Facts(targets={"counts": {0: 3, 7: 4}, "min": -0.0}, loss={"value": math.inf}, edges=((0, 1), (1, 2)))
    base = samples.run()
    report = replace(base, proposals=(odd,), trace=replace(base.trace, facts=facts, planes={"hist": np.zeros((120, 12, 3), np.float32)}))
    finding = replace(base.findings[0], evidence=(Evidence(signal="loss", value=math.nan, relation=">", threshold=math.inf),))
    report = replace(report, findings=(finding,))
    back = loads(dumps(report))
    assert same(back, report)
    assert math.copysign(1, back.trace.facts.targets["min"]) == -1  # type: ignore[union-attr, index]


def test_document_is_strict_json_with_a_schema(samples: ModuleType) -> None:
    def forbid(token: str) -> None:
        raise AssertionError(token)

    assert json.loads(dumps(samples.fixed()), parse_constant=forbid)["schema"] == "evengrad/report/1"


def test_unknown_fields_are_ignored(samples: ModuleType) -> None:
    document = json.loads(dumps(samples.healthy()))
    document["later"] = {"a": 1}
    assert same(loads(json.dumps(document)), samples.healthy())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "ends in the middle"),
        ("hello", "is not JSON"),
        ("[1, 2]", "without a schema"),
        ('{"schema": "other/1"}', "expected a document with schema evengrad/report/1, got schema 'other/1'"),
        ('{"schema": "evengrad/report/2"}', "install a newer"),
        ('{"schema": "evengrad/report/1", "trainability": NaN}', "NaN"),
        ('{"schema": "evengrad/report/1"}', "damaged"),
        ('{"schema": "evengrad/report/1", "run": 3}', "damaged"),
        ('{"schema": "evengrad/report/1", "run": {"name": 3, "model": "", "parameters": 1, "samples": 1}}', "damaged"),
        ("[" * 100_000, "nested too deeply|ends in the middle"),
    ],
)
def test_foreign_documents_are_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        loads(text)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated_text_says_so(samples: ModuleType, share: float) -> None:
    text = dumps(samples.fixed())
    with pytest.raises(InputError, match="ends in the middle"):
        loads(text[: int(len(text) * share)])


def test_damaged_array_is_refused(samples: ModuleType) -> None:
    document = json.loads(dumps(samples.check()))
    column = document["trace"]["columns"]["grad_out_norm"]
    for broken in ({**column, "dtype": "|O"}, {**column, "shape": [3, 3]}, {**column, "$array": "?!"}):
        document["trace"]["columns"]["grad_out_norm"] = broken
        with pytest.raises(InputError, match=r"array|damaged"):
            loads(json.dumps(document))
