"""`FILE.py:name` -> the Experiment that the user's file holds under that name."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from evengrad.errors import InputError, unknown
from evengrad.loading import load_module

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
    held = vars(load_module(file, "FILE.py:NAME, such as stuck.py:experiment"))
    if name not in held:
        experiments = [n for n, value in held.items() if isinstance(value, Experiment)]
        raise unknown(f"attribute of {file}", name, experiments or [n for n in held if not n.startswith("_")])
    found = held[name]
    if not isinstance(found, Experiment):
        got = f"the class {found.__name__!r}" if isinstance(found, type) else f"a {type(found).__name__}"
        raise InputError(f"{file}:{name} is {got}; expected an evengrad.Experiment(model, data, loss_fn, optimizer)")
    return found if device is None else replace(found, device=device)
