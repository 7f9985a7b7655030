"""The last call of a watched model -> facts about it, and the same call once more with instruments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from evengrad.trace import facts as evidence
from evengrad.trace.batch import Batch
from evengrad.trace.capture import tensors_in
from evengrad.trace.scanner import BadOperation, first_bad_operation
from evengrad.trace.structure import Structure
from evengrad.types import Facts

_autocasts = torch.is_autocast_enabled


@dataclass(slots=True)
class Call:
    """One call: its inputs by reference, and what is needed to repeat it.

    Attributes:
        args: Positional inputs.
        kwargs: Named inputs.
        generators: State of torch's generators before the call, by device.
        autocast: Device type -> dtype, where autocast was on.
        versions: How often each input tensor had been written to.
        loss_fn: The loss, where it is known.
        targets: What the loss compared with, where it is known.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    generators: dict[str, Tensor]
    autocast: dict[str, torch.dtype]
    versions: list[int]
    loss_fn: Any = None
    targets: Any = None

    @staticmethod
    def of(
        device: torch.device, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, kinds: Sequence[str], loss_fn: Any, random: bool
    ) -> Call:
        """Notes a call that is about to run, at every step; `kinds` are those of the device, `random` tells whether it draws numbers."""
        autocast, versions = {}, []
        for kind in kinds:
            if _autocasts(kind):
                autocast[kind] = torch.get_autocast_dtype(kind)
        for value in args:
            versions += [value._version] if type(value) is Tensor and not value.is_inference() else _versions(value)
        if kwargs:
            versions += _versions(kwargs)
        return Call(args, kwargs, _generators(device) if random else {}, autocast, versions, loss_fn)

    def drew_numbers(self) -> bool:
        """True if a generator has moved since the call was noted."""
        now = _generators(torch.device(list(self.generators)[-1]))
        return any(not torch.equal(state, now[name]) for name, state in self.generators.items())

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
                core, self.args, dict(self.kwargs), loss_fn=self.loss_fn, targets=self.targets, rng_state=self.generators
            )


def kinds_of(device: torch.device) -> tuple[str, ...]:
    """Returns the types of devices whose autocast matters to a model on this one."""
    return ("cpu", "cuda") if device.type == "cuda" else ("cpu",)


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
