"""S13: what is broken is broken alone, mean and variance are those of the layers, and the answer orders what is lost."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from evengrad.errors import UnknownNameError
from evengrad.lab.models import MLP
from evengrad.lab.models.hashing import HashAlphaDropout, HashDropout, set_step
from evengrad.lab.studies.selu_conditions import PlainDropout, SeluConditions, moments, part_of, signal_kept
from evengrad.lab.study import Cell, Row, Rows

STUDY = SeluConditions(dropout=0.1)


@pytest.mark.parametrize(
    ("broken", "changed"),
    [
        ("nothing", {}),
        ("raw inputs", {}),
        ("he_normal", {"initialiser": "he_normal"}),
        ("variance_scaling(2, fan_avg, uniform)", {"initialiser": "variance_scaling(2, fan_avg, uniform)"}),
        ("alpha dropout", {"dropout": 0.1}),
        ("plain dropout", {"dropout": 0.1, "kind": "mlp with plain dropout"}),
        ("skips", {"residual": True}),
        ("layer norm", {"norm": "layer"}),
        ("elu(0.5)", {"activation": "elu(0.5)"}),
    ],
)
def test_one_condition_is_broken_at_a_time(broken: str, changed: dict[str, object]) -> None:
    kept, other = (STUDY.network(b, 8).describe() for b in ("nothing", broken))
    assert {k: v for k, v in other.items() if v != kept[k]} == changed
    assert (kept["activation"], kept["initialiser"], kept["dropout"]) == ("selu", "lecun_normal", 0)


def test_inputs_are_standardised_unless_that_is_what_is_broken() -> None:
    raw, other = (STUDY._job(Cell({"broken": b, "depth": 8}, 0), 0.01).data.split().x_train for b in ("raw inputs", "relu"))
    assert (float(raw.min()), float(raw.max())) == (0, 1)
    assert float(other.mean()) == pytest.approx(0, abs=1e-4)  # float32


def test_a_name_that_is_neither_a_condition_nor_an_initialiser_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="lecun_normal"):
        STUDY.network("lecun_norml", 8)


def test_plain_dropout_drops_to_zero_with_the_same_weights() -> None:
    sizes = {"inputs": 4, "outputs": 2, "depth": 2, "width": 200, "activation": "selu", "initialiser": "lecun_normal", "dropout": 0.25}
    alpha, plain = (kind(**sizes).build(3) for kind in (MLP, PlainDropout))  # type: ignore[arg-type]
    assert [type(m) for m in alpha if isinstance(m, HashDropout)] == [HashAlphaDropout] * 2
    assert [type(m) for m in plain if isinstance(m, HashDropout)] == [HashDropout] * 2
    assert all(torch.equal(a, b) for a, b in zip(alpha.parameters(), plain.parameters(), strict=True))
    h = plain[:3](torch.ones(50, 4))
    assert float((h == 0).float().mean()) == pytest.approx(0.25, abs=0.02)  # 10,000 units: four standard errors


def test_moments_are_those_of_what_each_layer_is_given() -> None:
    network = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), HashDropout(0.5), nn.Linear(2, 1))
    nn.init.eye_(network[0].weight)
    x = torch.tensor([[1.0, -3.0], [3.0, -1.0]]).repeat(500, 1)
    found = moments(network, x, 5, "start")
    set_step(network, 5, 0)
    h = network[:3](x).detach().double()
    np.testing.assert_allclose(found["mean_start"], [0, float(h.mean())])
    np.testing.assert_allclose(found["variance_start"], [5, float(h.var(correction=0))])
    assert not network[0]._forward_pre_hooks


def test_the_fixed_point_holds_with_all_conditions_and_not_with_another_initialiser() -> None:
    x = torch.randn(512, 64, generator=torch.Generator().manual_seed(0))
    wide = SeluConditions(width=256)
    kept, he = (moments(wide.network(b, 16).build(0), x, 0, "start") for b in ("nothing", "he_normal"))
    assert abs(kept["mean_start"]).max() < 0.1  # the domain of Klambauer et al.'s theorem 1: mean within 0.1, variance 0.8 to 1.5
    assert 0.8 < kept["variance_start"].min() < kept["variance_start"].max() < 1.5
    assert he["variance_start"][-1] > 5


@pytest.mark.parametrize("p", [0.05, 0.2])
def test_the_signal_behind_alpha_dropout_is_what_correlates(p: float) -> None:
    x = torch.randn(1_000_000, generator=torch.Generator().manual_seed(0))
    dropout = HashAlphaDropout(p)
    set_step(dropout, 1, 0)
    kept = float(np.corrcoef(x.numpy(), dropout(x).numpy())[0, 1]) ** 2
    assert signal_kept(p) == pytest.approx(kept, abs=5e-3)  # a million samples: a correlation within 1e-3


def rows(found: dict[str, tuple[float, float]], depth: int = 32) -> Rows:
    return Rows(
        Row({"broken": b, "depth": depth}, 0, {"mean_start": 0.0, "variance_start": variance, "test_accuracy": accuracy})
        for b, (variance, accuracy) in found.items()
    )


def test_the_answer_orders_what_is_lost_in_the_deepest_networks() -> None:
    shallow = rows({"relu": (0.5, 0.97)}, depth=8)
    deep = rows({"nothing": (1.1, 0.93), "skips": (np.inf, 0.0), "glorot_normal": (1.0, 0.92), "he_normal": (80.0, 0.7)})
    answer = STUDY.answer(Rows((*shallow, *deep)))
    assert "All conditions kept: mean 0, variance 1.1, test accuracy 0.93" in answer
    assert answer.index("glorot_normal mean") < answer.index("he_normal mean") < answer.index("skips mean")
    assert "skips mean 0, variance infinite, test accuracy 0" in answer
    assert answer.startswith("Of 0.93 test accuracy in 32 layers most is lost with skips (0); at most 0.02 with glorot_normal.\n")
    assert "relu" not in answer
    assert "dropout" not in answer


def test_the_answer_holds_without_the_network_to_compare_with() -> None:
    answer = STUDY.answer(rows({"alpha dropout": (1.0, 0.3), "plain dropout": (1.2, 0.8)}))
    assert "lost by" not in answer
    assert "at 10% only 69% of it is the signal's behind each layer, against 90% behind plain dropout" in answer
    assert "none of them" in STUDY.answer(rows({"nothing": (1.0, 0.9), "skips": (9.0, 0.1)}))


def test_every_part_of_a_network_has_what_is_broken_in_it() -> None:
    assert [part_of(b) for b in ("skips", "rms norm", "raw inputs", "leaky_relu(0.2)", "default")] == [
        *("structure", "structure", "inputs and dropout", "activation", "initialiser")
    ]
