"""A program as plain data, an operator that spoils it -> a case with its healthy twin and the truth about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

import evengrad as eg
from evengrad.lab.data import Split
from evengrad.lab.models import Net
from evengrad.trace.capture import tensors_in
from evengrad.training import TrainStep

Loss = Callable[[Any, Any], Tensor]
ModelEdit = Callable[[nn.Module], nn.Module]
DataEdit = Callable[[Split, int], Split]
Schedule = Callable[[torch.optim.Optimizer, int], Any]  # optimizer, number of steps
# Rules are tuned on the first, mended with those seen since, and never with the last before its first run.
HALVES = ("tuning", "reported", "held_out", "fourth", "fifth", "sixth")
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
}


def every_parameter(model: nn.Module) -> Iterable[nn.Parameter]:
    """Returns what an optimizer usually gets."""
    return model.parameters()


@dataclass(frozen=True, kw_only=True)
class Program:
    """A training as someone would write it, in plain data, so that an operator can change one thing of it.

    Attributes:
        name: Its name, unique.
        kind: `mlp`, `deep`, `conv`, `residual`, `recurrent`, `attention`, `tabular`, `regression` or `points`.
        half: `tuning` (rules may be tuned on it), `reported` and `held_out` (seen since), or
            `fourth`, `fifth` and `sixth` (each made by hands that had not read the rules, and the sixth not looked at since).
        net: The network, as the lab declares it.
        data: Returns the data; the test set is what the program is judged on.
        lr: The rate.
        loss: `loss(output, targets) -> scalar`.
        optimizer: A key of `OPTIMIZERS`.
        options: Options of the optimizer beside the rate.
        epochs: Passes over the data.
        batch_size: Samples a batch.
        schedule: `schedule(optimizer, steps) -> scheduler`, stepped after each batch.
        train_step: In place of a standard step.
        model_edits: Applied to the built network, one after the other.
        data_edits: Applied to the data.
        trained: Returns the parameters that the optimizer gets.
        validated: False leaves the validation data out of the experiment.
        metric: In place of accuracy or minus the loss: `metric(split) -> f(model)`.
    """

    name: str
    kind: str
    half: str
    net: Net
    data: Callable[[], Split]
    lr: float
    loss: Loss = field(default_factory=nn.CrossEntropyLoss)
    optimizer: str = "adam"
    options: dict[str, Any] = field(default_factory=dict)
    epochs: int = 10
    batch_size: int = 64
    schedule: Schedule | None = None
    train_step: TrainStep | None = None
    model_edits: tuple[ModelEdit, ...] = ()
    data_edits: tuple[DataEdit, ...] = ()
    trained: Callable[[nn.Module], Iterable[nn.Parameter]] = every_parameter
    validated: bool = True
    metric: Callable[[Split], Callable[[nn.Module], float]] | None = None

    def split(self) -> Split:
        """Returns the data with its edits."""
        found = self.data()
        for edit in self.data_edits:
            found = edit(found, 0)
        return found

    def steps(self) -> int:
        """Returns how many steps it takes."""
        return self.epochs * -(-len(self.split().x_train) // self.batch_size)

    def experiment(self) -> eg.Experiment:
        """Returns what `diagnose` takes; weights are drawn from torch's seed, which building the experiment sets."""
        split, schedule, steps = self.split(), self.schedule, self.steps()
        return eg.Experiment(
            self.model,
            split.train,
            self.loss,
            lambda model: OPTIMIZERS[self.optimizer](self.trained(model), lr=self.lr, **self.options),
            validation=split.test if self.validated else None,
            scheduler=None if schedule is None else lambda optimizer: schedule(optimizer, steps),
            metric="auto" if self.metric is None else self.metric(split),
            epochs=self.epochs,
            batch_size=self.batch_size,
            train_step=self.train_step,
        )

    def model(self) -> nn.Module:
        """Builds the network with its edits, from torch's seed."""
        model: nn.Module = self.net.build(int(torch.randint(2**31, (1,))))
        for edit in self.model_edits:
            model = edit(model)
        return model

    def having(self, **fields: Any) -> Program:
        """Returns the program with these fields changed."""
        return replace(self, **fields)

    def with_net(self, **fields: Any) -> Program:
        """Returns the program with these fields of its network changed."""
        return replace(self, net=replace(self.net, **fields))

    def with_options(self, **options: Any) -> Program:
        """Returns the program with these options of its optimizer changed."""
        return replace(self, options=self.options | options)

    def edited(self, *edits: ModelEdit) -> Program:
        """Returns the program with more edits of its network."""
        return replace(self, model_edits=(*self.model_edits, *edits))

    def with_data(self, *edits: DataEdit) -> Program:
        """Returns the program with more edits of its data."""
        return replace(self, data_edits=(*self.data_edits, *edits))


