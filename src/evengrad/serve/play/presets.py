"""Names of symptoms and studies -> states that show them; pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A state to begin from.

    Attributes:
        key: A word of the symptom vocabulary, or the name of a study.
        title: What it is called on the page.
        note: What to try, in a sentence.
        state: Fields of `State` that differ from the defaults.
    """

    key: str
    title: str
    note: str
    state: Mapping[str, Any]


def _preset(key: str, title: str, note: str, **state: Any) -> Preset:
    return Preset(key=key, title=title, note=note, state=state)


SYMPTOMS: tuple[Preset, ...] = (
    _preset(
        "vanishing_gradient",
        "Vanishing gradient",
        "Twenty sigmoids: move the scale of the weights, then ask what is wrong.",
        activation="sigmoid",
        depth=20,
        width=32,
    ),
    _preset(
        "exploding_gradient",
        "Exploding gradient",
        "Weights of linear layers that are too large: turn the scale down.",
        activation="linear",
        depth=20,
        width=32,
        scale=2.0,
        rate=0.001,
    ),
    _preset(
        "signal_collapse",
        "Signal collapse",
        "Every point looks the same to the last layers.",
        activation="relu",
        depth=30,
        width=32,
        initialiser="lecun_normal",
        scale=0.8,
    ),
    _preset(
        "zero_gradient",
        "Zero gradient",
        "All weights begin at zero: nothing passes back.",
        initialiser="zeros",
        activation="relu",
        depth=5,
        width=32,
    ),
    _preset(
        "dead_relu",
        "Dead ReLU",
        "A first step that is too long kills units; they do not come back.",
        activation="relu",
        depth=5,
        width=16,
        rate=3.0,
        optimizer="sgd",
        data="blobs",
    ),
    _preset(
        "saturated_activation",
        "Saturated units",
        "Weights so large that tanh is flat nearly everywhere.",
        depth=5,
        width=32,
        initialiser="normal_1",
    ),
    _preset(
        "identical_units",
        "Identical units",
        "Every weight is the same, so every unit learns the same.",
        initialiser="constant(0.1)",
        depth=3,
        width=16,
    ),
    _preset(
        "huge_initial_loss",
        "Huge loss at first",
        "The first answers are confidently wrong.",
        activation="relu",
        initialiser="normal_1",
        depth=3,
        width=64,
        rate=0.0001,
    ),
    _preset(
        "nan_or_inf",
        "NaN and infinity",
        "The numbers overflow within a few steps.",
        activation="relu",
        initialiser="he_normal",
        depth=10,
        width=32,
        rate=100.0,
    ),
    _preset(
        "loss_divergence",
        "Diverging loss",
        "Turn the rate down, or clip the gradient.",
        activation="relu",
        initialiser="he_normal",
        depth=5,
        width=32,
        rate=1.5,
    ),
    _preset(
        "oscillating_loss", "Oscillating loss", "Small batches and a long step: it never settles.", depth=3, width=16, rate=0.3, batch=4
    ),
    _preset(
        "loss_spike",
        "Loss spikes",
        "It learns, and now and then forgets.",
        activation="relu",
        initialiser="he_normal",
        depth=4,
        width=32,
        optimizer="rmsprop",
        rate=0.03,
        data="moons",
    ),
    _preset(
        "loss_stuck",
        "Loss that does not fall",
        "Weights three times too large: it begins, and stays, at chance.",
        depth=5,
        width=32,
        initialiser="normal_1",
        scale=3.0,
    ),
    _preset(
        "plateau",
        "Plateau",
        "Two units cannot bend far enough: let it train to the end, then ask.",
        depth=1,
        width=2,
        rate=0.1,
        data="moons",
    ),
    _preset(
        "slow_convergence",
        "Slow convergence",
        "It falls, but the step is too short.",
        depth=3,
        width=16,
        rate=1e-05,
        optimizer="adam",
        data="moons",
    ),
    _preset("no_parameter_update", "Weights that do not move", "A rate of a hundred-millionth.", rate=1e-8, optimizer="sgd", depth=3),
    _preset("constant_output", "One answer for all", "The output ignores the input.", activation="sigmoid", depth=15, width=32),
    _preset(
        "train_eval_gap",
        "Training and evaluation differ",
        "Batch norm with two samples a batch.",
        norm="batch",
        batch=2,
        depth=5,
        width=32,
        rate=0.1,
    ),
    _preset(
        "overfitting",
        "Overfitting",
        "Forty points and many weights: let it train to the end, then ask.",
        samples=40,
        data="two_circles",
        depth=3,
        width=128,
        activation="relu",
        initialiser="he_normal",
        optimizer="adam",
        rate=0.003,
        batch=20,
    ),
    _preset(
        "generalization_failure",
        "Learned by heart",
        "Right on the points it saw, at chance on others: let it train to the end, then ask.",
        samples=16,
        data="spirals",
        depth=3,
        width=128,
        activation="relu",
        initialiser="he_normal",
        optimizer="adam",
        rate=0.003,
        batch=16,
    ),
)

