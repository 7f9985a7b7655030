"""Recurrent networks and attention."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.faults.base import Program
from benchmarks.faults.fourth import data, data_sequences
from benchmarks.faults.fourth.networks import is_of, with_options
from benchmarks.faults.fourth.planting import UNSTABLE, planted
from benchmarks.faults.fourth.sequences import Finder, Heads, Loop, Reader

FORGETS = (
    *("vanishing_gradient", "loss_stuck", "plateau", "slow_convergence", "exploding_gradient", "constant_output"),
    *("generalization_failure", "overfitting"),
)
SHARP = (*UNSTABLE, "overfitting", "generalization_failure")


def _on(source: Any) -> Callable[[Program], Program]:
    return lambda program: program.having(data=source)


def _scores_times(factor: float) -> Callable[[Program], Program]:
    return lambda program: with_options(program, factor=factor)


def _times_the_root(program: Program) -> Program:
    width = program.net.make.keywords.get("width", 32)  # type: ignore[attr-defined]
    return with_options(program, factor=width**0.5)


@torch.no_grad()
def _filled_norms(model: nn.Module) -> nn.Module:
    """Scales what queries and keys are made of, and so their products by its square."""
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.weight.fill_(20.0)
    return model


OPERATORS = (
    planted("quiet-steps-behind", "long_memory", _on(data_sequences.ledger(10, 150)), ("ledger",), FORGETS, ("layers", "inputs"),
            fits=is_of(Reader)),
    planted("sampled-more-often", "long_memory", _on(data.pulses("steps", 14)), ("pulses-loop",), FORGETS,
            ("layers", "inputs"), fits=is_of(Reader, Loop)),
    planted("blanks-behind-the-words", "long_memory", _on(partial(data_sequences.reviews, 200)), ("negations",), FORGETS,
            ("layers", "inputs"), fits=is_of(Reader)),
    planted("scores-times-the-root", "attention_logits", _times_the_root, ("lookup",), SHARP, ("layers",), fits=is_of(Finder, Heads)),
    planted("scores-times-the-width", "attention_logits", _scores_times(32.0), ("lookup",), SHARP, ("layers",), fits=is_of(Finder)),
    planted("temperature-of-a-hundredth", "attention_logits", _scores_times(100.0), ("lookup",), SHARP, ("layers",),
            fits=is_of(Finder, Heads)),
    planted("norms-filled-with-twenty", "attention_logits", lambda p: p.edited(_filled_norms), ("lookup",), SHARP,
            ("layers", "norms"), fits=is_of(Finder, Heads)),
)  # fmt: skip