@dataclass(frozen=True, kw_only=True)
class Operator:
    """One mistake that people make, as a change of a program.

    Attributes:
        name: What is done, unique.
        cause: The cause it plants, a word of the vocabulary.
        half: The half whose programs it is applied to.
        symptoms: Symptoms that are right answers, words of the vocabulary.
        places: Where it is: `inputs`, `targets`, `loss`, `optimizer`, `loop`, `validation`, `layers` (any of them), or names of modules.
        on: Names of the programs that it is applied to.
        mutate: Plants it.
        fits: Whether it can be planted in a program.
        also: Causes that are right answers too, since they name the same mistake.
    """

    name: str
    cause: str
    half: str
    symptoms: tuple[str, ...]
    places: tuple[str, ...]
    on: tuple[str, ...]
    mutate: Callable[[Program], Program]
    fits: Callable[[Program], bool] = lambda program: True
    also: tuple[str, ...] = ()


def by_name(*families: Any) -> dict[str, Operator]:
    """Returns the operators of modules that each hold a tuple `OPERATORS`, by name."""
    return {operator.name: operator for family in families for operator in family.OPERATORS}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A faulty program, its healthy twin, and the truth.

    Attributes:
        name: `cause/operator/program`.
        operator: What was done.
        program: The faulty program.
        twin: The program that it was made of.
    """

    name: str
    operator: Operator
    program: Program
    twin: Program

    @property
    def half(self) -> str:
        """The half that it belongs to."""
        return self.twin.half

    @property
    def cause(self) -> str:
        """The cause that was planted."""
        return self.operator.cause

    @property
    def file(self) -> str:
        """The stem of its files in the cache."""
        return self.name.replace("/", "--")


@torch.no_grad()
def score(model: nn.Module, split: Split, metric: Callable[[Split], Callable[[nn.Module], float]] | None = None) -> float:
    """Returns accuracy, or for numbers the share of variance explained, on the test set in eval mode; 0 where it is not finite.

    The same for a program and its twin, whatever their losses are.
    """
    modes = [(module, module.training) for module in model.modules()]
    state = torch.get_rng_state()
    model.eval()
    try:
        if metric is not None:
            return metric(split)(model)
        out = next(tensors_in(model(split.x_test)))
    finally:
        torch.set_rng_state(state)
        for module, training in modes:
            module.training = training
    if not bool(out.isfinite().all()):
        return 0.0
    if split.classes:
        answers = out.argmax(1) if out.dim() > 1 and out.shape[1] > 1 else (out > 0).long().reshape(-1)
        return float((answers == split.y_test).float().mean())
    left = (out.reshape(-1).double() - split.y_test.reshape(-1).double()).square().mean()
    value = 1.0 - float(left / split.y_test.double().var(correction=0))
    return max(value, -1.0)


def chance(split: Split) -> float:
    """Returns the score of the best constant answer."""
    return float(split.y_test.bincount().max()) / len(split.y_test) if split.classes else 0.0