STUDIES: tuple[Preset, ...] = (
    _preset(
        "two-circles",
        "S1 · two circles",
        "Five units a layer, weights from uniform(0, 1): the seed decides.",
        depth=5,
        width=5,
        initialiser="uniform_01",
        rate=0.01,
    ),
    _preset("two-circles-extensions", "Two circles, repaired", "The same with Glorot's weights.", depth=5, width=5, rate=0.01),
    _preset(
        "six-activations",
        "Six activations",
        "Change the activation, keep the rest.",
        depth=10,
        width=32,
        activation="selu",
        initialiser="lecun_normal",
        rate=0.01,
    ),
    _preset(
        "activations-initialisers-depth",
        "Activations, initialisers, depth",
        "Depth 40 needs weights that fit the activation.",
        depth=40,
        width=32,
        activation="relu",
        initialiser="he_normal",
        rate=0.01,
    ),
    _preset(
        "selu-conditions",
        "SELU's conditions",
        "SELU with He's weights is not self-normalising.",
        depth=30,
        width=32,
        activation="selu",
        initialiser="he_normal",
        rate=0.01,
    ),
    _preset("batch-norm", "Batch norm", "Take the norm out and see.", depth=20, width=32, activation="sigmoid", norm="batch", rate=0.1),
    _preset(
        "batch-size", "Batch size", "Compare 4 with 256.", depth=3, width=32, activation="relu", initialiser="he_normal", batch=4, rate=0.02
    ),
    _preset(
        "clipping",
        "Clipping",
        "Without the limit of 1 it diverges.",
        depth=8,
        width=32,
        activation="relu",
        initialiser="he_normal",
        scale=1.3,
        rate=0.3,
        clip=1.0,
    ),
    _preset(
        "residual-depth",
        "Residual layers",
        "Fifty layers, with a way around each.",
        depth=50,
        width=32,
        residual=True,
        rate=0.005,
        scale=0.2,
    ),
    _preset(
        "ten-thousand-layers", "Very deep", "Orthogonal tanh layers, sixty here.", depth=60, width=32, initialiser="orthogonal", rate=0.01
    ),
    _preset(
        "optimizers",
        "Optimizers",
        "Change the optimizer; each has its own rate.",
        depth=4,
        width=32,
        optimizer="adam",
        rate=0.005,
        data="spirals",
    ),
    _preset(
        "regularisation",
        "Regularisation",
        "Few points, decoupled weight decay.",
        samples=40,
        depth=3,
        width=64,
        optimizer="adamw",
        rate=0.01,
        data="moons",
    ),
    _preset("few-samples", "Few samples", "Twenty points.", samples=20, depth=3, width=32, data="moons", batch=20),
    _preset(
        "greedy-pretraining",
        "Greedy pretraining",
        "What pretraining was made for: deep sigmoids.",
        depth=10,
        width=32,
        activation="sigmoid",
        rate=0.1,
    ),
    _preset(
        "rnn-lstm",
        "Recurrent networks",
        "Depth stands for time: sixty steps of tanh.",
        depth=60,
        width=16,
        activation="tanh",
        scale=0.9,
        rate=0.01,
    ),
    _preset(
        "framework-timing",
        "Timing",
        "Ten layers of 128: watch the steps a second.",
        depth=10,
        width=128,
        activation="relu",
        initialiser="he_normal",
        rate=0.01,
    ),
)

START = _preset("", "Healthy", "Ten tanh layers with Glorot's weights.")
