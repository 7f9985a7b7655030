"""One forward and backward pass of the user's own -> columns of what flows through the layers, and the structure."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from evengrad.trace.batch import Batch
from evengrad.trace.capture import Capture, tensors_in
from evengrad.trace.recorder import ACT, GRAD_OUT, OUT, WEIGHT, Recorder, measure
from evengrad.trace.structure import Structure, read_structure
from evengrad.types import Floats

SIGNALS = frozenset(OUT + ACT + GRAD_OUT)
COLUMNS = SIGNALS | frozenset(WEIGHT)  # at the first look: later ones leave weights to the gauge, which looks at fewer of their entries


def compiled(model: nn.Module) -> bool:
    """True if the model or a part of it is compiled: a look from inside would make torch compile it again."""
    return any(hasattr(m, "_orig_mod") or getattr(m, "_compiled_call_impl", None) is not None for m in model.modules())


class Look:
    """Looks on while the user calls the model once and runs backward: a function mode for that one call, gone when it returns.

    Args:
        root: What the user calls; the hook that ends the look is registered on it for this call.
        core: The network inside (without a wrapper such as DDP's), whose names the rows bear.
        samples: Samples in the batch.
        inputs: What it is called with.
        columns: What to measure.
        ended: Called with the model's output when the call returns.
    """

    def __init__(
        self,
        root: nn.Module,
        core: nn.Module,
        samples: int,
        inputs: object,
        *,
        columns: frozenset[str],
        ended: Callable[[Look, Any], None],
    ) -> None:
        self._recorder = Recorder(samples, columns)
        self.capture = Capture(core, self._recorder)
        self._recorder.nodes = self.capture.nodes
        self._ended, self._over = ended, False
        self.failed = False  # the call raised
        self._handle = root.register_forward_hook(self._returned, always_call=True)
        self.capture.__enter__()
        self.capture.inputs(inputs)

    def _returned(self, module: nn.Module, args: object, output: Any) -> None:
        if self._over:
            return
        self._over = True
        try:
            if output is None:  # forward raised, and torch is walking through the hooks, so that ours cannot be removed yet
                self.failed = True
            else:
                self._handle.remove()
                self._ended(self, output)
        finally:
            self._leave()

    def close(self) -> None:
        """Removes what is left of the look; one that takes its optimizer step inside its forward has not returned yet."""
        self._handle.remove()
        if not self._over:
            self._over = True
            self._leave()

    def _leave(self) -> None:
        self.capture.__exit__(None, None, None)
        self.capture.forward = self._recorder.forward = False

    def structure(self, output: object) -> Structure:
        """Reads the structure of the call that has just returned."""
        return read_structure(self.capture, output)

    def columns(self, structure: Structure, scale: float = 1.0) -> dict[str, Floats]:
        """Returns the columns (L,); gradients are divided by `scale`."""
        found = {name: column[0] for name, column in self._recorder.columns(structure, self.capture.parameters, {}).items()}
        for name in GRAD_OUT:
            found[name] = found[name] / scale
        return found


def same(one: Capture, other: tuple[tuple[str, str], ...]) -> bool:
    """True if a call ran the same operations in the same modules as the one whose structure is known."""
    return signature(one) == other


def signature(capture: Capture) -> tuple[tuple[str, str], ...]:
    """What ran where, in order."""
    return tuple((node.op, node.module) for node in capture.nodes)


def probe(core: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Structure, dict[str, Floats], Any]:
    """Measures one pass of its own on the last inputs, uncompiled, for a model that cannot be looked at while it runs.

    The gradient is that of a fixed random projection of the outputs. Returns structure, columns (L,) and output; changes nothing.
    """
    batch = Batch(_inputs(core, args, kwargs))
    found = measure(core, batch, columns=COLUMNS)
    return found.structure, {name: column[0] for name, column in found.columns.items()}, found.output


def _inputs(core: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    if not kwargs:
        return args
    return dict(kwargs) if not args else dict(inspect.signature(core.forward).bind(*args, **kwargs).arguments)


def samples_in(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """Number of samples in a call: the first axis of its first tensor; 0 if there is none."""
    first: Tensor | None = next((t for t in tensors_in((*args, *kwargs.values())) if t.dim()), None)
    return 0 if first is None else int(first.shape[0])
