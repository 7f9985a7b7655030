"""Guards, one file each: `watch(guard="skip")` or `watch(guard=eg.guards.Skip(limit=6))`; `discovered()` finds them all."""

from evengrad.errors import InputError, unknown
from evengrad.monitor.guards.base import Guard, Situation
from evengrad.registry import by_class_name, members

__all__ = ["Guard", "Situation", "discovered", "resolved"]


def discovered() -> dict[str, type[Guard]]:
    """Returns every guard by its name: the files of this package and entry points of the group `evengrad.monitor.guards`."""
    return members("evengrad.monitor.guards", Guard, "name")


def resolved(guard: str | Guard | None) -> Guard | None:
    """Returns the guard of this name, or the guard itself.

    Raises:
        UnknownNameError: if no guard bears the name.
        InputError: if it is neither a name nor a guard.
    """
    if guard is None or isinstance(guard, Guard):
        return guard
    if not isinstance(guard, str):
        raise InputError(f"guard must be a name such as 'skip', or a guard; got {type(guard).__name__}")
    known = discovered()
    if guard not in known:
        raise unknown("guard", guard, known)
    return known[guard]()


def __getattr__(name: str) -> type[Guard]:
    return by_class_name(__name__, name, discovered)
