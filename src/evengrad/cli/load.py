"""`FILE.py:name` -> the Experiment that the user's file holds under that name."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
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

    file, _, name = target.partition(":")
    name = name or "experiment"
    path = Path(file)
    if not path.is_file():
        raise InputError(f"there is no file {file!r}; expected FILE.py:NAME, such as stuck.py:experiment")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{file!r} is not a Python file; expected FILE.py:NAME, such as stuck.py:experiment")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ForwardError(f"{file} raised {type(error).__name__} while it was loaded: {error}") from error
    if not hasattr(module, name):
        raise unknown(f"attribute of {file}", name, [n for n in vars(module) if not n.startswith("_")])
    found = getattr(module, name)
    if not isinstance(found, Experiment):
        raise InputError(f"{file}:{name} is a {type(found).__name__}; expected an evengrad.Experiment(model, data, loss_fn, optimizer)")
    if device is None:
        return found
    checked_device(device)
    return replace(found, device=device)
