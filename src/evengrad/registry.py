"""A package and a base class -> its members by key: adding a rule, remedy or study is adding one file."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from functools import cache
from importlib.metadata import entry_points
from types import ModuleType
from typing import TypeVar, cast

from evengrad.errors import EvengradError

T = TypeVar("T")


@cache
def members(package: str, base: type[T], key: str) -> dict[str, type[T]]:
    """Finds every concrete subclass of `base` in the files of `package` and in entry points of that group.

    Args:
        package: Dotted package name such as `evengrad.rules`; also the entry-point group for third parties.
        base: The abstract class that members extend.
        key: Class attribute that names a member, such as `code`.

    Raises:
        EvengradError: if two members share a key, one has none, or one cannot be loaded.
    """
    found: dict[str, type[T]] = {}
    for module in [*_files(package), *_entries(package)]:
        candidates = list(vars(module).values()) if inspect.ismodule(module) else [module]
        for member in candidates:
            if not (inspect.isclass(member) and issubclass(member, base)) or inspect.isabstract(member) or member.__name__.startswith("_"):
                continue
            name = getattr(member, key, None)
            if name is None:
                raise EvengradError(f"{member.__module__}.{member.__qualname__} has no {key!r}: give it one, such as {key} = ...")
            if found.setdefault(name, member) is not member:
                raise EvengradError(f"two members of {package} are called {name!r}: {found[name].__qualname__} and {member.__qualname__}")
    return dict(sorted(found.items()))


def _entries(package: str) -> list[object]:
    found = []
    for entry in entry_points(group=package):
        try:
            found.append(entry.load())
        except Exception as error:
            raise EvengradError(
                f"{entry.name!r}, which {entry.dist.name if entry.dist else 'a package'} adds to {package}, cannot be loaded: "
                f"{type(error).__name__}: {error}. Mend or uninstall it"
            ) from error
    return found


def _files(package: str) -> list[ModuleType]:
    root = importlib.import_module(package)
    names = [info.name for info in pkgutil.iter_modules(root.__path__) if not info.name.startswith("_")]
    return [importlib.import_module(f"{package}.{name}") for name in names]


def by_class_name(package: str, name: str, discover: Callable[[], dict[str, type[T]]]) -> type[T]:
    """Finds a member by its class name, for a package's `__getattr__`; private names and submodules are left to the import system."""
    if not name.startswith("_") and name[:1].isupper():
        for module in _files(package):  # first, so that a third party's module can import ours while it is being discovered
            member = vars(module).get(name)
            if inspect.isclass(member) and member.__module__ == module.__name__ and not inspect.isabstract(member):
                return cast("type[T]", member)
        for member in discover().values():
            if member.__name__ == name:
                return member
    raise AttributeError(f"module {package!r} has no attribute {name!r}")
