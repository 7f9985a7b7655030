from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import pickletools
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from evengrad.errors import InputError
from evengrad.lab import data
from evengrad.lab.data import downloads, images
from evengrad.lab.data.downloads import Published, fetch
from evengrad.lab.data.formats import unpickled_arrays

BODY = bytes(range(256)) * 5000  # longer than one piece of a download


@dataclass
class Server:
    """A server on this machine: what it serves by path, and what was asked for."""

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)  # path -> bytes after which the connection ends
    asked: list[str] = field(default_factory=list)
    gate: threading.Barrier | None = None  # answers only when as many have asked


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            it.asked.append(self.path)
            if it.gate is not None:
                it.gate.wait(60)
            if self.path not in it.files:
                self.send_error(404)
                return
            body = it.files[self.path]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: it.cut.get(self.path)])

        def log_message(self, *_: object) -> None:
            """Stays quiet."""

    monkeypatch.setenv("no_proxy", "*")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        it = Server(f"http://127.0.0.1:{http.server_port}")
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield it
        http.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("EVENGRAD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def md5(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


def published(*urls: str, body: bytes = BODY) -> Published:
    return Published(path="set/file.gz", md5=md5(body), urls=urls)


def left(cache: Path) -> list[str]:
    return sorted(str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file())


def test_a_file_is_downloaded_once_and_kept(server: Server, cache: Path) -> None:
    server.files["/a"] = BODY
    path = fetch(published(server.url + "/a"))
    assert path == cache / "set" / "file.gz"
    assert path.read_bytes() == BODY
    assert fetch(published(server.url + "/a")) == path
    assert server.asked == ["/a"]
    assert left(cache) == ["set/file.gz"]


def test_the_next_mirror_is_tried(server: Server) -> None:
    server.files |= {"/wrong": b"please log in", "/short": BODY, "/right": BODY}
    server.cut["/short"] = 1000
    path = fetch(published(*(server.url + p for p in ("/missing", "/wrong", "/short", "/right"))))
    assert path.read_bytes() == BODY
    assert server.asked == ["/missing", "/wrong", "/short", "/right"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/missing", r"HTTP Error 404: Not Found"),
        ("/wrong", rf"expected MD5 {md5(BODY)}, found {md5(b'please log in')} in 13 bytes"),
        ("/short", r"in 1000 bytes|1000 bytes read"),
        ("/flipped", rf"expected MD5 .* in {len(BODY)} bytes"),
    ],
)
def test_what_is_not_the_published_file_is_refused_and_leaves_nothing(server: Server, cache: Path, path: str, reason: str) -> None:
    server.files |= {"/wrong": b"please log in", "/short": BODY, "/flipped": b"\x01" + BODY[1:]}
    server.cut["/short"] = 1000
    with pytest.raises(InputError, match=reason):
        fetch(published(server.url + path))
    assert left(cache) == []


