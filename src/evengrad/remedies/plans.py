"""Rows of a trace -> how to fill each weight, as plain data, and the filling of a model by it.

Fans come from the traced operation, not from the shape, so that kernels laid out [in, out] and grouped convolutions are right.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from evengrad.errors import InputError
from evengrad.remedies.fills import fill_
from evengrad.remedies.gains import gain
from evengrad.signals.scale import matching_scheme
from evengrad.trace.adapters import laid_out
from evengrad.types import Layer

Plan = dict[str, Any]
"""weight, bias (names), kind (of the row), packed (queries, keys and values in one), scheme, fans [in, out], gain, options (of the scheme).

Recurrent rows have weight (of the level), kind, scheme, and states, the scheme of what the states are multiplied by.
"""

_GATES = {"rnn": 1, "gru": 3, "lstm": 4}
_PART = re.compile(r"(?P<owner>.*\.|)(?P<what>weight_ih|weight_hh|weight_hr|bias_ih|bias_hh)(?P<level>_l\d+|)(?:_reverse|)")
_APART = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
_PACKED = {"in_proj", "c_attn", "qkv", "Wqkv", "qkv_proj", "query_key_value"}  # queries, keys and values in one weight
_LIKE: dict[str, tuple[str, dict[str, Any]]] = {  # activations that torch has under another name, or with a parameter
    "gelu_tanh": ("gelu", {"approximate": "tanh"}),
    "prelu": ("leaky_relu", {"negative_slope": 0.25}),  # He et al. 2015: where it starts
}


def plans(layers: Iterable[Layer], scheme: str = "auto", **options: Any) -> list[Plan]:
    """Returns how to fill every weight that a scheme is meant for, each weight once.

    A weight that an embedding shares with the output is drawn as the embedding's: LeCun's over its dimensions, so that looked-up rows
    have unit norm and logits unit variance.
    """
    rows = list(layers)
    embeddings = {x.weight for x in rows if x.kind == "embedding"}
    found: dict[str, Plan] = {}
    for row in rows:
        plan = _recurrent(row, scheme) if row.kind in _GATES else plan_of(row, scheme)
        if plan is None:
            continue
        if row.weight in embeddings and scheme == "auto":
            plan |= {"scheme": "lecun_normal", "gain": 1.0}
        found.setdefault(row.weight, plan | ({"options": options} if options else {}))
    return list(found.values())


def plan_of(layer: Layer, scheme: str = "auto", activation: str | None = None, options: dict[str, float] | None = None) -> Plan | None:
    """Returns how to fill one row's weight, or None where no single scheme is meant for it (RNN levels, norms, embeddings).

    Args:
        layer: The row.
        scheme: `auto` for the initialiser that matches the activation behind the row, else one of `SCHEMES`.
        activation: The activation that will follow, if it is about to change.
        options: Options of that activation.
    """
    if layer.kind not in {"linear", "conv", "conv_transpose", "attention"} or not layer.fan_in:
        return None
    follows = activation or layer.activation
    settings = (options if activation else layer.activation_options) or {}
    name = matching_scheme(follows) if scheme == "auto" else scheme
    if name == "delta_orthogonal" and layer.kind != "conv":
        name = "orthogonal"  # it has no kernel to centre in
    factor = (1.0 + settings.get("negative_slope", 0.0) ** 2) ** -0.5 if name.startswith("he_") else 1.0
    if name in {"orthogonal", "delta_orthogonal"} and matching_scheme(follows) == "he_normal":
        like, more = _LIKE.get(follows, (follows, {}))
        factor = gain(like, **{**settings, **more})  # what the activation cuts; tanh, SELU and none need no factor, however deep
    packed = layer.name.rpartition(".")[2] in _PACKED and layer.fan_out == 3 * layer.fan_in
    fan_out = layer.fan_in if packed else layer.fan_out
    where = {"weight": layer.weight, "bias": layer.bias, "kind": layer.kind, "packed": packed}
    return where | {"scheme": name, "fans": [layer.fan_in, fan_out], "gain": factor}


def run_plan(model: nn.Module, plans: Iterable[Plan], generator: torch.Generator) -> None:
    """Fills the weights that the plans name, and sets their biases to zero (an LSTM's forget gates to one).

    Raises:
        InputError: if the model lacks one of them.
    """
    for fill in fills(model, plans):
        fill.run(generator)


@dataclass(frozen=True, kw_only=True)
class Fill:
    """A parameter and how to fill it; without a scheme it becomes zero, but for its part number `one`, if there is one."""

    parameter: Tensor
    scheme: str | None = None
    fans: tuple[int, int] = (0, 0)
    gain: float = 1.0
    blocks: int = 1
    one: int | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def run(self, generator: torch.Generator) -> None:
        """Fills it in place."""
        if self.scheme is None:
            nn.init.zeros_(self.parameter)
            if self.one is not None:
                nn.init.ones_(self.parameter.detach().chunk(self.blocks)[self.one])
            return
        fill_(
            self.parameter,
            self.scheme,
            fans=self.fans,
            gain=self.gain,
            blocks=self.blocks,
            generator=generator,
            **self.options,
        )


def fills(model: nn.Module, plans: Iterable[Plan]) -> Iterator[Fill]:
    """Yields every parameter that the plans fill.

    Raises:
        InputError: if the model lacks one of them.
    """
    parameters = {name: laid_out(model, name, p) for name, p in model.named_parameters(remove_duplicate=False)}
    for plan in plans:
        if plan["weight"] not in parameters:
            raise InputError(f"the model has no parameter {plan['weight']!r}: this change was proposed for another model")
        yield from _gates(plan, parameters) if plan["kind"] in _GATES else _weights(plan, parameters)


def kept(parameters: Iterable[Tensor]) -> Callable[[], None]:
    """Returns a function that puts the values back which these parameters have now."""
    values = [(p, p.detach().clone()) for p in parameters]

    def restore() -> None:
        with torch.no_grad():
            for parameter, value in values:
                parameter.copy_(value)

    return restore


def _weights(plan: Plan, parameters: Mapping[str, Tensor]) -> Iterator[Fill]:
    owner, _, leaf = plan["weight"].rpartition(".")
    apart = leaf in _APART  # queries, keys and values of different widths: three weights
    for name in [f"{owner}.{x}" if owner else x for x in _APART] if apart else [plan["weight"]]:
        weight = parameters[name]
        if plan["packed"] and weight.shape[0] == plan["fans"][0]:
            weight = weight.mT  # a kernel laid out [in, out]
        fans = (weight.shape[1], weight.shape[0]) if apart else (plan["fans"][0], plan["fans"][1])
        blocks, scheme = _blocks(plan, weight), plan["scheme"]
        if scheme == "delta_orthogonal" and weight.shape[0] // blocks < weight.shape[1]:
            scheme = "orthogonal"  # fewer channels go out than come in: no kernel with one tap keeps them
        yield Fill(parameter=weight, scheme=scheme, fans=fans, gain=plan["gain"], blocks=blocks, options=plan.get("options", {}))
    if plan["bias"] in parameters:
        yield Fill(parameter=parameters[plan["bias"]])


def _blocks(plan: Plan, weight: Tensor) -> int:
    """Groups of a convolution, or queries, keys and values."""
    if plan["kind"] == "conv":
        return max(1, weight.shape[0] * weight[0, 0].numel() // int(plan["fans"][1]))
    return 3 if weight.shape[0] == 3 * plan["fans"][1] and plan["packed"] else 1


def _recurrent(layer: Layer, scheme: str) -> Plan | None:
    if not _PART.fullmatch(layer.weight):
        return None
    inputs, states = ("glorot_normal", "orthogonal") if scheme == "auto" else (scheme, scheme)  # Saxe et al. 2014
    return {"weight": layer.weight, "kind": layer.kind, "scheme": inputs, "states": states}


def _gates(plan: Plan, parameters: Mapping[str, Tensor]) -> Iterator[Fill]:
    """Each gate's block by its own fans; both directions of a level."""
    found = _PART.fullmatch(plan["weight"])
    for name, parameter in parameters.items() if found else ():
        part = _PART.fullmatch(name)
        if part is None or found is None or part["owner"] != found["owner"] or part["level"] != found["level"]:
            continue
        blocks = 1 if part["what"] == "weight_hr" else _GATES[plan["kind"]]
        if part["what"].startswith("bias"):
            forget = 1 if plan["kind"] == "lstm" and part["what"] == "bias_ih" else None  # Gers et al. 2000; Jozefowicz et al. 2015
            yield Fill(parameter=parameter, blocks=blocks, one=forget)
            continue
        scheme = plan["states"] if part["what"] == "weight_hh" else plan["scheme"]
        fans = (parameter.shape[1], parameter.shape[0] // blocks)
        yield Fill(parameter=parameter, scheme=scheme, fans=fans, blocks=blocks, options=plan.get("options", {}))
