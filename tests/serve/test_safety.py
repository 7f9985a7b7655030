"""Requests that are not in order are refused; foreign files are shown as such and do nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from evengrad.serve.app import create_app
from evengrad.serve.guard import TOKEN_HEADER
from tests.serve.conftest import TOKEN, keep_run
from tests.serve.test_pages import listed

Key = Callable[[str], str]
EVIL = "<script>alert(1)</script>"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8377", "127.0.0.1.evil.example", "[::1", ""])
def test_another_host_is_refused(client: TestClient, host: str) -> None:
    assert client.get("/", headers={"host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost:8377", "127.0.0.1:8377", "[::1]:8377"])
def test_names_of_this_machine_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9999", "http://localhost:8377"])
def test_requests_of_other_pages_are_refused(client: TestClient, origin: str) -> None:
    assert client.get("/api/runs", headers={"origin": origin}).status_code == 403


def test_a_change_needs_the_token(client: TestClient, store: Path, key: Key) -> None:
    address = f"/runs/{key('sigmoid')}/delete"
    assert client.post(address).status_code == 403
    assert client.post(address, headers={TOKEN_HEADER: "wrong"}).status_code == 403
    assert client.post("/play/do", json={}).status_code == 403
    assert client.get(address).status_code == 405
    assert (store / "sigmoid.evengrad").exists()


def test_a_deleted_run_lies_in_the_trash(client: TestClient, store: Path, key: Key) -> None:
    for _ in range(2):
        assert client.post(f"/runs/{key('sigmoid')}/delete", headers={TOKEN_HEADER: TOKEN}).status_code == 200
        assert not (store / "sigmoid.evengrad").exists()
        keep_run(store, "sigmoid")
    assert {p.name for p in (store / "trash").iterdir()} == {"sigmoid.evengrad", "sigmoid-2.evengrad"}
    assert all("trash" not in str(row["file"]) for row in listed(client))


def test_a_restored_run_takes_another_name_where_its_own_was_taken(client: TestClient, store: Path, key: Key) -> None:
    first, headers = key("sigmoid"), {TOKEN_HEADER: TOKEN}
    assert client.post(f"/runs/{first}/delete", headers=headers).status_code == 200
    keep_run(store, "sigmoid", gain=0.5)
    assert client.post(f"/trash/{first}/restore").status_code == 403  # without the token
    answer = client.post(f"/trash/{first}/restore", headers=headers)
    assert "sigmoid-2.evengrad is back" in answer.json()["said"]
    assert client.get(f"/runs/{answer.json()['id']}").status_code == 200
    assert sorted(p.name for p in store.glob("*.evengrad")) == ["sigmoid-2.evengrad", "sigmoid.evengrad", "tanh.evengrad"]
    assert client.post(f"/trash/{first}/restore", headers=headers).status_code == 404
    assert "The trash is empty" in client.get("/trash").text


def test_a_running_run_is_not_deleted(client: TestClient, store: Path, key: Key) -> None:
    (store / "sigmoid.evengrad-wal").write_bytes(b"")
    answer = client.post(f"/runs/{key('sigmoid')}/delete", headers={TOKEN_HEADER: TOKEN})
    assert answer.status_code == 409
    assert "being written" in answer.text


def test_another_page_may_lead_here_but_not_load_from_here(client: TestClient) -> None:
    for site in ("cross-site", "same-site"):  # another port of this machine is the same site
        for mode, dest in (("no-cors", "image"), ("cors", "empty"), ("navigate", "iframe")):
            headers = {"sec-fetch-site": site, "sec-fetch-mode": mode, "sec-fetch-dest": dest}
            assert client.get("/", headers=headers).status_code == 403
        assert (
            client.get("/", headers={"sec-fetch-site": site, "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}).status_code == 200
        )
    assert (
        client.get("/", headers={"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"}).status_code == 200
    )


def test_every_answer_has_a_strict_policy(client: TestClient, key: Key) -> None:
    for address in ("/", "/api/runs", f"/runs/{key('tanh')}", "/play", "/trash", "/static/run.js", "/nowhere", "/rules"):
        headers = client.get(address).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert headers["x-content-type-options"] == "nosniff"


def test_no_page_has_inline_script_or_style(client: TestClient, key: Key) -> None:
    for address in ("/", f"/runs/{key('tanh')}", "/play", f"/compare?a={key('tanh')}&b={key('sigmoid')}", "/rules/VAN001"):
        text = client.get(address).text
        assert " style=" not in text
        assert " on" not in {part[:3] for part in text.split('"') if part.endswith("=")}
        scripts = text.split("<script")[1:]
        heads = [s.partition(">")[0] for s in scripts]
        assert all(" src=" in head or 'type="application/json"' in head for head in heads)


def test_names_are_escaped_everywhere(client: TestClient, store: Path) -> None:
    path = keep_run(store, EVIL, layer=EVIL)
    entry = next(row for row in listed(client) if row["name"] == EVIL)
    other = next(row for row in listed(client) if row["name"] == "tanh")
    for address in (f"/runs/{entry['id']}", f"/runs/{entry['id']}/article", f"/compare?a={entry['id']}&b={other['id']}", "/compare", "/"):
        assert EVIL not in client.get(address).text
    assert "<" not in client.get(f"/runs/{entry['id']}/report.html").headers["content-disposition"]
    assert path.exists()


@pytest.mark.parametrize("key", ["..", "../tanh", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "tanh", "tanh.evengrad", "%00", "/etc/passwd"])
def test_no_text_of_a_request_becomes_a_path(client: TestClient, key: str) -> None:
    for address in (f"/runs/{key}", f"/runs/{key}/report.json", f"/static/{key}", f"/rules/{key}", f"/trash/{key}"):
        answer = client.get(address)
        assert answer.status_code == 404 or answer.url.path == "/", address
        assert "root:" not in answer.text


def test_a_foreign_file_is_shown_as_such(client: TestClient, store: Path) -> None:
    (store / "foreign.evengrad").write_bytes(b"MZ\x90\x00" * 100)
    with sqlite3.connect(store / "other.evengrad") as database:
        database.execute("CREATE TABLE t (x)")
    (store / "empty.evengrad").touch()
    for name, word in (("foreign", "not a stored run"), ("other", "another program"), ("empty", "is empty")):
        row = next(r for r in listed(client) if r["file"] == f"{name}.evengrad")
        assert word in str(row["trouble"])
        page = client.get(f"/runs/{row['id']}")
        assert page.status_code == 200
        assert word in page.text


def test_a_damaged_run_is_shown_as_such_and_what_is_left_can_be_read(client: TestClient, store: Path, key: Key) -> None:
    path = store / "tanh.evengrad"
    with sqlite3.connect(path) as database:
        database.execute("UPDATE points SET crc = crc + 1")
    page = client.get(f"/runs/{key('tanh')}").text
    assert "is damaged" in page
    assert "left out" in client.get(f"/runs/{key('tanh')}?salvage=1").text


def test_a_store_of_studies_with_other_tables_is_refused(client: TestClient, store: Path) -> None:
    with sqlite3.connect(store / "studies.sqlite") as database:
        database.execute("CREATE TABLE runs (id INTEGER PRIMARY KEY AUTOINCREMENT, study TEXT NOT NULL, record TEXT NOT NULL)")
        database.execute("CREATE VIEW rows AS SELECT 1 AS address, 2 AS study, 3 AS payload, 4 AS checksum")
        database.execute(f"PRAGMA application_id = {0x45474C42}")
        database.execute("PRAGMA user_version = 1")
    assert "does not have the tables" in client.get("/studies").text
    (store / "studies.sqlite").write_bytes(b"nothing of ours" * 100)
    assert "not a database" in client.get("/studies").text


@pytest.fixture
def remote(store: Path) -> TestClient:
    """The application on an address that other machines reach, as another machine sees it."""
    return TestClient(create_app(store, token=TOKEN, host="0.0.0.0"), base_url="http://192.0.2.7:8377", follow_redirects=False)


def test_beyond_this_machine_nothing_is_shown_without_the_token(remote: TestClient) -> None:
    assert remote.get("/").status_code == 401
    assert remote.get("/?token=wrong").status_code == 401
    assert remote.get("/api/runs").status_code == 401
    assert remote.get("/", headers={"host": "evil.example"}).status_code == 421


def test_the_token_in_the_address_becomes_a_cookie(remote: TestClient) -> None:
    answer = remote.get(f"/compare?a=1&token={TOKEN}")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/compare?a=1"
    assert "httponly" in answer.headers["set-cookie"].lower()
    assert "samesite=strict" in answer.headers["set-cookie"].lower()
    assert remote.get("/").status_code == 200
    assert remote.get(f"http://192.0.2.7:8377//evil.example?token={TOKEN}").headers["location"] == "/evil.example"


def test_the_cookie_alone_changes_nothing(remote: TestClient, key: Key) -> None:
    remote.get(f"/?token={TOKEN}")
    assert remote.post(f"/runs/{key('tanh')}/delete").status_code == 403
