"""published file -> arrays: MNIST's IDX, and CIFAR's pickles in a tar archive, read without running what is in them."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import tarfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from evengrad.errors import InputError
from evengrad.lab.data.split import Array

_CIFAR_BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
_OF_ARRAYS = {"_reconstruct": ("numpy.core.multiarray", "numpy._core.multiarray"), "ndarray": ("numpy",), "dtype": ("numpy",)}


def unzipped(path: Path, *, md5: str | None = None) -> bytes:
    """Returns what a gzip file holds.

    Raises:
        InputError: if it is not whole, or if `md5` is given and is not that of the decompressed bytes.
    """
    try:
        raw = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} is not a whole gzip file: {error}") from error
    if md5 is not None and (found := hashlib.md5(raw, usedforsecurity=False).hexdigest()) != md5:
        raise InputError(f"{path} is not the published file: expected MD5 {md5} after decompression, found {found}")
    return raw


def parse_idx(raw: bytes) -> npt.NDArray[np.uint8]:
    """Reads the IDX format: two zero bytes, type, number of axes, the sizes (big-endian), the bytes."""
    axes = raw[3]
    shape = np.frombuffer(raw, ">u4", count=axes, offset=4).astype(int)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape)


def read_cifar(archive: Path) -> dict[str, Array]:
    """Reads CIFAR-10's archive for Python: x_train (50000, 3072) and x_test (10000, 3072), uint8, y_train and y_test."""
    batches = {}
    with tarfile.open(archive) as tar:
        for member in tar:  # in the archive's own order: going back would decompress it anew
            name = Path(member.name).name
            if name in _CIFAR_BATCHES and (file := tar.extractfile(member)) is not None:
                batches[name] = unpickled_arrays(file)
    if missing := [name for name in _CIFAR_BATCHES if name not in batches]:
        raise InputError(f"{archive} is not CIFAR-10's archive for Python: {', '.join(missing)} is missing")
    *train, test = (batches[name] for name in _CIFAR_BATCHES)
    return {
        "x_train": np.concatenate([batch[b"data"] for batch in train]),
        "y_train": np.concatenate([batch[b"labels"] for batch in train]),
        "x_test": test[b"data"],
        "y_test": np.asarray(test[b"labels"]),
    }


def unpickled_arrays(file: IO[bytes]) -> Any:
    """Reads a pickle of Python 2 that holds lists, dicts, strings (as bytes), numbers and arrays, and refuses any other.

    Raises:
        InputError: if it names anything but what numpy rebuilds an array with; nothing in it has been run then.
    """
    return _ArraysOnly(file, encoding="bytes").load()


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module not in _OF_ARRAYS.get(name, ()):
            raise InputError(f"the file is not the published one: a pickle of arrays has no use for {module}.{name}")
        rebuild = np.empty(0).__reduce__()[0]
        return {"_reconstruct": rebuild, "ndarray": np.ndarray, "dtype": np.dtype}[name]
