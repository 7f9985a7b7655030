"""Studies, one file each: `evengrad.study("two-circles").run()`; `discovered()` finds them all."""

from evengrad.lab.study import Study
from evengrad.registry import by_class_name, members

__all__ = ["discovered"]


def discovered() -> dict[str, type[Study]]:
    """Returns every study by its name: the files of this package and entry points of the group `evengrad.lab.studies`."""
    return members("evengrad.lab.studies", Study, "name")


def __getattr__(name: str) -> type[Study]:
    return by_class_name(__name__, name, discovered)
