"""Debian's Fashion-MNIST -> src/evengrad/lab/_data/fashion_mnist.npz: the first 500 training and 100 test images of each class.

Run `python scripts/make_fashion_subset.py` after `apt-get install dataset-fashion-mnist`. The MD5 sums of the published files are
checked first; the result is the same on every run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from evengrad.lab.data import read_debian_fashion_mnist

TARGET = Path(__file__).parents[1] / "src/evengrad/lab/_data/fashion_mnist.npz"
LARGEST_BYTES = 3_000_000


def main() -> None:
    """Writes the file and says how large it is."""
    full = read_debian_fashion_mnist()
    arrays: dict[str, Any] = {}
    for part, each in (("train", 500), ("test", 100)):
        rows = first_of_each_class(full[f"y_{part}"], each)
        arrays |= {f"x_{part}": full[f"x_{part}"][rows], f"y_{part}": full[f"y_{part}"][rows]}
    with TARGET.open("wb") as file:
        np.savez_compressed(file, **arrays)
    size = TARGET.stat().st_size
    if size > LARGEST_BYTES:
        raise SystemExit(f"{TARGET} has {size} bytes; at most {LARGEST_BYTES} may be shipped")
    print(f"{TARGET.name}: {size / 1e6:.2f} MB, {', '.join(f'{k} {v.shape} {v.dtype}' for k, v in arrays.items())}")


def first_of_each_class(labels: npt.NDArray[np.uint8], each: int) -> npt.NDArray[np.int64]:
    """Returns the indices of the first `each` samples of every class, the classes taking turns: any first 10 n samples are balanced."""
    return np.stack([np.flatnonzero(labels == label)[:each] for label in np.unique(labels)], axis=1).reshape(-1)


if __name__ == "__main__":
    main()
