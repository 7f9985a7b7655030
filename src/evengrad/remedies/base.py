"""A finding -> proposals, and a proposal -> a changed rig: what a remedy is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from evengrad.errors import InputError
from evengrad.rig import Rig
from evengrad.types import Finding, Proposal, Trace

Undo = Callable[[], None]

LOOP, INPUTS, RATE, CLIP, INITIALISER, ACTIVATION, NORM, SKIP = range(8)
"""Order of least change, in which interventions are tried."""


@dataclass(frozen=True, kw_only=True)
class Remedy(ABC):
    """One change that helps networks train: `propose` is pure, `apply` changes a rig and returns its exact undo.

    A remedy is one file in `evengrad/remedies` (or an entry point of the group `evengrad.remedies`).

    Attributes:
        name: Stable name, such as `swap_activation`.
        title: What it does, in a few words.
        symptoms: Symptoms, or codes of findings, that it is proposed for.
        causes: Causes that it is proposed for, whatever the symptom.
        change: Its place in the order of least change.
        diagnostic: True if its effect tells a cause, so that it is tried as an intervention; False if it only repairs.
        shows_at_once: True if the signal of a single batch shows its effect; False if only training does.
        random: True if it draws random numbers, so that an effect needs more than one draw.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    symptoms: ClassVar[tuple[str, ...]] = ()
    causes: ClassVar[tuple[str, ...]] = ()
    change: ClassVar[int]
    diagnostic: ClassVar[bool] = True
    shows_at_once: ClassVar[bool] = True
    random: ClassVar[bool] = False

    @abstractmethod
    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        """Yields changes for this finding, best first; never touches a model."""

    @abstractmethod
    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        """Changes the rig and returns a function that puts everything back, to the bit."""

    def treats(self, finding: Finding) -> bool:
        """True if this remedy is meant for such a finding."""
        return finding.symptom in self.symptoms or finding.code in self.symptoms or finding.cause in self.causes


def submodule(model: nn.Module, name: str) -> nn.Module:
    """Finds a module by name.

    Raises:
        InputError: if a proposal made for another model is applied.
    """
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        raise InputError(f"the model has no module {name!r}: this change was proposed for another model") from error


def undo_all(changes: Iterable[Undo]) -> Undo:
    """Returns one undo that runs these in reverse order; should making one of them raise, those made before are undone at once."""
    undos: list[Undo] = []

    def undo() -> None:
        while undos:
            undos.pop()()

    try:
        for change in changes:
            undos.append(change)
    except BaseException:
        undo()
        raise
    return undo
