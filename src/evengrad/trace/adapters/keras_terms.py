"""A proposal in torch's words -> the same proposal in Keras's, for a trace of a Keras model."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from evengrad.types import Layer, Proposal, Trace

_CLASSES = {"linear": "Dense", "conv": "Conv2D", "conv_transpose": "Conv2DTranspose"}
_WORDS = (  # what stands in torch's code -> what one writes in Keras; in this order
    (r"^\+eg\.initialize_\(model.*?\)  # (\w+)$", r'+kernel_initializer="\1"  # in each of these layers'),
    (r"nn\.(BatchNorm|GroupNorm|LayerNorm|RMSNorm)(?:\dd)?\([^()]*\)", r"\1alization()"),
    (r"nn\.(Alpha)?Dropout(?:\dd)?\(", r"\1Dropout("),
    (r"nn\.Linear\(\d+, (\d+)(, bias=False)?\)", r"Dense(\1\2)"),
    (r"nn\.LeakyReLU\(([\d.]*)\)", r"LeakyReLU(\1)"),
    (r"nn\.(Sigmoid|Tanh|ReLU|ELU|SELU|GELU|SiLU|Softmax|Softplus|Softsign|LogSoftmax)\([^()]*\)", lambda m: _layer(m[1])),
    (r"torch\.optim\.(\w+)\(model\.parameters\(\), ", r"keras.optimizers.\1("),
    (r"\blr=", "learning_rate="),
    (r"\bbias=False", "use_bias=False"),
    (r"^\+model\.requires_grad_\(True\)$", "+model.trainable = True"),
)


def in_keras_terms(proposal: Proposal, trace: Trace) -> Proposal:
    """Returns the proposal with its code in Keras's words if the trace is one of a Keras model, else as it is.

    What has no word of its own in Keras stays in torch's: a Keras model on the torch backend is a torch module.
    """
    if not any(x.weight.endswith(".kernel") for x in trace.layers):
        return proposal
    written = _WRITTEN.get(proposal.remedy)
    code = written(proposal, trace) if written else None
    return replace(proposal, code=_translated(proposal.code) if code is None else code)


def _translated(code: str) -> str:
    lines = code.splitlines()
    for pattern, word in _WORDS:
        lines = [re.sub(pattern, word, line) for line in lines]
    return "\n".join(lines)


def _layer(name: str) -> str:
    return f'Activation("{_named(name.lower())}")'


def _named(activation: str) -> str:
    return {"logsoftmax": "log_softmax"}.get(activation, activation)


def _rows(proposal: Proposal, trace: Trace) -> list[Layer]:
    return [x for x in trace.layers if x.name in proposal.where]


def _swapped(proposal: Proposal, trace: Trace) -> str:
    """The activation and the initialiser of the layers that change, as one argument of each."""
    old, new, rows = proposal.options["old"], proposal.options["new"], _rows(proposal, trace)
    scheme = _schemes(proposal).get(rows[0].weight) if rows else None
    initialiser = f", kernel_initializer={scheme}" if scheme else ""
    lines = []
    for kind in dict.fromkeys(_CLASSES.get(x.kind, "Dense") for x in rows):
        inside = any(x.activation_module == x.name for x in rows if _CLASSES.get(x.kind, "Dense") == kind)
        if inside:
            lines += [f'-{kind}(…, activation="{old}")', f'+{kind}(…, activation="{new}"{initialiser})']
        else:
            lines += [f'-Activation("{old}")', f'+Activation("{new}")', f"+{kind}(…{initialiser})"]
    return "\n".join(lines)


def _initialised(proposal: Proposal, trace: Trace) -> str:
    layers = {x.weight: x for x in trace.layers}
    found: dict[tuple[str, str], list[str]] = {}
    for weight, scheme in _schemes(proposal).items():
        row = layers[weight]
        activation = f'activation="{row.activation}", ' if row.activation_module == row.name and row.activation not in _NONE else ""
        key = f"+{_CLASSES.get(row.kind, 'Dense')}(…, {activation}kernel_initializer={scheme})", row.kind
        found.setdefault(key, []).append(row.name)
    return "\n".join(f"{line}  # {_listed(names)}" for (line, _), names in found.items())


_NONE = {"none", "unknown"}


def _schemes(proposal: Proposal) -> dict[str, str]:
    """Weight -> its initialiser as Keras writes it; a gain is part of the scale."""
    return {p["weight"]: _initialiser(p) for p in proposal.options.get("plans", ()) if p.get("fans")}


def _initialiser(plan: dict[str, Any]) -> str:
    scheme, gain = plan["scheme"], float(plan.get("gain", 1.0))
    if scheme in {"orthogonal", "delta_orthogonal"}:
        return '"orthogonal"' if gain == 1 else f"Orthogonal(gain={gain:.4g})"
    if scheme.startswith("he_") and gain != 1:
        return f'VarianceScaling(scale={2 * gain**2:.4g}, mode="fan_in", distribution="untruncated_normal")'
    return f'"{scheme}"'


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _clipped(argument: str) -> Callable[[Proposal, Trace], str]:
    def code(proposal: Proposal, trace: Trace) -> str:
        name = (trace.facts.optimizer or {}).get("name", "SGD")
        threshold = next(iter(proposal.options.values()))
        return f"-keras.optimizers.{name}(…)\n+keras.optimizers.{name}(…, {argument}={threshold:g})"

    return code


def _standardised(proposal: Proposal, trace: Trace) -> str:
    return "+normalization = keras.layers.Normalization()\n+normalization.adapt(x_train)\n+normalization,  # the model's first layer"


def _stopped(proposal: Proposal, trace: Trace) -> str:
    patience = proposal.options.get("patience", 5)
    return f"+early = keras.callbacks.EarlyStopping(patience={patience}, restore_best_weights=True)\n+model.fit(…, callbacks=[early])"


def _cosine(proposal: Proposal, trace: Trace) -> str:
    rate = (trace.facts.optimizer or {}).get("lr", 0.01)
    return f"-learning_rate={rate:g}\n+learning_rate=keras.optimizers.schedules.CosineDecay({rate:g}, {proposal.options['steps']})"


_WRITTEN: dict[str, Callable[[Proposal, Trace], str]] = {
    "swap_activation": _swapped,
    "initialize": _initialised,
    "clip_norm": _clipped("global_clipnorm"),
    "clip_value": _clipped("clipvalue"),
    "standardize_input": _standardised,
    "early_stopping": _stopped,
    "cosine_rate": _cosine,
}
