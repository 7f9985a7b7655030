import pytest
import torch
from torch import nn

from evengrad.errors import UnknownNameError
from evengrad.integrations.testing import assert_trainable


def chain(activation, depth=12, width=32):
    torch.manual_seed(0)
    hidden = [m for _ in range(depth) for m in (nn.Linear(width, width), activation())]
    return nn.Sequential(nn.Linear(8, width), activation(), *hidden, nn.Linear(width, 2))


def batch():
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    return x, (x[:, 0] > 0).long()


def healthy():
    model = chain(nn.ReLU, depth=2)
    for module in model:
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight)
    return model


def test_a_healthy_network_passes_and_is_left_as_it_was():
    model = healthy()
    before = [p.detach().clone() for p in model.parameters()]
    assert_trainable(model, batch(), nn.CrossEntropyLoss())
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert all(p.grad is None for p in model.parameters())


def test_a_network_whose_gradient_vanishes_fails_with_the_report():
    with pytest.raises(
        AssertionError, match=r"(?s)of severity 'error' or above.*VAN001.*the gradient is multiplied by.*bad_hidden_activation"
    ):
        assert_trainable(chain(nn.Sigmoid), batch(), nn.CrossEntropyLoss())


def test_findings_can_be_selected_and_ignored():
    assert_trainable(chain(nn.Sigmoid), batch(), nn.CrossEntropyLoss(), select=["NUM"])
    assert_trainable(chain(nn.Sigmoid), batch(), nn.CrossEntropyLoss(), ignore=["VAN", "ACT", "GEN"])


def test_weaker_findings_fail_where_that_is_asked():
    x, y = batch()
    shifted = (50 + 10 * x, y)
    assert_trainable(healthy(), shifted, nn.CrossEntropyLoss(), select=["DAT001"])
    with pytest.raises(AssertionError, match="DAT001"):
        assert_trainable(healthy(), shifted, nn.CrossEntropyLoss(), select=["DAT001"], fail_on="warning")


def test_a_low_or_unknown_chance_to_train_fails():
    assert_trainable(healthy(), batch(), nn.CrossEntropyLoss(), min_trainability=0.5)
    with pytest.raises(AssertionError, match=r"the chance to train is \d+%; expected at least 90%"):
        assert_trainable(chain(nn.Sigmoid), batch(), nn.CrossEntropyLoss(), select=["NUM"], min_trainability=0.9)
    with pytest.raises(AssertionError, match="the chance to train is not known for this network"):
        assert_trainable(nn.Linear(8, 2), batch()[0], min_trainability=0.5)


def test_a_model_that_returns_its_own_loss_needs_only_inputs():
    assert_trainable(healthy(), batch()[0])


def test_an_unknown_severity_is_named():
    with pytest.raises(UnknownNameError, match="fatal"):
        assert_trainable(healthy(), batch(), fail_on="fatal")
