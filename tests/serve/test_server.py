"""Starting: without torch, on this machine unless a token is given, with errors that say what to do."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from evengrad.errors import InputError
from evengrad.serve.guard import is_loopback
from evengrad.serve.server import prepare


def test_it_starts_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from evengrad.serve.server import prepare;"
        "server, bound, address = prepare(Path(sys.argv[1]), host='127.0.0.1', port=0, token=None); bound.close();"
        "print(address, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=120, check=True)
    address, torch = done.stdout.split()
    assert address.startswith("http://127.0.0.1:")
    assert torch == "False"


def test_pages_need_no_torch_either(store: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from starlette.testclient import TestClient; from evengrad.serve.app import create_app\n"
        "with TestClient(create_app(Path(sys.argv[1]), token='x' * 20), base_url='http://127.0.0.1:1') as client:\n"
        "    key = client.get('/api/runs').json()[0]['id']\n"
        "    for to in ('/', f'/runs/{key}', f'/compare?a={key}&b={key}', '/studies', '/rules/VAN001', f'/runs/{key}/report.json'):\n"
        "        assert client.get(to).status_code == 200, to\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(store)], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("host", "inside"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("example.org", False)]
)
def test_which_addresses_are_this_machines_own(host: str, inside: bool) -> None:
    assert is_loopback(host) is inside


def test_another_address_needs_a_token(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give a token"):
        prepare(tmp_path, host="0.0.0.0", port=0, token=None)
    with pytest.raises(InputError, match="16 signs or more, got 5"):
        prepare(tmp_path, host="0.0.0.0", port=0, token="short")


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match="Give another one with --port"):
            prepare(tmp_path, host="127.0.0.1", port=taken.getsockname()[1], token=None)


def test_who_opens_the_address_as_soon_as_it_is_told_is_not_refused(tmp_path: Path) -> None:
    _, bound, _ = prepare(tmp_path, host="127.0.0.1", port=0, token=None)
    with bound, socket.create_connection(bound.getsockname(), timeout=10):
        pass
