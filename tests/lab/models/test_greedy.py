"""Growing a network layer by layer."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from evengrad.errors import InputError
from evengrad.lab.models import MLP
from evengrad.lab.models.greedy import grow, hidden_state, shallow, stages

NET = MLP(inputs=4, outputs=2, widths=(5, 5, 3), norm="batch", dropout=0.1)


def test_stages_have_one_hidden_layer_more_each() -> None:
    assert [net.widths for net in stages(NET)] == [(5,), (5, 5), (5, 5, 3)]
    assert stages(NET)[-1] == NET
    assert [net.depth for net in stages(MLP(inputs=4, outputs=2, depth=2))] == [1, 2]


@pytest.mark.parametrize("residual", [False, True])
def test_a_grown_network_starts_from_the_trained_layers_and_draws_the_rest(residual: bool) -> None:
    net = replace(NET, residual=residual)
    trained = shallow(net, 2).build(0)
    trained(torch.randn(8, 4, generator=torch.Generator().manual_seed(0)))  # moves batch norm's averages
    grown, fresh = grow(net, trained, seed=1), net.build(1)
    own, new = grown.state_dict(), fresh.state_dict()
    shared = hidden_state(trained)
    assert {name.split(".")[-1] for name in shared} == {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
    assert all(torch.equal(own[name], value) for name, value in shared.items())
    assert all(torch.equal(own[name], value) for name, value in new.items() if name not in shared)
    assert len(new) > len(shared)


def test_a_grown_networks_hidden_layers_answer_as_before() -> None:
    trained, x = shallow(NET, 1).build(0).eval(), torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    grown = grow(NET, trained, seed=1).eval()
    torch.testing.assert_close(grown[: len(trained) - 1](x), trained[:-1](x))


def test_the_trained_network_is_left_alone() -> None:
    trained = shallow(NET, 1).build(0)
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    grown = grow(NET, trained, seed=1)
    with torch.no_grad():
        for p in grown.parameters():
            p.add_(1)
    torch.testing.assert_close(dict(trained.state_dict()), before, rtol=0, atol=0)


def test_a_network_of_another_kind_is_refused() -> None:
    with pytest.raises(InputError, match="no shallower form"):
        grow(NET, MLP(inputs=4, outputs=2, widths=(6,)).build(0), seed=1)
    with pytest.raises(InputError, match="has 3 hidden layers; got depth=4"):
        shallow(NET, 4)
