"""A finding -> the pages that explain it: its rule, and the activation and the initialiser that it is about."""

from __future__ import annotations

from collections import Counter

from evengrad.report.explained.activations import ACTIVATIONS
from evengrad.report.explained.initialisers import INITIALISERS
from evengrad.report.explained.rules import known
from evengrad.signals.scale import matching_scheme
from evengrad.types import Finding, Layer, Trace

ABOUT_ACTIVATIONS = {"bad_hidden_activation", "init_activation_mismatch"}
ABOUT_INITIALISERS = {"bad_init_large", "bad_init_small", "init_activation_mismatch"}
Link = tuple[str, str]  # words, address beside the other pages


def about(code: str, cause: str | None) -> tuple[bool, bool]:
    """Returns whether a finding is about activations, and whether about initialisers: by its cause, else by those that its rule names."""
    causes = {cause} if cause else set(getattr(known().get(code), "causes", ()))
    return code.startswith("ACT") or bool(causes & ABOUT_ACTIVATIONS), bool(causes & ABOUT_INITIALISERS)


def links(finding: Finding, trace: Trace | None) -> tuple[Link, ...]:
    """Returns where to read on; only pages that there are."""
    if finding.code not in known():
        return ()
    activations, initialisers = about(finding.code, finding.cause)
    name = _activation(finding, trace)
    found = [(f"{finding.code} explained", f"{finding.code}.html")]
    if activations:
        found.append(_link("activations", name, tuple(ACTIVATIONS), "{} and its derivative"))
    if initialisers:
        fitting = matching_scheme(name).partition("_")[0] if name else ""
        found.append(_link("initialisers", fitting, tuple(i.name for i in INITIALISERS), "{} initialisation by depth"))
    return tuple(found)


def anchor(name: str) -> str:
    """Returns the name of a section as an address has it."""
    return name.replace(", ", "-").replace(" ", "-").replace("_", "-")


def _link(page: str, name: str, drawn: tuple[str, ...], words: str) -> Link:
    if name not in drawn:
        return page, f"{page}.html"
    return words.format(name.replace("_", " ") if page == "activations" else name.capitalize()), f"{page}.html#{anchor(name)}"


def _activation(finding: Finding, trace: Trace | None) -> str:
    """The activation of the layers that the finding names; of most layers, where it names none."""
    layers = trace.layers if trace is not None else ()
    named = [layer for layer in layers if layer.name in finding.where and _has(layer)] or [layer for layer in layers if _has(layer)]
    return Counter(layer.activation for layer in named).most_common(1)[0][0] if named else ""


def _has(layer: Layer) -> bool:
    return layer.activation not in {"none", "unknown"}
