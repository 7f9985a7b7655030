"""The last call of a watched model, noted so that it can be repeated."""

from __future__ import annotations

import math

import torch
from torch import nn

from evengrad.monitor.replay import Call

CPU = torch.device("cpu")


def test_autocast_is_asked_for_unless_the_step_is_plain() -> None:
    call, x = Call(CPU), torch.ones(2, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        call.note((x,), {})
    call.note((x,), {}, plain=True)
    assert call.autocast == {"cpu": torch.bfloat16}
    call.note((x,), {})
    assert call.autocast == {}


def test_generators_are_kept_until_a_call_drew_no_number() -> None:
    call, x = Call(CPU), torch.ones(2, 3)
    call.note((x,), {})
    nn.Dropout(0.5)(x)
    call.see_numbers()
    assert call.generators
    call.note((x,), {})
    call.see_numbers()
    call.note((x,), {})
    assert not call.generators


def test_a_call_whose_inputs_were_written_to_since_is_not_repeated() -> None:
    model = nn.Linear(3, 2)
    with torch.no_grad():
        model.weight.fill_(math.nan)
    call, x = Call(CPU), torch.ones(2, 3)
    call.note((x,), {})
    assert call.first_bad_operation(model) is not None
    x.add_(1)
    assert call.first_bad_operation(model) is None


def test_inputs_can_be_anything() -> None:
    with torch.inference_mode():
        frozen = torch.ones(2)
    x = torch.ones(2)
    x.add_(1)
    call = Call(CPU)
    call.note((x, [x, 3], "text"), {"more": x})
    assert call.versions == [1, 1, 1]
    call.note((x, frozen), {})
    assert call.versions == [1, -1]
