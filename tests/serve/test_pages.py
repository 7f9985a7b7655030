"""What each address of the page shows."""

from __future__ import annotations

import base64
import re
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from evengrad.lab.rows import Run as StudyRun
from evengrad.lab.rows import Store
from evengrad.lab.study import Row
from evengrad.report import Report
from evengrad.report.markup import escape
from evengrad.rules import discovered
from evengrad.serve import summaries
from evengrad.serve.app import create_app
from evengrad.serve.summaries import summary_of
from tests.serve.conftest import BASE, TOKEN, keep_run

Key = Callable[[str], str]


def listed(client: TestClient, *, within: float = 60.0) -> list[dict[str, object]]:
    """Returns the rows once each was looked at."""
    until = time.monotonic() + within
    while True:
        rows: list[dict[str, object]] = client.get("/api/runs").json()
        if all(row["fresh"] for row in rows) or time.monotonic() > until:
            return rows
        time.sleep(0.05)


def test_the_list_tells_name_loss_and_findings(client: TestClient) -> None:
    rows = {row["name"]: row for row in listed(client)}
    assert rows["sigmoid"]["findings"][0] >= 1
    assert "VAN001" in rows["sigmoid"]["codes"]
    assert "VAN001" not in rows["tanh"]["codes"]
    assert rows["sigmoid"]["steps"] == 30
    assert (rows["sigmoid"]["spark"][0], rows["sigmoid"]["spark"][-1]) == (1.0, 0.0)


def test_exact_numbers_of_a_part_are_asked_for(client: TestClient, key: Key) -> None:
    path = f"/runs/{key('sigmoid')}/part"
    found = client.get(path, params={"signal": "gradient", "steps": "0-1", "layers": "3-5"}).json()
    values = np.frombuffer(base64.b64decode(found["planes"][0]["values"]), "<f4")
    np.testing.assert_allclose(values, [0.24**8, 0.24**7], rtol=1e-5)
    assert client.get(path, params={"signal": "nonsense", "steps": "0-1", "layers": "0-1"}).status_code == 409
    for bad in ("", "1", "a-b", "-1-2", "1-2-3", "9" * 50 + "-1"):
        assert client.get(path, params={"signal": "gradient", "steps": bad, "layers": "0-1"}).status_code == 404


def test_findings_lead_to_the_pages_that_explain_them(client: TestClient, key: Key) -> None:
    page = client.get(f"/runs/{key('sigmoid')}").text
    addresses = set(re.findall(r'href="(/rules/[^"#]+)', page))
    assert "/rules/VAN001.html" in addresses
    assert all(client.get(address).status_code == 200 for address in addresses)


