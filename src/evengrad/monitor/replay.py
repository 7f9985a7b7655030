"""The last call of a watched model -> facts about it, and the same call once more with instruments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from evengrad.trace import facts as evidence
from evengrad.trace.batch import Batch
from evengrad.trace.capture import tensors_in
from evengrad.trace.scanner import BadOperation, first_bad_operation
from evengrad.trace.structure import Structure
from evengrad.types import Facts


class Call:
    """The last call of a model: its inputs by reference, and what is needed to repeat it.

    Args:
        device: Where the model is.
        loss_fn: The loss, where it is known.

    Attributes:
        args: Positional inputs.
        kwargs: Named inputs.
        generators: State of torch's generators before the call, by device; empty once a call was seen that draws no number.
        autocast: Device type -> dtype, where autocast was on when it was last asked for.
        versions: How often each input tensor had been written to.
        targets: What the loss compared with, where it is known.
    """

    __slots__ = ("_device", "_kinds", "_loss_fn", "_random", "args", "autocast", "generators", "kwargs", "targets", "versions")

    def __init__(self, device: torch.device, loss_fn: Any = None) -> None:
        self._device, self._loss_fn, self._random = device, loss_fn, True
        self._kinds = ("cpu", "cuda") if device.type == "cuda" else ("cpu",)  # whose autocast matters
        self.args: tuple[Any, ...] = ()
        self.kwargs: Mapping[str, Any] = {}
        self.generators: dict[str, Tensor] = {}
        self.autocast: dict[str, torch.dtype] = {}
        self.versions: list[int] = []
        self.targets: Any = None

    def note(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, plain: bool = False) -> None:
        """Notes a call that is about to run in place of the one before; at a plain step autocast is taken to be as it was.

        This runs at every step, where each function of torch that is asked costs microseconds: its code is in no cache.
        """
        self.args, self.kwargs, self.targets = args, kwargs, None
        if self._random:
            self.generators = _generators(self._device)
        if not plain:
            self.autocast = {kind: torch.get_autocast_dtype(kind) for kind in self._kinds if torch.is_autocast_enabled(kind)}
        try:
            self.versions = [v for x in args for v in ((x._version,) if type(x) is Tensor else _versions(x))]
        except RuntimeError:  # a tensor made under inference_mode has no version
            self.versions = _versions(args)
        if kwargs:
            self.versions += _versions(kwargs)

    def see_numbers(self) -> None:
        """Once the call has returned: if it drew no random number, the generators need not be asked again."""
        now = _generators(self._device)
        self._random = any(not torch.equal(state, now[name]) for name, state in self.generators.items())
        if not self._random:
            self.generators = {}

    def facts(self, core: nn.Module, structure: Structure, output: object, optimizers: Sequence[torch.optim.Optimizer]) -> Facts:
        """Returns the direct evidence that a call gives."""
        batch = Batch(self.kwargs if self.kwargs and not self.args else self.args)
        with torch.no_grad(), torch._C.DisableTorchFunction():
            return Facts(
                inputs=evidence.input_facts(batch, core, structure),
                head=evidence.head_facts(structure, output),
                optimizer=evidence.optimizer_facts(optimizers[0], core) if len(optimizers) == 1 else None,
                mode="train",
                edges=structure.edges,
            )

    def first_bad_operation(self, core: nn.Module) -> BadOperation | None:
        """Runs the call again, as it was, and returns the first operation that made a value that is not finite."""
        if _versions(self.args) + _versions(self.kwargs) != self.versions:
            return None  # the inputs have been overwritten
        with _autocast(self.autocast):
            return first_bad_operation(
                core, self.args, dict(self.kwargs), loss_fn=self._loss_fn, targets=self.targets, rng_state=self.generators
            )


def _generators(device: torch.device) -> dict[str, Tensor]:
    states = {"cpu": torch.default_generator.get_state()}
    if device.type == "cuda":
        states[str(device)] = torch.cuda.get_rng_state(device)
    return states


def _versions(inputs: object) -> list[int]:
    return [-1 if t.is_inference() else t._version for t in tensors_in(inputs)]


def _autocast(kinds: Mapping[str, torch.dtype]) -> ExitStack:
    stack = ExitStack()
    for kind, dtype in kinds.items():
        stack.enter_context(torch.autocast(kind, dtype=dtype))
    return stack
