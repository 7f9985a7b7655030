"""nothing -> the module of small trainings, as a fixture (test folders are no packages)."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def loops() -> ModuleType:
    spec = importlib.util.spec_from_file_location("monitor_loops", Path(__file__).with_name("loops.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickle look their classes up
    spec.loader.exec_module(module)
    return module