def test_a_large_run_says_so_before_it_is_read(store: Path, key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evengrad.serve.reports._LARGE", 0)
    app = create_app(store, token=TOKEN)
    client = TestClient(app, base_url=BASE)  # nothing runs behind the page
    path = f"/runs/{key('sigmoid')}"
    assert "Reading and judging" in client.get(path).text
    assert "VAN001" in client.get(f"{path}/article").text
    assert "VAN001" in client.get(path).text


def test_a_run_that_comes_later_is_listed(client: TestClient, store: Path) -> None:
    keep_run(store, "later")
    assert "later" in {row["name"] for row in listed(client)}


def test_a_thousand_runs_are_listed_before_any_of_them_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = keep_run(tmp_path, "one", steps=5)
    for i in range(999):
        shutil.copy(one, tmp_path / f"copy-{i}.evengrad")
    read = threading.Event()
    monkeypatch.setattr(summaries, "summary_of", lambda entry, reports: read.wait(60) and summary_of(entry, reports))
    with TestClient(create_app(tmp_path, token=TOKEN), base_url=BASE) as client:
        rows = client.get("/api/runs").json()
        read.set()
    assert len({row["id"] for row in rows}) == 1000
    assert {row["findings"] for row in rows} == {None}


def test_the_page_of_a_run_is_its_report(client: TestClient, key: Key) -> None:
    page = client.get(f"/runs/{key('sigmoid')}").text
    assert "gradient vanishes" in page
    assert client.get(f"/runs/{key('sigmoid')}/article").text in page


def test_reports_are_downloaded(client: TestClient, key: Key) -> None:
    page = client.get(f"/runs/{key('sigmoid')}/report.html")
    assert page.headers["content-disposition"] == 'attachment; filename="sigmoid.html"'
    assert "<!doctype html>" in page.text
    report = Report.from_json(client.get(f"/runs/{key('sigmoid')}/report.json").text)
    assert "VAN001" in {f.code for f in report.findings}


def test_two_runs_are_compared(client: TestClient, key: Key) -> None:
    page = client.get(f"/compare?a={key('sigmoid')}&b={key('tanh')}").text
    assert "findings gone" in page
    assert "VAN001" in page
    assert page.count('<svg class="bars"') == 2
    assert "Choose two runs" in client.get("/compare").text
    assert "gone" in client.get("/compare?a=no&b=no").text


def test_every_rule_is_explained(client: TestClient) -> None:
    listing = client.get("/rules").text
    for code, rule in discovered().items():
        page = client.get(f"/rules/{code}")
        assert page.status_code == 200
        assert escape(rule.title) in page.text
        assert f'href="{code}.html"' in listing
    for name in ("activations", "initialisers", "VAN001"):
        assert "<svg" in client.get(f"/rules/{name}.html").text


def test_what_is_not_there_is_said(client: TestClient) -> None:
    for address in ("/runs/0123456789abcdef", "/rules/XYZ999", "/studies/9", "/nowhere", "/static/app.py"):
        answer = client.get(address)
        assert answer.status_code == 404
        assert "Not here" in answer.text


@pytest.fixture
def study(store: Path) -> Path:
    rows = {
        f"{a}{s}": Row({"activation": a}, s, {"test_accuracy": 0.5 + s / 10, "loss": np.nan if s else 1.0})
        for a in ("relu", "<b>")
        for s in range(3)
    }
    with Store(store) as kept:
        kept.put("six", rows)
        kept.add(
            StudyRun(
                study="six", file="", quick=True, fields={"seeds": 3}, addresses=list(rows), finished="2026-01-02T03:04:05", seconds=2.0,
                computed=6, machine="here", versions={}, command="evengrad study run six",
            )
        )  # fmt: skip
    return store


def test_studies_show_each_arm_as_a_distribution(client: TestClient, study: Path) -> None:
    assert ">six<" in client.get("/studies").text
    page = client.get("/studies/1").text
    assert "activation relu" in page
    assert "activation &lt;b&gt;" in page
    assert page.count('class="box"') == 2
    assert "2 of 3 not finite" in client.get("/studies/1?value=loss").text


def test_a_study_is_answered_in_words(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="studies need torch")
    from evengrad import study

    result = study("two-circles", seeds=2, epochs=2).run(quick=True, store=tmp_path)
    with TestClient(create_app(tmp_path, token=TOKEN), base_url=BASE) as client:
        page = client.get("/studies/1").text
        assert "/play?preset=two-circles" in page
        assert 'src="/static/study.js"' in page
        found = client.get("/studies/1/answer").json()
        assert client.get("/studies/7/answer").status_code == 404
    assert (found["question"], found["answer"]) == (result.study.question, result.answer)


def test_a_study_that_names_a_file_runs_nothing(client: TestClient, store: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    code = tmp_path / "own.py"
    code.write_text(f"open({str(made)!r}, 'w').close()")
    with Store(store) as kept:
        kept.add(
            StudyRun(
                study="two-circles", file=str(code), quick=True, fields={}, addresses=[], finished="2026-01-02T03:04:05", seconds=2.0,
                computed=0, machine="here", versions={}, command="",
            )
        )  # fmt: skip
    assert "not run from here" in client.get("/studies/1/answer").json()["trouble"]
    assert not made.exists()


def test_a_folder_that_is_not_there_is_an_empty_list(tmp_path: Path) -> None:
    with TestClient(create_app(tmp_path / "none", token=TOKEN), base_url=BASE) as client:
        assert client.get("/api/runs").json() == []
        assert "No study has been run" in client.get("/studies").text
    assert not (tmp_path / "none").exists()
