"""name -> images with pixels in [0, 1] and their classes."""

from __future__ import annotations

import gzip
import hashlib
from importlib import resources
from pathlib import Path

import numpy as np
import numpy.typing as npt

from evengrad.errors import InputError
from evengrad.lab.data.split import Array, Split, split

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
FASHION_CLASSES = ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
_FASHION_FILES = {  # array -> (file, MD5 of the decompressed bytes: Debian compressed them anew)
    "x_train": ("train-images-idx3-ubyte.gz", "f4a8712d7a061bf5bd6d2ca38dc4d50a"),
    "y_train": ("train-labels-idx1-ubyte.gz", "9018921c3c673c538a1fc5bad174d6f9"),
    "x_test": ("t10k-images-idx3-ubyte.gz", "8181f5470baa50b63fa0f6fddb340f0a"),
    "y_test": ("t10k-labels-idx1-ubyte.gz", "15d484375f8d13e6eb1aabb0c3f46965"),
}


def fashion_mnist(*, full: bool = False, flat: bool = True) -> Split:
    """Returns Fashion-MNIST, pixels scaled to [0, 1]: the embedded balanced subset (5,000 + 1,000), or everything (60,000 + 10,000).

    Args:
        full: Read all images from Debian's package `dataset-fashion-mnist`.
        flat: (N, 784) if True, else (N, 1, 28, 28).

    Raises:
        InputError: if `full` and the package is not installed.

    Reference: Xiao, Rasul & Vollgraf 2017, https://arxiv.org/abs/1708.07747
    """
    arrays = read_debian_fashion_mnist() if full else _embedded("fashion_mnist.npz")
    shape = (-1, 784) if flat else (-1, 1, 28, 28)
    x_train, x_test = (arrays[k].reshape(shape).astype(np.float32) / 255 for k in ("x_train", "x_test"))
    return split("fashion_mnist", FASHION_CLASSES, (x_train, arrays["y_train"]), (x_test, arrays["y_test"]))


def read_debian_fashion_mnist(folder: Path = DEBIAN_FASHION_MNIST) -> dict[str, npt.NDArray[np.uint8]]:
    """Returns all of Fashion-MNIST as it was published: x_train, y_train, x_test, y_test, uint8.

    Raises:
        InputError: if a file is missing, or is not the published one.
    """
    arrays = {}
    for name, (file, md5) in _FASHION_FILES.items():
        path = folder / file
        if not path.exists():
            raise InputError(
                f"the full Fashion-MNIST was not found: {path} is missing. Install Debian's package (apt-get install "
                f"dataset-fashion-mnist), or use full=False for the embedded 5,000 + 1,000 images"
            )
        raw = gzip.decompress(path.read_bytes())
        if (found := hashlib.md5(raw, usedforsecurity=False).hexdigest()) != md5:
            raise InputError(f"{path} is not the published Fashion-MNIST file: expected MD5 {md5} after decompression, found {found}")
        arrays[name] = _parse_idx(raw)
    return arrays


def _parse_idx(raw: bytes) -> npt.NDArray[np.uint8]:
    """Reads the IDX format: two zero bytes, type, number of axes, the sizes (big-endian), the bytes."""
    axes = raw[3]
    shape = np.frombuffer(raw, ">u4", count=axes, offset=4).astype(int)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape)


def _embedded(file: str) -> dict[str, Array]:
    with resources.as_file(resources.files("evengrad.lab") / "_data" / file) as path, np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)