def test_offline_says_what_was_tried_and_where_the_file_can_be_put(cache: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as closed:
        port = closed.server_port
    with pytest.raises(InputError) as caught:
        fetch(published(f"http://127.0.0.1:{port}/a", f"http://127.0.0.1:{port}/b"), otherwise="Or do without")
    message = str(caught.value)
    assert f"tried http://127.0.0.1:{port}/a (" in message
    assert f"http://127.0.0.1:{port}/b (" in message
    assert f"Put the file at {cache / 'set' / 'file.gz'} by hand" in message
    assert message.endswith("Or do without")
    assert left(cache) == []


def test_a_file_put_there_by_hand_is_used_if_it_is_the_published_one(cache: Path) -> None:
    (cache / "set").mkdir(parents=True)
    (cache / "set" / "file.gz").write_bytes(BODY)
    assert fetch(published()).read_bytes() == BODY
    (cache / "set" / "file.gz").write_bytes(b"other")
    with pytest.raises(InputError, match=rf"file.gz is not the published file: expected MD5 {md5(BODY)}, found {md5(b'other')}. Delete it"):
        fetch(published())
    assert left(cache) == ["set/file.gz"]  # the user's file is the user's to delete


def test_an_interrupted_download_leaves_nothing(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted:
        def update(self, _: bytes) -> None:
            raise KeyboardInterrupt

    server.files["/a"] = BODY
    wanted = published(server.url + "/a")
    monkeypatch.setattr(downloads.hashlib, "md5", lambda **_: Interrupted())
    with pytest.raises(KeyboardInterrupt):
        fetch(wanted)
    assert left(cache) == []


def test_two_processes_that_download_at_once_both_get_the_whole_file(server: Server, cache: Path) -> None:
    server.files["/a"] = BODY
    server.gate = threading.Barrier(2)  # neither is answered before both have asked
    program = (
        "from evengrad.lab.data.downloads import Published, fetch\n"
        f"path = fetch(Published(path='set/file.gz', md5='{md5(BODY)}', urls=('{server.url}/a',)))\n"
        f"assert len(path.read_bytes()) == {len(BODY)}\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[1] for process in processes] == ["", ""]
    assert [process.returncode for process in processes] == [0, 0]
    assert server.asked == ["/a", "/a"]
    assert left(cache) == ["set/file.gz"]


def test_the_cache_lies_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert data.cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("EVENGRAD_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert data.cache_folder() == tmp_path / "xdg" / "evengrad"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data.cache_folder() == tmp_path / ".cache" / "evengrad"


def idx(array: np.ndarray) -> bytes:
    return gzip.compress(bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes())


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_images_are_read_from_what_was_downloaded(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path, name: str
) -> None:
    random = np.random.RandomState(0)
    arrays = {
        "x_train": random.randint(0, 256, (6, 28, 28), np.uint8),
        "y_train": np.arange(6, dtype=np.uint8),
        "x_test": random.randint(0, 256, (3, 28, 28), np.uint8),
        "y_test": np.arange(3, dtype=np.uint8),
    }
    server.files |= {f"/{part}": idx(array) for part, array in arrays.items()}
    table = {part: Published(path=part, md5=md5(server.files[f"/{part}"]), urls=(f"{server.url}/{part}",)) for part in arrays}
    monkeypatch.setitem(images.PUBLISHED, name, table)
    monkeypatch.setattr(images, "DEBIAN_FASHION_MNIST", tmp_path / "not installed")
    options = {"full": True} if name == "fashion_mnist" else {}
    split = data.load(name, **options)
    np.testing.assert_array_equal(split.x_train, arrays["x_train"].reshape(6, 784).astype(np.float32) / 255)
    np.testing.assert_array_equal(split.y_test, arrays["y_test"])
    assert len(split.classes) == 10
    assert torch.equal(data.load(name, flat=False, **options).x_test.flatten(1), split.x_test)
    assert left(cache) == sorted(arrays)


def test_the_published_table_names_each_file_of_each_set_once() -> None:
    files = [file for part in images.PUBLISHED.values() for file in part.values()]
    assert len({file.path for file in files}) == len({file.md5 for file in files}) == 9
    for file in files:
        assert len(file.md5) == 32
        assert file.urls
        assert all(url.startswith("http") and url.endswith(Path(file.path).name) for url in file.urls)


def test_full_fashion_mnist_without_package_and_network_names_both_ways_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(images, "DEBIAN_FASHION_MNIST", tmp_path / "not installed")
    offline = {part: Published(path=f"fashion/{part}", md5="0", urls=(f"http://127.0.0.1:9/{part}",)) for part in ("x_train",)}
    monkeypatch.setitem(images.PUBLISHED, "fashion_mnist", offline)
    with pytest.raises(InputError, match=r"127\.0\.0\.1:9/x_train.*apt-get install dataset-fashion-mnist.*full=False"):
        data.fashion_mnist(full=True)


def test_a_missing_file_of_the_package_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte\.gz is missing\. .*apt-get install dataset-fashion-mnist"):
        data.read_debian_fashion_mnist(tmp_path)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(idx(np.zeros(9, np.uint8))[:-9])
    with pytest.raises(InputError, match="is not a whole gzip file"):
        data.read_debian_fashion_mnist(tmp_path)


class Python2Pickler(pickle._Pickler):
    """Writes what Python 2's cPickle wrote for CIFAR-10: protocol 2, byte strings as such, numpy's old module."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_bytes(self, obj: bytes) -> None:
        self.write(pickle.BINSTRING + len(obj).to_bytes(4, "little") + obj)
        self.memoize(obj)

    def save_text(self, obj: str) -> None:
        self.save_bytes(obj.encode("latin-1"))

    def save_global(self, obj: Any, name: str | None = None) -> None:
        module = {"_reconstruct": "numpy.core.multiarray"}.get(obj.__name__, "numpy")
        self.write(pickle.GLOBAL + f"{module}\n{obj.__name__}\n".encode())
        self.memoize(obj)

    dispatch[bytes] = save_bytes
    dispatch[str] = save_text
    dispatch[type(pickle.dumps)] = dispatch[type(np.empty(0).__reduce__()[0])] = dispatch[type] = dispatch[type(np.dtype)] = save_global


def pickled(value: Any) -> bytes:
    target = io.BytesIO()
    Python2Pickler(target, protocol=2).dump(value)
    return target.getvalue()


def batch(seed: int) -> dict[str, Any]:
    random = np.random.RandomState(seed)
    return {"data": random.randint(0, 256, (4, 3072), np.uint8), "labels": random.randint(0, 10, 4).tolist(), "batch_label": "a batch"}


def cifar_archive(batches: dict[str, Any]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as tar:
        for name, content in batches.items():
            body = pickled(content)
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(body)
            tar.addfile(member, io.BytesIO(body))
    return target.getvalue()


@pytest.fixture
def cifar(server: Server, monkeypatch: pytest.MonkeyPatch) -> Any:
    def serve(batches: dict[str, Any]) -> None:
        server.files["/c"] = cifar_archive(batches)
        file = Published(path="c.tar.gz", md5=md5(server.files["/c"]), urls=(server.url + "/c",))
        monkeypatch.setitem(images.PUBLISHED, "cifar10", {"archive": file})

    return serve


def test_the_pickle_that_stands_for_cifars_is_like_one_of_python_2() -> None:
    opcodes = {
        (opcode.name, argument if opcode.name == "GLOBAL" else None) for opcode, argument, _ in pickletools.genops(pickled(batch(0)))
    }
    assert {("GLOBAL", "numpy.core.multiarray _reconstruct"), ("GLOBAL", "numpy ndarray"), ("GLOBAL", "numpy dtype")} <= opcodes
    assert ("BINSTRING", None) in opcodes
    assert not any(name.startswith(("BINUNICODE", "BINBYTES", "SHORT_BINBYTES")) for name, _ in opcodes)


def test_cifar_batches_are_put_together_in_their_order(cifar: Any) -> None:
    train = {f"data_batch_{i}": batch(i) for i in (4, 1, 5, 2, 3)}  # the archive has them in no order
    cifar({"readme.html": "text"} | train | {"test_batch": batch(9)})
    split = data.cifar10(flat=False)
    assert split.x_train.shape == (20, 3, 32, 32)
    for i in range(5):
        expected = batch(i + 1)["data"].reshape(-1, 3, 32, 32).astype(np.float32) / 255
        np.testing.assert_array_equal(split.x_train[4 * i : 4 * i + 4], expected)
        assert split.y_train[4 * i : 4 * i + 4].tolist() == batch(i + 1)["labels"]
    assert split.y_test.tolist() == batch(9)["labels"]
    assert torch.equal(data.load("cifar10").x_test, split.x_test.flatten(1))


def test_an_archive_that_lacks_a_batch_is_refused(cifar: Any) -> None:
    cifar({f"data_batch_{i}": batch(i) for i in range(1, 5)})
    with pytest.raises(InputError, match="not CIFAR-10's archive for Python: data_batch_5, test_batch is missing"):
        data.cifar10()


class Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_pickle_that_names_anything_but_arrays_is_refused_before_it_runs(tmp_path: Path, protocol: int) -> None:
    body = pickle.dumps({"data": Touch(tmp_path / "ran")}, protocol=protocol)
    with pytest.raises(InputError, match=r"a pickle of arrays has no use for \w*io\.open"):
        unpickled_arrays(io.BytesIO(body))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "named", ["numpy\nload", "numpy.core.multiarray\nfromfile", "builtins\nndarray", "numpy\n_reconstruct", "os\ndtype"]
)
def test_a_pickle_may_not_name_other_parts_of_numpy(named: str) -> None:
    with pytest.raises(InputError, match="has no use for"):
        unpickled_arrays(io.BytesIO(f"c{named}\n.".encode()))
