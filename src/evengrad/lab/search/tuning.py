"""A torch optimizer and numbers -> the same optimizer with these numbers, or one of another kind for the same parameters."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from evengrad.errors import unknown

_BETAS = ("beta1", "beta2")


def numbers_of(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Returns the numbers of the first group; `betas` are `beta1` and `beta2`."""
    return _numbers(optimizer.param_groups[0])


def tuned(optimizer: torch.optim.Optimizer, numbers: Mapping[str, Any]) -> torch.optim.Optimizer:
    """Returns the optimizer with these numbers, of the kind that `optimizer` names; numbers that it does not have are passed over.

    Rates of further groups keep their ratio to the first; another number changes in the groups that have the first one's.
    """
    if "optimizer" in numbers and numbers["optimizer"] != type(optimizer).__name__:
        optimizer = of_kind(optimizer, numbers["optimizer"])
    own = numbers_of(optimizer)
    for name in numbers.keys() & own.keys():
        for group in [*optimizer.param_groups, optimizer.defaults]:
            held = _numbers(group).get(name)
            if name == "lr" and held is not None and own["lr"] > 0:
                _put(group, name, numbers[name] * (held / own["lr"]))
            elif held == own[name]:
                _put(group, name, numbers[name])
    return optimizer


def of_kind(optimizer: torch.optim.Optimizer, kind: str) -> torch.optim.Optimizer:
    """Returns torch's optimizer called `kind` for the same parameters and rates, its other numbers torch's defaults.

    Raises:
        UnknownNameError: if torch has none of that name.
    """
    known = [n for n, c in vars(torch.optim).items() if inspect.isclass(c) and issubclass(c, torch.optim.Optimizer) and n != "Optimizer"]
    if kind not in known:
        raise unknown("optimizer", str(kind), known)
    groups = [{"params": group["params"], "lr": group["lr"]} for group in optimizer.param_groups]
    found: torch.optim.Optimizer = getattr(torch.optim, kind)(groups, lr=optimizer.param_groups[0]["lr"])
    return found


def written(optimizer: torch.optim.Optimizer) -> str:
    """Returns the call that makes it, with the numbers that are not torch's defaults: `torch.optim.SGD(model.parameters(), lr=0.1)`."""
    defaults = inspect.signature(type(optimizer)).parameters
    group, parts = optimizer.param_groups[0], []
    for name, parameter in defaults.items():
        if name in group and name != "params" and (name == "lr" or group[name] != parameter.default):
            parts.append(f"{name}={_short(group[name])}")
    home = "torch.optim." if type(optimizer).__module__.startswith("torch.") else ""
    return f"{home}{type(optimizer).__name__}({', '.join(('model.parameters()', *parts))})"


def _numbers(group: Mapping[str, Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in group.items():
        if name == "betas":
            found |= zip(_BETAS, map(float, value), strict=True)
        elif name != "params" and type(value) in {int, float, torch.Tensor}:
            found[name] = float(value)
    return found


def _put(group: dict[str, Any], name: str, value: float) -> None:
    if name in _BETAS:
        group["betas"] = tuple(value if name == own else old for own, old in zip(_BETAS, group["betas"], strict=True))
    else:
        group[name] = torch.full_like(group[name], value) if isinstance(group[name], torch.Tensor) else value


def _short(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_short, value))})"
    return f"{float(value):.6g}" if isinstance(value, (float, torch.Tensor)) else repr(value)
