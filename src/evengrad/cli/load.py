"""`FILE.py:name` -> the Experiment that the user's file holds under that name."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from evengrad.errors import ForwardError, InputError, unknown

if TYPE_CHECKING:
    from evengrad.training import Experiment


def load_experiment(target: str, device: str | None = None) -> Experiment:
    """Runs the user's file as a module and returns the Experiment in it.

    Args:
        target: `FILE.py:name`; without a name, `experiment` is meant.
        device: Device to use in place of the experiment's own.

    Raises:
        InputError: if there is no such file or name, or it holds something else.
        ForwardError: if the file itself raises; the user's traceback is the cause.
    """
    from evengrad.training import Experiment, checked_device

    if device is not None:
        checked_device(device)
    file, _, name = target.partition(":")
    name = name or "experiment"
    held = vars(_loaded(file))
    if name not in held:
        experiments = [n for n, value in held.items() if isinstance(value, Experiment)]
        raise unknown(f"attribute of {file}", name, experiments or [n for n in held if not n.startswith("_")])
    found = held[name]
    if not isinstance(found, Experiment):
        got = f"the class {found.__name__!r}" if isinstance(found, type) else f"a {type(found).__name__}"
        raise InputError(f"{file}:{name} is {got}; expected an evengrad.Experiment(model, data, loss_fn, optimizer)")
    return found if device is None else replace(found, device=device)


def _loaded(file: str) -> ModuleType:
    path = Path(file)
    if not path.is_file():
        raise InputError(f"there is no file {file!r}; expected FILE.py:NAME, such as stuck.py:experiment")
    name = path.stem if path.stem not in sys.modules else f"_evengrad_{path.stem}"  # a file of one's own may be called random.py
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{file!r} is not a Python file; expected FILE.py:NAME, such as stuck.py:experiment")
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
