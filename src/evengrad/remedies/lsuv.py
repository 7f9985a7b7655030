"""lsuv: orthogonal weights, each scaled on data so that what its layer gives has unit standard deviation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from evengrad.errors import InputError
from evengrad.remedies import base
from evengrad.remedies.base import Remedy, Undo
from evengrad.remedies.fills import fill_
from evengrad.remedies.plans import kept
from evengrad.remedies.rescaling import rescale_
from evengrad.rig import Rig
from evengrad.types import Finding, Proposal, Trace

_KINDS = {"linear", "conv", "conv_transpose", "attention"}


@dataclass(frozen=True, kw_only=True)
class Lsuv(Remedy):
    """Draws orthogonal weights and scales each by what a batch of data makes of it, whatever the activations and the inputs' scale.

    Reference: Mishkin & Matas 2016, All you need is a good init, https://arxiv.org/abs/1511.06422
    """

    name: ClassVar[str] = "lsuv"
    title: ClassVar[str] = "weights scaled layer by layer on a batch of data"
    causes: ClassVar[tuple[str, ...]] = ("bad_init_large", "bad_init_small", "init_activation_mismatch", "too_deep_no_skip")
    change: ClassVar[int] = base.INITIALISER
    diagnostic: ClassVar[bool] = False
    random: ClassVar[bool] = True

    def propose(self, finding: Finding, trace: Trace) -> Iterator[Proposal]:
        rows = [x for x in trace.layers if x.kind in _KINDS and x.depth is not None]
        hidden = [x for x in rows if x.activation not in {"none", "unknown"} and x.norm == "none"]
        if not hidden or (trace.facts.inputs or {}).get("nonfinite_fraction"):
            return
        yield Proposal(
            remedy=self.name,
            options={"weights": list(dict.fromkeys(x.weight for x in rows))},
            where=tuple(x.name for x in rows),
            cause=finding.cause or "init_activation_mismatch",
            summary="lsuv (orthogonal, unit variance behind every layer)",
            code="+inputs, targets = next(iter(batches))\n+eg.lsuv_(model, inputs)",
            risk="what the weights had learned is lost",
        )

    def apply(self, rig: Rig, proposal: Proposal) -> Undo:
        parameters = dict(rig.model.named_parameters(remove_duplicate=False))
        names = proposal.options["weights"]
        if missing := [name for name in names if name not in parameters]:
            raise InputError(f"the model has no parameter {missing[0]!r}: this change was proposed for another model")
        inputs = first_inputs(rig, self.name)
        undo = kept(rig.model.parameters())
        try:
            _scale(rig.model, inputs, [parameters[name] for name in names], rig.seed)
        except BaseException:
            undo()
            raise
        return undo


def lsuv_(model: nn.Module, inputs: Any, *, seed: int | None = None) -> nn.Module:
    """Draws orthogonal weights and scales each so that its layer's output has unit standard deviation on `inputs`, in place.

    One call of the model does it, since a weight is scaled just before its operation runs: functional layers, branches, data-dependent
    control flow and attention are seen like any other. Biases of these layers become zero. A weight that is used twice is scaled where
    it is used first; recurrent layers, norms and embeddings are left as they are. Mode, buffers and gradients stay as they were.

    Args:
        model: Any module.
        inputs: A batch, as `check` takes it; a few dozen samples will do.
        seed: Seed of the drawing; None draws from torch's default generator.

    Raises:
        ForwardError: if the model raises.

    Returns:
        The model.

    Reference: Mishkin & Matas 2016, All you need is a good init, https://arxiv.org/abs/1511.06422
    """
    _scale(model, inputs, list(model.parameters()), int(torch.randint(2**31, ())) if seed is None else seed)
    return model


def first_inputs(rig: Rig, remedy: str) -> Any:
    """Returns the inputs of the first batch.

    Raises:
        InputError: if the rig has no data.
    """
    batch = next(iter(rig.batches(0)), None)
    if batch is None:
        raise InputError(f"{remedy} needs a batch of data to measure on; give an Experiment with data")
    return batch.inputs


def _scale(model: nn.Module, inputs: Any, weights: list[nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)

    def draw(weight: Tensor, blocks: int) -> None:
        fill_(weight, "orthogonal", fans=(1, 1), blocks=blocks, generator=generator)

    rescale_(model, inputs, weights, draw=draw)
