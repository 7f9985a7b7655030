"""A running training -> files and services that show it: what a sink is."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from evengrad.types import Event, Floats, Layer, Run, Series, Trace


class Sink(ABC):
    """Where a watched training is written to while it runs.

    A sink is one file in `evengrad/sinks`, or an entry point of the group `evengrad.sinks`. It is called from the training loop, so it must
    be quick, and what it has written should be readable if the process is killed. Asked for by name (`sinks=("csv",)`) it is made with one
    argument, the folder of the run.

    In columns, NaN means that nothing was seen and infinity that a value was not finite.

    Args:
        directory: Folder that the files go to; made when the first of them is written.

    Attributes:
        name: Short name, as in `sinks=("csv",)`.
    """

    name: ClassVar[str]

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)

    @abstractmethod
    def open(self, run: Run, layers: tuple[Layer, ...]) -> None:
        """Is told once what is watched, when the layers are known and before anything else."""

    @abstractmethod
    def write(self, step: int, columns: Mapping[str, Floats], points: Mapping[str, float]) -> None:
        """Takes what was seen at a step.

        Args:
            step: The step; steps never go back.
            columns: Name -> a value a layer (L,); empty for a step that was not looked into, whole in one call otherwise.
            points: Name of a curve -> its value at this step (`loss`, `lr`, `grad_norm` …).
        """

    def histogram(self, step: int, kind: str, layer: Layer, counts: Series, edges: Series) -> None:
        """Takes the distribution of a layer's `gradients` or `weights` (`kind`): counts (K,) between edges (K + 1,)."""
        return

    def event(self, event: Event) -> None:
        """Takes something that happened once."""
        return

    @abstractmethod
    def close(self, trace: Trace) -> None:
        """Finishes; `trace` is all that the watch still holds. Called once, and also when `open` never was."""


def label(layer: Layer) -> str:
    """Returns the layer's name as every sink writes it; the root is `model`."""
    return clean(layer.name) or "model"


def clean(text: str) -> str:
    """Returns the text without characters that would break a line or an encoding."""
    return "".join(c if c.isprintable() else "�" for c in text)


def unused(directory: Path, names: Sequence[str], suffix: str) -> list[Path]:
    """Returns a path for each name, with a common number where files of an earlier run lie in the folder: `layers-2.csv`."""
    for n in itertools.count(1):
        paths = [directory / f"{name}{f'-{n}' if n > 1 else ''}{suffix}" for name in names]
        if not any(path.exists() for path in paths):
            return paths
    raise AssertionError
