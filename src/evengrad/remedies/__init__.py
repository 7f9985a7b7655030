"""Remedies, one file each; `discovered()` finds them all."""

from evengrad.registry import by_class_name, members
from evengrad.remedies.base import Remedy

__all__ = ["Remedy", "discovered"]


def discovered() -> dict[str, type[Remedy]]:
    """Returns every remedy by its name: the files of this package and entry points of the group `evengrad.remedies`."""
    return members("evengrad.remedies", Remedy, "name")


def __getattr__(name: str) -> type[Remedy]:
    return by_class_name(__name__, name, discovered)
