"""An experiment and numbers -> the experiment with these numbers, and the change as code."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from evengrad.errors import InputError
from evengrad.lab.search.space import Axis, Choice, Range, checked, label
from evengrad.lab.search.tuning import numbers_of, of_kind, tuned, written
from evengrad.remedies import schemes
from evengrad.rig import Rig
from evengrad.trace.batch import Batch, call
from evengrad.trace.capture import Capture
from evengrad.trace.isolation import untouched
from evengrad.trace.structure import read_structure
from evengrad.training import Experiment, build, first_batch
from evengrad.types import Layer, Proposal

AS_BUILT = "as built"
_SCHEMES = (AS_BUILT, "auto", "orthogonal", "he_normal", "glorot_normal", "lecun_normal")
_CLIPS = {"clip_norm": ("max_norm", "clip_grad_norm_"), "clip_value": ("clip_value", "clip_grad_value_")}
_SHOWN = 4  # samples that show a network's structure

Numbers = Mapping[str, Any]


class Arms:
    """What numbers can change about an experiment: its optimizer's, its initialisation, clipping, batch size, its model's arguments.

    Args:
        experiment: The original, which stays as it is.
        seed: Seed that it is built with to look at it.

    Attributes:
        experiment: The original.
        rig: The original, built.
        own: Its own numbers.
    """

    def __init__(self, experiment: Experiment, seed: int = 0) -> None:
        self.experiment = experiment
        self.rig: Rig = build(experiment, seed)
        self._structures: dict[tuple[Any, ...], tuple[Layer, ...]] = {}
        self._arguments = _arguments(experiment)
        clips = {p.remedy: p.options[_CLIPS[p.remedy][0]] for p in experiment.repairs if p.remedy in _CLIPS}
        fixed = {
            "optimizer": type(self.optimizer).__name__,
            "initialiser": AS_BUILT,
            "init_scale": 1.0,
            "batch_size": experiment.batch_size,
        }
        self._reserved = numbers_of(self.optimizer) | fixed | dict.fromkeys(_CLIPS) | clips
        self.own: dict[str, Any] = self._arguments | self._reserved

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The original's optimizer."""
        assert self.rig.optimizer is not None  # build gave one
        return self.rig.optimizer

    @cached_property
    def batch(self) -> Batch:
        """The first batch."""
        with torch.random.fork_rng():
            torch.manual_seed(self.rig.seed)
            return first_batch(self.rig)

    def space(self, written: Mapping[str, Any] | None) -> dict[str, Axis]:
        """Reads a space, or returns the usual one around the experiment's own numbers.

        Raises:
            UnknownNameError: for a name that this experiment does not have.
            InputError: for what cannot be searched.
        """
        if written is None:
            return self._usual()
        kinds = written.get("optimizer", ()) if isinstance(written, Mapping) else ()
        others = [name for kind in kinds for name in numbers_of(of_kind(self.optimizer, kind))]
        found = checked(written, list(dict.fromkeys([*self.own, *others])))
        if "initialiser" in found:
            known = (*_SCHEMES, *schemes.SCHEMES)
            for value in found["initialiser"].ends():
                if value not in known:
                    raise InputError(f"the space's 'initialiser' is a list of some of {', '.join(dict.fromkeys(known))}; got {value!r}")
        return found

    def _usual(self) -> dict[str, Axis]:
        own, rate = self.own, float(self.own["lr"])
        found: dict[str, Axis] = {}
        if rate > 0:
            found["lr"] = Range(float(f"{rate / 30:.2g}"), float(f"{rate * 30:.2g}"), True)
        if "beta1" in own:
            found |= {"beta1": Range(0.5, 0.98), "beta2": Range(0.9, 0.9999)}
        elif "momentum" in own:
            found["momentum"] = Range(0.0, 0.98)
        if "weight_decay" in own:
            found["weight_decay"] = Range(0, 0.1, True)
        if not self.experiment.repairs and schemes.plans(layers_of(self.rig.model, self.batch)):
            found |= {"initialiser": Choice(_SCHEMES), "init_scale": Range(0.3, 3.0, True)}
        return found | {"clip_norm": Choice((None, 0.1, 0.3, 1.0, 3.0, 10.0))}

    def apply(self, numbers: Numbers) -> Experiment:
        """Returns the experiment with these numbers, complete in itself."""
        arguments = {k: v for k, v in numbers.items() if self._is_argument(k)}
        given = {k: v for k, v in numbers.items() if k not in arguments}
        clips = [_clip(name, given[name]) for name in _CLIPS if given.get(name) is not None]
        return replace(
            self.experiment,
            model=lambda: self._model(arguments, given.get("initialiser", AS_BUILT), given.get("init_scale", 1.0)),
            optimizer=lambda model: tuned(self.experiment.optimizer(model), given),
            batch_size=given.get("batch_size", self.experiment.batch_size),
            repairs=(*(p for p in self.experiment.repairs if p.remedy not in given), *clips),
        )

    def _model(self, arguments: Numbers, scheme: str, scale: float) -> nn.Module:
        """Does what `patch` says, in the user's own `model`."""
        model = self.experiment.model(**arguments)
        if scheme != AS_BUILT and isinstance(model, nn.Module):
            plans = schemes.plans(self._layers(arguments, model), scheme)
            schemes.run_plan(model, plans, torch.Generator().manual_seed(int(torch.randint(2**31, ()))))  # as initialize_ does
        if scale != 1.0:
            with torch.no_grad():
                for weight in model.parameters():
                    if weight.dim() > 1:
                        weight.mul_(scale)
        return model

    def _layers(self, arguments: Numbers, model: nn.Module) -> tuple[Layer, ...]:
        """The model's rows, looked at once for each set of arguments."""
        key = tuple((name, label(value)) for name, value in sorted(arguments.items()))
        if key not in self._structures:
            self._structures[key] = layers_of(model, self.batch)
        return self._structures[key]

    def patch(self, numbers: Numbers) -> str:
        """Returns what to change in one's own code; lines that start with `-` go, with `+` come. Empty if nothing changes."""
        changed = {k: v for k, v in numbers.items() if k not in self.own or label(self.own[k]) != label(v)}
        lines = []
        if arguments := [name for name in changed if self._is_argument(name)]:
            lines += [
                f"{sign}model({', '.join(f'{k}={_code(of[k])}' for k in arguments)})" for sign, of in (("-", self.own), ("+", changed))
            ]
        if scheme := changed.get("initialiser"):
            lines.append("+eg.initialize_(model)" if scheme == "auto" else f'+eg.initialize_(model, "{scheme}")')
        if scale := changed.get("init_scale"):
            lines += ["+with torch.no_grad():", "+    for weight in model.parameters():", "+        if weight.dim() > 1:"]
            lines.append(f"+            weight.mul_({scale:g})")
        after = build(self.apply(numbers), self.rig.seed).optimizer
        if after is not None and (code := written(after)) != (old := written(self.optimizer)):
            lines += [f"-{old}", f"+{code}"]
        if "batch_size" in changed:
            lines += [f"-batch_size={self.own['batch_size']}", f"+batch_size={changed['batch_size']}"]
        for name in _CLIPS:
            if name in changed:
                lines.append(f"-{name} {self.own[name]:g}" if changed[name] is None else _clip(name, changed[name]).code)
        return "\n".join(lines)

    def _is_argument(self, name: str) -> bool:
        return name in self._arguments and name not in self._reserved


def layers_of(model: nn.Module, batch: Batch) -> tuple[Layer, ...]:
    """Returns the rows of a model, from one call that changes nothing."""
    inputs = batch.to(next(model.parameters()).device).inputs
    inputs = inputs[:_SHOWN] if isinstance(inputs, Tensor) else inputs
    with untouched(model, seed=0), torch.no_grad(), (capture := Capture(model)):
        capture.inputs(inputs)
        return read_structure(capture, call(model, inputs)).layers


def _arguments(experiment: Experiment) -> dict[str, Any]:
    """Names of the arguments that the model function can be called with, and their defaults."""
    try:
        parameters = inspect.signature(experiment.model).parameters.values()
    except (TypeError, ValueError):  # a callable that does not tell
        return {}
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def _clip(name: str, threshold: float) -> Proposal:
    option, function = _CLIPS[name]
    code = f" loss.backward()\n+torch.nn.utils.{function}(model.parameters(), {threshold:g})\n optimizer.step()"
    return Proposal(remedy=name, options={option: threshold}, summary=f"{name} {threshold:g}", code=code, needs=("optimizer",))


def _code(value: Any) -> str:
    shown = label(value)
    return f"{value:g}" if isinstance(value, float) else repr(value) if shown is value else str(shown)
