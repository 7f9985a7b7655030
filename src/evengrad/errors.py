"""What the user did -> an error that says what was expected, what came and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EvengradError(Exception):
    """Base of every error that evengrad raises on purpose; the command line exits with code 2."""


class InputError(EvengradError, ValueError):
    """An argument, file, model, batch or loss does not fit what the call needs."""


class UnknownNameError(EvengradError, LookupError):
    """A code or name that nothing is registered under."""


class ForwardError(EvengradError, RuntimeError):
    """The user's own code raised while evengrad ran it; the original error is the `__cause__`."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """Builds the error for a failed look-up, offering the nearest known name."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UnknownNameError(f"no {kind} is called {name!r}.{hint} Known: {', '.join(names)}")
