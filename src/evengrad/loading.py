"""a user's Python file -> module."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from evengrad.errors import ForwardError, InputError


def load_module(file: str, expected: str) -> ModuleType:
    """Runs a user's file as a module; what lies beside it can be imported by it.

    Args:
        file: Its path.
        expected: What should have been given in its place, for the error.

    Raises:
        InputError: if there is no such file, or it ends the program.
        ForwardError: if the file itself raises; the user's traceback is the cause.
    """
    path = Path(file)
    if not path.is_file():
        raise InputError(f"there is no file {file!r}; expected {expected}")
    name = path.stem if path.stem not in sys.modules else f"_evengrad_{path.stem}"  # a file of one's own may be called random.py
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{file!r} is not a Python file; expected {expected}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ForwardError(f"{file} raised {type(error).__name__} while it was loaded: {error}") from error
    except SystemExit as error:
        raise InputError(
            f"{file} ended the program while it was loaded; expected a file that can be imported. "
            f"Put what it runs under if __name__ == '__main__':"
        ) from error
    return module
