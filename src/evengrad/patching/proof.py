"""An edited program and the repaired experiment -> whether they are built and begin to train alike."""

from __future__ import annotations

import contextlib
import io
import math
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from evengrad.patching.fragments import Change, Part, Wrapping
from evengrad.patching.program import Program
from evengrad.patching.source import Source
from evengrad.remedies.schemes import traced
from evengrad.rig import Rig
from evengrad.training import Experiment, build, first_batch, train

_STEPS = 8  # whose losses are compared
_NEAR = 1e-3  # relative difference of losses
_SHOWN, _DRAWN = 1e-4, 0.02  # of settings, which are shown rounded: to six digits, or to two where the draw differs anyway
_OTHER_DRAW = 1.5  # factor between sizes of weights that are the same but for the draw


def agrees(expected: Experiment, program: Program, changes: Sequence[Change]) -> bool:
    """True if the edited program makes an experiment like the expected one.

    Rows, activations, norms and sizes of weights must be the same, as must the settings of the optimizer and of the schedule, the epochs
    and the batches; and the losses of the first steps, if weights are not drawn otherwise.

    Args:
        expected: The experiment with its repairs.
        program: The edited files.
        changes: What was edited: an initialiser draws with other random numbers, and a new schedule may be of another class.
    """
    drawn = any(isinstance(change, Wrapping) for change in changes)
    scheduled = any(isinstance(change, Part) and change.name == "scheduler" for change in changes)
    found = made(program, expected.device)
    if found is None:
        return False
    try:
        with _quiet():
            rigs = build(expected), build(found)
            near = _DRAWN if drawn else _SHOWN
            if not _alike(*rigs, near) or not (scheduled or _near(_schedule(rigs[0].scheduler), _schedule(rigs[1].scheduler), near)):
                return False
            return _same_sizes(*rigs) if drawn else _train_alike(expected, found)
    except Exception:  # the user's own code, in a form that nobody has run before
        return False


def made(program: Program, device: Any = None) -> Experiment | None:
    """Runs the program and returns the experiment that it makes, on a device; None if it raises, or makes none."""
    try:
        with _quiet():
            found = _loaded(program)
    except Exception:
        return None
    return found if found is None or device is None else replace(found, device=device)


def _loaded(program: Program) -> Experiment | None:
    """Runs the edited text of the user's files as modules, the main one last, and returns the experiment."""
    folder, kept = str(program.main.parent), dict(sys.modules)
    sys.path.insert(0, folder)
    try:
        for path, source in program.sources.items():
            names = [n for n, m in kept.items() if path != program.main and _is_file(m, path)]
            for name in names:
                _run(name, source)
        found = vars(_run(f"_evengrad_patched_{program.main.stem}", program.source)).get(program.name)
    finally:
        sys.modules.pop(f"_evengrad_patched_{program.main.stem}", None)
        sys.path.remove(folder)
        for name in [n for n in sys.modules if sys.modules[n] is not kept.get(n, sys.modules[n])]:
            sys.modules[name] = kept[name]
    return found if isinstance(found, Experiment) else None


def _run(name: str, source: Source) -> ModuleType:
    module = ModuleType(name)
    module.__file__ = str(source.path)
    sys.modules[name] = module
    exec(compile(source.text, str(source.path), "exec", dont_inherit=True), vars(module))
    return module


def _is_file(module: Any, path: Path) -> bool:
    file = getattr(module, "__file__", None)
    return isinstance(file, str) and Path(file).resolve() == path


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Lets the user's files run without a word, and leaves random generators as they were."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    except SystemExit as error:
        raise RuntimeError("the file ends the program") from error
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)


def _alike(expected: Rig, found: Rig, near: float) -> bool:
    if expected.epochs != found.epochs or first_batch(expected).samples != first_batch(found).samples:
        return False
    rows, others = ([_row(x) for x in traced(rig.model, first_batch(rig).inputs).layers] for rig in (expected, found))
    return rows == others and _near(_settings(expected), _settings(found), near)


def _row(layer: Any) -> tuple[Any, ...]:
    slope = {k: round(v, 6) for k, v in layer.activation_options.items() if isinstance(v, float)} if layer.activation_options else {}
    return layer.kind, layer.fan_in, layer.fan_out, layer.activation, slope, layer.norm, layer.residual


def _settings(rig: Rig) -> list[dict[str, Any]]:
    assert rig.optimizer is not None
    groups = []
    for group in rig.optimizer.param_groups:
        held = {
            k: float(f"{v:.5g}") if isinstance(v, float) else v for k, v in group.items() if k not in {"params", "initial_lr"}
        }  # what schedules note
        groups.append(held | {"kind": type(rig.optimizer).__name__, "parameters": sum(p.numel() for p in group["params"])})
    return groups


def _schedule(schedule: Any) -> Any:
    """What a schedule is and goes by, those that it is made of included."""
    if schedule is None:
        return None
    held = {k: v for k, v in vars(schedule).items() if not k.startswith("_") and isinstance(v, (int, float, list))}
    return type(schedule).__name__, held, [_schedule(part) for part in getattr(schedule, "_schedulers", ())]


def _near(a: Any, b: Any, near: float) -> bool:
    """True if two values in lists and mappings are equal, and numbers nearly so."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_near(a[k], b[k], near) for k in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(_near(x, y, near) for x, y in zip(a, b, strict=True))
    if isinstance(a, float) or isinstance(b, float):
        return isinstance(a, (int, float)) and isinstance(b, (int, float)) and math.isclose(a, b, rel_tol=near)
    return bool(a == b)


def _same_sizes(expected: Rig, found: Rig) -> bool:
    """True if the weights are as large, by the median over matrices."""
    pairs = zip(expected.model.parameters(), found.model.parameters(), strict=True)
    sizes = [(float(a.detach().norm()), float(b.detach().norm())) for a, b in pairs if a.dim() > 1]
    ratios = [abs(math.log(a / b)) for a, b in sizes if a > 0 and b > 0]
    return not ratios or float(np.median(ratios)) < math.log(_OTHER_DRAW)


def _train_alike(expected: Experiment, found: Experiment) -> bool:
    losses, others = (train(e, max_steps=_STEPS).losses for e in (expected, found))
    return losses.shape == others.shape and np.allclose(losses, others, rtol=_NEAR, atol=1e-12, equal_nan=True)
