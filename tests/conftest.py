"""What every test gets: one torch thread, and in continuous integration no skipped test."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Workers share the cores: one thread each is faster than all threads each."""
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_mode_is_left() -> Iterator[None]:
    """A function mode that a test leaves on would see, and slow down, all that comes after."""
    yield
    torch = sys.modules.get("torch")
    if torch is not None:
        assert torch._C._len_torch_function_stack() == 0


@pytest.fixture(scope="session")
def module_at() -> Callable[[Path], ModuleType]:
    """Loads a file of helpers as a module: test folders are no packages."""

    def load(path: Path) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses and pickle look their classes up
        spec.loader.exec_module(module)
        return module

    return load


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Turns a run with skipped tests into a failed one where the environment says CI."""
    if os.environ.get("CI", "").lower() in {"", "0", "false"} or exitstatus != pytest.ExitCode.OK:
        return
    if _skipped(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Says why the run failed."""
    if os.environ.get("CI", "").lower() in {"", "0", "false"} or not (skipped := _skipped(config)):
        return
    terminalreporter.section("skipped tests fail in continuous integration", red=True)
    for report in skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        terminalreporter.line(f"{report.nodeid}: {reason}")


def _skipped(config: pytest.Config) -> list[pytest.TestReport | pytest.CollectReport]:
    reporter = config.pluginmanager.get_plugin("terminalreporter")  # None in a worker: the controller gathers the reports
    return list(reporter.stats.get("skipped", [])) if reporter is not None else []
