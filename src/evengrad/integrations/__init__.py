"""Other frameworks' trainings -> watched: one file a framework, each with an extra of its own; none is imported before it is asked for."""

import importlib
from types import ModuleType

_HERE = ("keras", "lightning", "transformers", "testing")


def __getattr__(name: str) -> ModuleType:
    if name not in _HERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; integrations are {', '.join(_HERE)}")
    return importlib.import_module(f"{__name__}.{name}")
