"""A folder of stored runs, and the application over it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")
from starlette.testclient import TestClient

from evengrad.serve.app import create_app
from evengrad.serve.server import prepare
from evengrad.store import RunFile
from evengrad.types import Layer, Run

TOKEN = "a-token-that-only-tests-know"
BASE = "http://127.0.0.1:8377"
Keep = Callable[..., Path]


def keep_run(folder: Path, name: str = "stuck", *, gain: float = 0.24, steps: int = 30, layer: str = "net", loss: float = 0.7) -> Path:
    """Writes a finished run whose gradient is multiplied by `gain` from layer to layer."""
    count = 12
    layers = [
        Layer(
            name=f"{layer}.{i}",
            kind="linear",
            depth=i + 1,
            group=0,
            trunk=0,
            fan_in=32,
            fan_out=32,
            parameters=1056,
            weight=f"{layer}.{i}.weight",
        )
        for i in range(count)
    ]
    falling = (gain ** np.arange(count)[::-1]).astype(np.float32)
    columns = {
        "grad_out_norm": falling,
        "grad_norm": falling,
        "out_spread": np.ones(count, np.float32),
        "weight_norm": np.ones(count, np.float32),
    }
    losses = loss + np.exp(-np.arange(steps) / 5)
    with RunFile.create(folder, name) as file:
        file.write(run=Run(name=name, model="Sequential", parameters=12672, samples=64, verb="watch"), layers=layers)
        file.write(frames={0: columns, steps - 1: columns}, points={"loss": (list(range(steps)), [float(x) for x in losses])})
        return file.path


@contextmanager
def served(folder: Path, port: int = 0) -> Iterator[str]:
    """Serves a folder from a thread, and gives the address without its last slash."""
    server, bound, address = prepare(folder, host="127.0.0.1", port=port, token=None)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    until = time.monotonic() + 20
    while not server.started and time.monotonic() < until:
        time.sleep(0.02)
    yield address.rstrip("/")
    server.should_exit = True
    thread.join(timeout=20)
    bound.close()
    assert not thread.is_alive()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    keep_run(folder, "sigmoid")
    keep_run(folder, "tanh", gain=0.97, loss=0.01)
    return folder


@pytest.fixture
def client(store: Path) -> Iterator[TestClient]:
    with TestClient(create_app(store, token=TOKEN), base_url=BASE) as found:
        yield found


@pytest.fixture
def key(store: Path) -> Callable[[str], str]:
    """Returns the id of a file in the folder."""
    from evengrad.serve.shelf import Shelf

    return lambda stem: next(e.id for e in Shelf(store).entries().values() if e.path.stem == stem)
