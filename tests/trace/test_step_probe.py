"""What two steps of the user's own show of themselves when the loss and the model are looked at from outside."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evengrad.trace.batch import Batch
from evengrad.trace.step_probe import step_facts


def batch(samples: int = 32) -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(torch.randn(samples, 6, generator=generator), torch.arange(samples) % 3)


def facts(step: Any, *, loss_fn: Any = None, adam: bool = False) -> dict[str, float]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    optimizer: torch.optim.Optimizer = torch.optim.Adam(model.parameters()) if adam else torch.optim.SGD(model.parameters(), 0.1)
    return step_facts(step, model, optimizer, loss_fn or nn.CrossEntropyLoss(), batch(), seed=0)


def taken(optimizer: torch.optim.Optimizer, loss: Tensor, scale: float = 1.0) -> Tensor:
    optimizer.zero_grad()
    (scale * loss).backward()
    optimizer.step()
    return loss


def plain(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    return taken(optimizer, loss_fn(model(batch[0]), batch[1]))


def reordered(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    order = torch.randperm(len(batch[0]))
    return taken(optimizer, loss_fn(model(batch[0][order]), batch[1][order]))


def inputs_alone_reordered(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    return taken(optimizer, loss_fn(model(batch[0][torch.randperm(len(batch[0]))]), batch[1]))


def mixed(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    order = torch.randperm(len(batch[0]))
    output = model(0.8 * batch[0] + 0.2 * batch[0][order])
    return taken(optimizer, 0.8 * loss_fn(output, batch[1]) + 0.2 * loss_fn(output, batch[1][order]))


def in_pieces(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    parts = [loss_fn(model(x), y) for x, y in zip(batch[0].split(8), batch[1].split(8), strict=True)]
    return taken(optimizer, torch.stack(parts).mean())


def first_alone(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    return taken(optimizer, loss_fn(model(batch[0])[:1], batch[1][:1]))


def loaded_again(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    kept = optimizer.__dict__.setdefault("_kept", {k: v.clone() for k, v in model.state_dict().items()})
    model.load_state_dict(kept)
    return plain(model, batch, loss_fn, optimizer)


def state_in_half(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    loss = plain(model, batch, loss_fn, optimizer)
    for state in optimizer.state.values():
        for name in ("exp_avg", "exp_avg_sq"):
            state[name] = state[name].half().float()
    return loss


def past_half(model: nn.Module, batch: Any, loss_fn: Any, optimizer: torch.optim.Optimizer) -> Tensor:
    optimizer.zero_grad()
    loss: Tensor = loss_fn(model(batch[0]), batch[1])
    (loss * 2**22).backward()
    for p in model.parameters():
        assert p.grad is not None
        p.grad = p.grad.half().float() / 2**22
    optimizer.step()
    return loss


@pytest.mark.parametrize("step", [plain, reordered, mixed, in_pieces])
def test_a_step_that_keeps_samples_and_targets_together_shows_nothing(step: Any) -> None:
    found = facts(step)
    assert found.get("mismatched", 0.0) == 0.0
    assert found["asked"] >= 1.0
    assert not found.get("set_back")
    assert found["rounded_gradients"] < 0.1


def test_targets_of_other_samples_are_seen() -> None:
    assert facts(inputs_alone_reordered)["mismatched"] > 0.5


def test_a_loss_that_is_a_function_is_looked_at_as_well() -> None:
    assert facts(first_alone, loss_fn=nn.functional.cross_entropy)["asked"] == pytest.approx(1 / 32)


def test_weights_that_are_loaded_at_every_step_are_seen() -> None:
    assert facts(loaded_again)["set_back"] == 1.0


def test_what_float16_has_rounded_is_seen() -> None:
    assert facts(state_in_half, adam=True)["rounded_state"] == 1.0
    assert facts(plain, adam=True)["rounded_state"] < 0.1
    found = facts(past_half)
    assert found["overflown"] == 1.0
    assert found["rounded_gradients"] == 1.0


def test_nothing_of_the_users_is_changed() -> None:
    model = nn.Linear(6, 3)
    before, state = model.weight.detach().clone(), torch.get_rng_state()
    optimizer = torch.optim.Adam(model.parameters())
    assert step_facts(inputs_alone_reordered, model, optimizer, nn.CrossEntropyLoss(), batch(), seed=0)
    assert torch.equal(model.weight, before)
    assert not optimizer.state
    assert torch.equal(torch.get_rng_state(), state)


def test_a_standard_step_and_one_that_raises_tell_nothing() -> None:
    def broken(*args: Any) -> Tensor:
        raise RuntimeError("of the user's")

    assert facts(None) == {}
    assert facts(broken) == {}
