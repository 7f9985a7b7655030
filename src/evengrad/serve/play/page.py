"""The playground's choices and presets -> its page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from evengrad.report.markup import Markup, data_block, el, join
from evengrad.serve.frame import page
from evengrad.serve.play.presets import START, STUDIES, SYMPTOMS, Preset
from evengrad.serve.play.state import CHOICES, RANGES, State

_RATES = (
    "1e-8",
    "0.00001",
    "0.0001",
    "0.0005",
    "0.001",
    "0.005",
    "0.01",
    "0.02",
    "0.03",
    "0.05",
    "0.1",
    "0.3",
    "1",
    "1.5",
    "3",
    "10",
    "100",
)
_CLIPS = ("0", "0.1", "0.5", "1", "5")
_BATCHES = ("1", "2", "4", "12", "16", "20", "32", "64", "128", "256", "500")
_SAMPLES = ("12", "16", "20", "40", "100", "200", "500")


def play_page(token: str) -> str:
    """Returns the page; what it shows is computed by a worker process, and drawn by a script."""
    every = {p.key: {"title": p.title, "note": p.note, "state": dict(p.state)} for p in (START, *SYMPTOMS, *STUDIES)}
    body = join(
        el(
            "header",
            el("h1", "Playground"),
            el("p", el("span", "", id="note"), " ", el("b", "", id="applied", class_="applied"), class_="meta"),
        ),
        el("div", _controls(), _views(), class_="bench"),
        _answers(),
        data_block({"defaults": asdict(State()), "presets": every}),
    )
    return page("Playground", body, place="play", scripts=("play.js",), token=token)


def _controls() -> Markup:
    presets = el(
        "select",
        el("option", START.title, value=""),
        _group("Symptoms", SYMPTOMS),
        _group("Studies", STUDIES),
        el("option", "your own", value="own", hidden=True),
        id="preset",
    )
    fields = [
        _labelled("start from", presets),
        _labelled("data", _select("data", CHOICES["data"])),
        _labelled("points", _select("samples", _SAMPLES)),
        _slider("depth", "depth", 1, int(RANGES["depth"][1]), 1),
        _labelled("width", _select("width", ("1", "2", "5", "8", "16", "32", "64", "128"))),
        _labelled("activation", _select("activation", CHOICES["activation"])),
        _labelled("initialiser", _select("initialiser", CHOICES["initialiser"])),
        _labelled("norm", _select("norm", CHOICES["norm"])),
        _labelled("residual", el("input", type="checkbox", id="residual")),
        _labelled("optimizer", _select("optimizer", CHOICES["optimizer"])),
        _labelled("rate", _select("rate", _RATES)),
        _labelled("clip at", _select("clip", _CLIPS)),
        _labelled("batch", _select("batch", _BATCHES)),
        _labelled("seed", el("input", type="number", id="seed", min="0", max="9999")),
    ]
    return el("form", *fields, class_="card controls", aria_label="network and training", autocomplete="off")


def _views() -> Markup:
    scale = el(
        "div",
        el("label", "scale of the initial weights ", el("output", "1", id="scale-said", for_="scale"), for_="scale"),
        el("input", type="range", id="scale", min="-1", max="1", step="0.02", list="marks"),
        el(
            "div",
            el("span", "ten times smaller"),
            el("span", "as the initialiser draws them"),
            el("span", "ten times larger"),
            class_="ends",
        ),
        class_="scale-box",
    )
    verdict = el("p", el("b", "", id="word"), el("span", "", id="gain"), class_="word", role="status")
    buttons = el(
        "div",
        el("button", "Train", type="button", id="train", class_="button main"),
        el("button", "What is wrong?", type="button", id="wrong", class_="button"),
        el("button", "Fix it", type="button", id="fix", class_="button"),
        el("button", "Undo the fix", type="button", id="undo", class_="button", hidden=True),
        el("span", "", id="status", role="status", class_="meta"),
        class_="tools",
    )
    plane = el("canvas", id="plane", width="300", height="300", role="img", aria_label="decision boundary and points")
    top = el(
        "div",
        el("div", plane, el("p", "", id="accuracy", class_="said"), class_="card"),
        el("div", el("figure", el("figcaption", "loss of each step"), el("div", id="loss", class_="plot")), class_="card"),
        class_="pair-of",
    )
    layers = el(
        "div",
        el("figure", el("figcaption", "spread over the points, forward"), el("div", id="spread", class_="plot")),
        el("figure", el("figcaption", "gradient, backward"), el("div", id="gradient", class_="plot")),
        class_="pair-of",
    )
    legend = el(
        "p",
        el("span", el("i", class_="swatch"), "now"),
        el("span", el("i", class_="swatch ghost"), "before its first step"),
        el("span", el("i", class_="swatch second"), "before the fix", id="legend-before", hidden=True),
        class_="legend",
    )
    units = el(
        "figure",
        el(
            "figcaption",
            "units by layer: ",
            el("span", el("i", class_="chip dead"), "dead (share of units) ", class_="bit"),
            el("span", el("i", class_="chip saturated"), "saturated (share of values)", class_="bit"),
        ),
        el("div", id="units", class_="plot"),
    )
    return el(
        "div",
        el("div", scale, verdict, class_="card"),
        buttons,
        top,
        el("div", layers, legend, units, class_="card by-layer"),
        class_="views",
    )


def _answers() -> Markup:
    return el(
        "section",
        el("h2", "", id="answer-head", class_="head"),
        el("div", id="answer", class_="card", aria_live="polite"),
        id="answers",
        hidden=True,
    )


def _group(label: str, presets: Sequence[Preset]) -> Markup:
    return el("optgroup", *(el("option", p.title, value=p.key) for p in presets), label=label)


def _labelled(word: str, control: Markup) -> Markup:
    return el("label", el("span", word), control)


def _select(name: str, values: Sequence[str]) -> Markup:
    words = {"0": "none"} if name == "clip" else {}
    return el("select", *(el("option", words.get(v, v.replace("_", " ")), value=v) for v in values), id=name)


def _slider(name: str, word: str, low: int, high: int, step: int) -> Markup:
    control = el("input", type="range", id=name, min=str(low), max=str(high), step=str(step))
    return el("label", el("span", word, " ", el("output", "", id=f"{name}-said")), control)
