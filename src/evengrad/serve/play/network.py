"""A state -> the experiment that trains it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial

import torch
from torch import nn

from evengrad.lab import data
from evengrad.lab.data.split import Split
from evengrad.lab.models.mlp import MLP
from evengrad.serve.play.state import State
from evengrad.training import Experiment
from evengrad.types import Proposal

STEPS = 1500  # a training ends there
_OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "momentum": partial(torch.optim.SGD, momentum=0.9),
    "rmsprop": torch.optim.RMSprop,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


@cache
def points(name: str) -> Split:
    """Returns the points of this name, five hundred to train on and as many to judge by."""
    return data.load(name)


def experiment_of(state: State, repairs: tuple[Proposal, ...] = (), *, steps: int = STEPS) -> Experiment:
    """Returns the experiment of a state, with these repairs."""
    split = points(state.data)
    x, y = split.x_train[: state.samples], split.y_train[: state.samples]
    net = MLP(
        inputs=2,
        outputs=len(split.classes),
        depth=state.depth,
        width=state.width,
        activation=state.activation,
        initialiser=state.initialiser,
        init_scale=state.scale,
        norm=state.norm,
        residual=state.residual,
    )
    batches = -(-len(x) // min(state.batch, len(x)))
    return Experiment(
        lambda: net.build(state.seed),
        (x, y),
        nn.CrossEntropyLoss(),
        lambda model: _optimizer(model, state),
        validation=(split.x_test, split.y_test),
        epochs=max(1, -(-steps // batches)),
        batch_size=min(state.batch, len(x)),
        repairs=repairs,
    )


def plain(state: State) -> State:
    """Returns the state without its change."""
    return replace(state, fix="")


def _optimizer(model: nn.Module, state: State) -> torch.optim.Optimizer:
    optimizer = _OPTIMIZERS[state.optimizer](model.parameters(), lr=state.rate)
    if state.clip:
        parameters = list(model.parameters())
        optimizer.register_step_pre_hook(lambda *_: void(torch.nn.utils.clip_grad_norm_(parameters, state.clip)))
    return optimizer


def void(_: object) -> None:
    """Drops a value: a hook that returns one changes the step's arguments."""
