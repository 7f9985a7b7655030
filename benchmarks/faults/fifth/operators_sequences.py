"""Recurrent networks and attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.faults.base import Program
from benchmarks.faults.fifth.planting import planted
from benchmarks.faults.fifth.sequences import Cards, Cells, Patches
from benchmarks.faults.fourth.networks import is_of, with_options
from benchmarks.faults.fourth.planting import UNSTABLE

FORGETS = (
    *("vanishing_gradient", "loss_stuck", "plateau", "slow_convergence", "exploding_gradient", "constant_output"),
    *("generalization_failure", "overfitting"),
)
SHARP = (*UNSTABLE, "overfitting", "generalization_failure")


def _options(**options: Any) -> Callable[[Program], Program]:
    return lambda program: with_options(program, **options)


_LAYERS = ("layers",)
OPERATORS = (
    planted("state-detached-each-step", "long_memory", _options(cut=1), ("flag", "thermostat"), FORGETS, ("layers", "loop"),
            fits=is_of(Cells), also=("frozen_params",)),
    planted("a-tenth-of-the-state-kept", "long_memory", _options(keep=0.1), ("flag",), FORGETS, _LAYERS,
            fits=is_of(Cells)),
    planted("e-to-the-ten", "attention_logits", _options(logarithm=10.0), ("flashcards",), SHARP, _LAYERS, fits=is_of(Cards)),
    planted("factor-given-for-its-logarithm", "attention_logits", _options(logarithm=24.0), ("flashcards",), SHARP, _LAYERS,
            fits=is_of(Cards)),
    planted("slopes-in-whole-numbers", "attention_logits", _options(slope=60.0), ("cards-heads",), SHARP, _LAYERS,
            fits=is_of(Patches)),
    planted("embeddings-times-the-width", "attention_logits", _options(factor=24.0), ("cards-heads",), SHARP, _LAYERS,
            fits=is_of(Patches), also=("bad_init_large",)),
)  # fmt: skip
