"""a word of the vocabulary, a proposal -> the phrase that a sentence can carry."""

from __future__ import annotations

import re
from collections import Counter

from evengrad.types import Proposal, Trace

SYMPTOMS = {
    "nan_or_inf": "its numbers stop being finite",
    "exploding_gradient": "its gradient explodes on its way down",
    "vanishing_gradient": "its gradient vanishes on its way down",
    "zero_gradient": "some layers receive no gradient at all",
    "signal_collapse": "its signal collapses: deep layers see the same thing for every input",
    "dead_relu": "many of its units are dead",
    "saturated_activation": "many of its units sit where their activation is flat",
    "loss_divergence": "its loss diverges",
    "loss_stuck": "its loss does not move",
    "plateau": "its loss rests on a plateau",
    "slow_convergence": "its loss falls slowly",
    "oscillating_loss": "its loss oscillates",
    "loss_spike": "its loss spikes",
    "constant_output": "it gives the same output for every input",
    "train_eval_gap": "it behaves differently in training and evaluation",
    "no_parameter_update": "some of its parameters are never updated",
    "identical_units": "units of a layer are copies of each other",
    "huge_initial_loss": "its first loss is far above chance",
    "overfitting": "it learns its training data by heart",
    "generalization_failure": "it does not carry over to unseen data",
}

CAUSES = {
    "lr_too_high": "a learning rate that is too high",
    "lr_too_low": "a learning rate that is too low",
    "undertrained": "too few steps of training",
    "bad_init_large": "initial weights that are too large",
    "bad_init_small": "initial weights that are too small",
    "constant_init": "weights that start out equal",
    "input_not_normalized": "inputs that are not standardised",
    "target_not_scaled": "targets that are not scaled",
    "bad_hidden_activation": "the hidden activation",
    "missing_activation": "no activation between layers",
    "wrong_output_activation": "the activation of the output",
    "redundant_output_activation": "an output activation that the loss applies again",
    "wrong_loss": "a loss that does not fit the targets",
    "loss_reduction": "a loss that is summed, not averaged",
    "unstable_loss": "a loss that overflows",
    "sign_error": "a loss with the wrong sign",
    "missing_normalization_layer": "no normalisation between layers",
    "too_deep_no_skip": "too many layers without skip connections",
    "too_narrow_relu": "ReLU layers that are too narrow",
    "no_grad_clip": "gradients that are not clipped",
    "no_warmup": "a learning rate without warm-up",
    "over_regularized": "too much regularisation",
    "over_clipped": "gradients that are clipped too hard",
    "batch_too_small": "a batch that is too small",
    "labels_corrupt": "labels that do not belong to their inputs",
    "data_nan": "data that is not finite",
    "missing_zero_grad": "gradients that are never zeroed",
    "frozen_params": "parameters that are frozen",
    "bn_stats": "the running statistics of batch norm",
    "scheduler_bug": "the learning-rate schedule",
    "low_precision": "numbers with too few bits",
    "long_memory": "a memory longer than the gradient reaches",
    "attention_logits": "attention scores that are too large",
    "selu_conditions": "SELU without the conditions it needs",
    "init_activation_mismatch": "an initialisation made for another activation",
    "capacity_too_small": "too few parameters for the data",
}

NOUNS = {
    "initialize": "new initialisation",
    "swap_activation": "new activation",
    "add_residual": "skip connections",
    "clip_norm": "clipping by norm",
    "clip_value": "clipping by value",
    "lower_rate": "rate",
    "raise_rate": "rate",
    "standardize_input": "standardised inputs",
    "standard_step": "a plain step",
}
_JOINS = ("before", "after", "with", "in", "at", "to", "of", "on", "for", "by", "around", "between", "from", "×", "(")


def symptom_clause(symptom: str | None) -> str:
    """Returns `its gradient vanishes on its way down`; a symptom outside the vocabulary reads as its own words."""
    return SYMPTOMS.get(symptom or "", (symptom or "its structure has a fault").replace("_", " "))


def cause_phrase(cause: str, trace: Trace | None = None) -> str:
    """Returns a noun phrase for a cause; a guilty activation is named when most layers share it."""
    if cause == "bad_hidden_activation" and trace is not None:
        kinds = Counter(x.activation for x in trace.layers if x.depth is not None and x.activation not in {"none", "unknown"})
        if kinds and kinds.most_common(1)[0][1] * 2 > kinds.total():
            return f"the {kinds.most_common(1)[0][0].replace('_', ' ')} activation"
    return CAUSES.get(cause, cause.replace("_", " "))


def arrows(text: str) -> str:
    """Returns the text with typed arrows drawn."""
    return text.replace("->", "→")


def change_label(proposal: Proposal) -> str:
    """Returns a change as a table names it: `sigmoid → tanh (Glorot)`, `batch norm before each activation`."""
    names, parts = proposal.remedy.split("+"), proposal.options.get("parts", [])
    if len(names) > 1 and len(names) == len(parts):
        return " and ".join(_label(name, str(part)) for name, part in zip(names, parts, strict=True))
    return _label(proposal.remedy, proposal.summary)


def _label(name: str, summary: str) -> str:
    noun, rest = NOUNS.get(name, name.replace("_", " ")), summary.strip()
    if rest and not rest.startswith(name):
        return _spaced(arrows(rest))
    rest = _spaced(arrows(rest.removeprefix(name).strip(" :")))
    if "→" in rest:
        return rest if name.startswith("swap") else f"{noun} {rest}"
    if not rest:
        return noun
    return f"{noun} {rest}" if rest.startswith(_JOINS) else f"{noun} ({rest})"


def _spaced(text: str) -> str:
    """Schemes in brackets lose their underscores: `(glorot_normal)` reads `(glorot normal)`."""
    return re.sub(r"\([\w, ]+\)", lambda m: m[0].replace("_", " "), text)


def change_phrase(proposal: Proposal) -> str:
    """Returns a change as a sentence carries it: `tanh (Glorot) in place of sigmoid`."""
    label = change_label(proposal)
    swap = re.fullmatch(r"(\w+) → (.+)", label)
    return f"{swap[2]} in place of {swap[1]}" if swap else label


def together(proposals: tuple[Proposal, ...]) -> str:
    """Returns the label of changes made together, or `nothing`."""
    return " + ".join(change_label(p) for p in proposals) or "nothing"


def sentence(text: str) -> str:
    """Returns the text with a capital and a full stop."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) or not text else ".")
