"""Rules, one file each: `evengrad.rules.SaturatedActivation(max_saturated_fraction=.7)`; `discovered()` finds them all."""

from evengrad.registry import by_class_name, members
from evengrad.rules.base import Examples, Rule

__all__ = ["Examples", "Rule", "discovered"]


def discovered() -> dict[str, type[Rule]]:
    """Returns every rule by its code: the files of this package and entry points of the group `evengrad.rules`."""
    return members("evengrad.rules", Rule, "code")


def __getattr__(name: str) -> type[Rule]:
    return by_class_name(__name__, name, discovered)
