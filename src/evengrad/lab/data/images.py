"""name -> images with pixels in [0, 1] and their classes."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np

from evengrad.errors import InputError
from evengrad.lab.data.downloads import Published, fetch
from evengrad.lab.data.formats import parse_idx, read_cifar, unzipped
from evengrad.lab.data.split import Array, Split, split

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
FASHION_CLASSES = ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

_FILES = {
    "x_train": "train-images-idx3-ubyte.gz",
    "y_train": "train-labels-idx1-ubyte.gz",
    "x_test": "t10k-images-idx3-ubyte.gz",
    "y_test": "t10k-labels-idx1-ubyte.gz",
}
_INSTALL = "apt-get install dataset-fashion-mnist"
_FASHION_RAW_MD5 = {  # of the decompressed bytes: Debian compressed them anew
    "x_train": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "y_train": "9018921c3c673c538a1fc5bad174d6f9",
    "x_test": "8181f5470baa50b63fa0f6fddb340f0a",
    "y_test": "15d484375f8d13e6eb1aabb0c3f46965",
}


def _published(folder: str, mirrors: tuple[str, ...], *md5: str) -> dict[str, Published]:
    """Names the four files of a data set in MNIST's form."""
    return {
        part: Published(path=f"{folder}/{file}", md5=checksum, urls=tuple(mirror + file for mirror in mirrors))
        for (part, file), checksum in zip(_FILES.items(), md5, strict=True)
    }


PUBLISHED = {
    "fashion_mnist": _published(
        "fashion-mnist",
        (
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ),
    "mnist": _published(
        "mnist",
        ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
    "cifar10": {
        "archive": Published(
            path="cifar-10/cifar-10-python.tar.gz",
            md5="c58f30108f718f92721af3b95e74349a",
            urls=("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",),
        )
    },
}


def fashion_mnist(*, full: bool = False, flat: bool = True) -> Split:
    """Returns Fashion-MNIST: the embedded balanced subset (5,000 + 1,000 images), or everything (60,000 + 10,000).

    Args:
        full: All images: from Debian's package `dataset-fashion-mnist` if it is installed, else from the cache, else downloaded (31 MB).
        flat: (N, 784) if True, else (N, 1, 28, 28).

    Raises:
        InputError: if `full` and the images are not to be had.

    Reference: Xiao, Rasul & Vollgraf 2017, https://arxiv.org/abs/1708.07747
    """
    arrays = _full_fashion_mnist() if full else _embedded("fashion_mnist.npz")
    return _images("fashion_mnist", FASHION_CLASSES, arrays, (784,) if flat else (1, 28, 28))


def mnist(*, flat: bool = True) -> Split:
    """Returns MNIST's 60,000 + 10,000 handwritten digits, downloaded on first use (11 MB).

    Args:
        flat: (N, 784) if True, else (N, 1, 28, 28).

    Raises:
        InputError: if the files are neither cached nor to be had.

    Reference: LeCun, Bottou, Bengio & Haffner 1998, https://doi.org/10.1109/5.726791
    """
    arrays = {part: parse_idx(unzipped(fetch(file))) for part, file in PUBLISHED["mnist"].items()}
    return _images("mnist", tuple("0123456789"), arrays, (784,) if flat else (1, 28, 28))


def cifar10(*, flat: bool = True) -> Split:
    """Returns CIFAR-10's 50,000 + 10,000 colour photographs, downloaded on first use (163 MB; 740 MB in memory).

    Args:
        flat: (N, 3072) if True, else (N, 3, 32, 32); red, green and blue one after the other.

    Raises:
        InputError: if the archive is neither cached nor to be had.

    Reference: Krizhevsky 2009, Learning multiple layers of features from tiny images, https://www.cs.toronto.edu/~kriz/cifar.html
    """
    arrays = read_cifar(fetch(PUBLISHED["cifar10"]["archive"]))
    return _images("cifar10", CIFAR_CLASSES, arrays, (3072,) if flat else (3, 32, 32))


def read_debian_fashion_mnist(folder: Path = DEBIAN_FASHION_MNIST) -> dict[str, Array]:
    """Returns all of Fashion-MNIST as it was published: x_train, y_train, x_test, y_test, uint8.

    Raises:
        InputError: if a file is missing, or is not the published one.
    """
    arrays = {}
    for part, file in _FILES.items():
        path = folder / file
        if not path.exists():
            raise InputError(f"the full Fashion-MNIST was not found: {path} is missing. Install Debian's package ({_INSTALL})")
        arrays[part] = parse_idx(unzipped(path, md5=_FASHION_RAW_MD5[part]))
    return arrays


def _full_fashion_mnist() -> dict[str, Array]:
    if DEBIAN_FASHION_MNIST.exists():
        return read_debian_fashion_mnist(DEBIAN_FASHION_MNIST)
    otherwise = f"Or install Debian's package ({_INSTALL}), or use full=False for the embedded 5,000 + 1,000 images"
    return {part: parse_idx(unzipped(fetch(file, otherwise=otherwise))) for part, file in PUBLISHED["fashion_mnist"].items()}


def _images(name: str, classes: tuple[str, ...], arrays: dict[str, Array], shape: tuple[int, ...]) -> Split:
    x_train, x_test = (arrays[k].reshape(-1, *shape).astype(np.float32) / 255 for k in ("x_train", "x_test"))
    return split(name, classes, (x_train, arrays["y_train"]), (x_test, arrays["y_test"]))


def _embedded(file: str) -> dict[str, Array]:
    with resources.as_file(resources.files("evengrad.lab") / "_data" / file) as path, np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)
