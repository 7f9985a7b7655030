"""This machine -> what evengrad can do on it."""

from __future__ import annotations

import importlib.util
import os
import platform
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

_OPTIONAL = {
    "sklearn": "digits, wine and breast_cancer data (extra: lab)",
    "matplotlib": "figures (extra: figures)",
    "optuna": "search (extra: search)",
}


def findings_of_installation() -> dict[str, Any]:
    """Returns versions, devices, data at hand and optional packages."""
    import torch

    import evengrad
    from evengrad.lab import data
    from evengrad.remedies import discovered as remedies
    from evengrad.rules import discovered as rules

    return {
        "evengrad": evengrad.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "devices": ["cpu", *(f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count()))],
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "rules": len(rules()),
        "remedies": len(remedies()),
        "fashion_mnist": f"{len(data.load('fashion_mnist').x_train)} training images embedded",
        "optional": {name: importlib.util.find_spec(name) is not None for name in _OPTIONAL},
    }


def render(found: dict[str, Any], console: Console) -> None:
    """Prints the findings, one a line."""
    for name, value in found.items():
        if name == "optional":
            for package, there in value.items():
                console.print(f"{package:14} {'installed' if there else 'missing'}: {_OPTIONAL[package]}", markup=False, highlight=False)
        else:
            shown = ", ".join(value) if isinstance(value, list) else value
            console.print(f"{name:14} {shown}", markup=False, highlight=False)
