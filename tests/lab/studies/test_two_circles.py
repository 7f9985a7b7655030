"""S1: the tutorial's networks, and what is said of its single runs."""

from __future__ import annotations

import pytest
import torch

from evengrad.errors import InputError
from evengrad.lab.studies.two_circles import TwoCircles, parsed
from evengrad.lab.study import Row, Rows


def rows(network: str, accuracies: list[float]) -> Rows:
    return Rows(Row({"network": network}, seed, {"train_accuracy": a}) for seed, a in enumerate(accuracies))


def test_runs_the_tutorials_numbers() -> None:
    job = TwoCircles().job({"network": "5 tanh uniform_01"}, 3)
    assert (job.epochs, job.batch_size, job.optimizer.lr, job.optimizer.momentum) == (500, 32, 0.01, 0.9)  # type: ignore[attr-defined]
    network = job.net.build(3)
    assert [tuple(p.shape) for p in network.parameters() if p.dim() == 2] == [(5, 2), (5, 5), (5, 5), (5, 5), (5, 5), (1, 5)]
    assert all(float(p.min()) >= 0 and float(p.max()) <= 1 for p in map(torch.Tensor.detach, network.parameters()))


@pytest.mark.parametrize(
    ("network", "accuracies", "said"),
    [
        (
            "15 relu he_uniform",
            [0.5, 0.5, 0.5, 0.5, 0.8],
            "20% of 5 seeds reach 0.75 (median 0.5); the published run learns, luck, as few seeds do",
        ),
        (
            "15 relu he_uniform",
            [0.8, 0.8, 0.8, 0.8, 0.5],
            "80% of 5 seeds reach 0.75 (median 0.8); the published run learns, as most seeds do",
        ),
        ("5 tanh uniform_01", [0.5, 0.8], "50% of 2 seeds reach 0.75 (median 0.65); the published run fails, as some seeds do (0.53; "),
        ("10 relu he_uniform", [0.5], "10 relu he_uniform: 0% of 1 seeds reach 0.75 (median 0.5)."),
    ],
)
def test_says_where_a_published_run_was_luck(network: str, accuracies: list[float], said: str) -> None:
    assert said in TwoCircles(network=(network,)).answer(rows(network, accuracies))


def test_a_network_is_a_depth_an_activation_and_an_initialiser() -> None:
    net = parsed("2 leaky_relu(0.2) uniform(0, 1)", 7)
    assert (net.depth, net.width, net.activation, net.initialiser) == (2, 7, "leaky_relu(0.2)", "uniform(0, 1)")
    with pytest.raises(InputError, match="such as '5 relu he_uniform'; got 'relu 5'"):
        parsed("relu 5", 5)
