"""nothing -> synthetic reports: what the tests of the renderings look at."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from evengrad.report import Report
from evengrad.types import Curve, Evidence, Facts, Finding, Floats, Intervention, Layer, Outcome, Proposal, Run, Trace

CODES = ("ACT001", "ACT002", "DAT001", "EXP001", "INI001", "INI002", "NRM001", "NUM001", "VAN001", "VAN002")
GLOROT = Proposal(
    remedy="swap_activation",
    options={"old": "sigmoid", "new": "tanh", "scheme": "glorot"},
    cause="bad_hidden_activation",
    summary="swap_activation sigmoid -> tanh (Glorot)",
    code="-    nn.Sigmoid()\n+    nn.Tanh()",
)
NORM = Proposal(
    remedy="batch_norm", cause="missing_normalization_layer", summary="batch_norm before each activation", risk="needs batches of 8 or more"
)
INIT = Proposal(remedy="initialize", cause="bad_init_small", summary="initialize He", options={"scheme": "he"})
SKIP = Proposal(remedy="add_residual", cause="too_deep_no_skip", summary="add_residual around every second layer")
PATCH = """-    layers += [nn.Linear(width, width), nn.Sigmoid()]
+    layers += [nn.Linear(width, width), nn.Tanh()]
 model = nn.Sequential(*layers, nn.Linear(width, 10))
+eg.initialize_(model)          # Glorot for tanh: variance 1 / fan_avg"""


def trace(
    gain: float = 0.24, *, depth: int = 20, activation: str = "sigmoid", prefix: str = "net.", name: str = "stuck.py:experiment"
) -> Trace:
    """One step of a chain whose gradient is multiplied by `gain` from each layer to the one below."""
    rng = np.random.default_rng(0)
    wobble = rng.normal(0, 0.03, depth)
    gradient = 1e-3 * np.float64(gain) ** np.arange(depth - 1, -1, -1) * np.exp(wobble)
    saturated = np.linspace(0.02, 0.3, depth) if activation == "sigmoid" else np.full(depth, 0.01)
    columns = {
        "grad_out_norm": gradient,
        "out_spread": 0.8 * 0.55 ** np.arange(depth) if gain < 0.9 else np.linspace(0.8, 0.7, depth),
        "saturated_fraction": saturated,
        "dead_fraction": np.zeros(depth),
        "out_abs_max": np.full(depth, 2.0),
    }
    return Trace(
        run=_run(depth, name),
        layers=tuple(_layer(i, activation, prefix) for i in range(depth)),
        facts=Facts(optimizer={"name": "SGD", "lr": 0.01}, inputs={"shape": (128, 784)}, targets={"counts": {0: 12, 1: 14}}),
        columns={k: _row(v) for k, v in columns.items()},
    )


def check() -> Report:
    """A single-step check of 20 sigmoid layers."""
    sick = trace()
    return Report(
        run=sick.run,
        findings=(_vanishing(), _collapse()),
        causes=("bad_hidden_activation",),
        interventions=(_tried(INIT, 0.26, restored=False), _tried(GLOROT, 0.98), _tried(NORM, 1.07), _tried(SKIP, 0.91)),
        trainability=0.02,
        proposals=(GLOROT, NORM, SKIP),
        checked=CODES,
        skipped={"updates": "no step was taken", "OPT001": "no step was taken", "validation": "no data given"},
        trace=sick,
    )


def fixed() -> Report:
    """A fix that worked, over five seeds, with the trace before and after."""
    seeds, before = (0, 1, 2, 3, 4), (0.098, 0.1, 0.1, 0.1, 0.104)
    rows = (
        ((INIT,), (0.1, 0.1, 0.1, 0.101, 0.1), ("VAN001",), "no_better"),
        ((GLOROT,), (0.836, 0.841, 0.85, 0.82, 0.844), (), "fixed"),
        ((NORM,), (0.66, 0.786, 0.82, float("nan"), 0.79), (), "improved"),
    )
    outcomes = tuple(Outcome(proposals=p, seeds=seeds, before=before, after=a, findings=f, verdict=v, seconds=12.5) for p, a, f, v in rows)
    base = check()
    run = replace(base.run, verb="fix", seconds=74.2)
    return replace(base, run=run, outcomes=outcomes, chosen=(GLOROT,), verdict="fixed", patch=PATCH, after=trace(0.98, activation="tanh"))


def fixed_run() -> Report:
    """A fix that worked, with many steps before and after."""
    base, before = fixed(), run().trace
    assert before is not None
    healed = {**before.columns, "grad_out_norm": np.full_like(before.columns["grad_out_norm"], 0.5), "dead_fraction": np.zeros((120, 12))}
    falling = {**before.curves, "loss": replace(before.curves["loss"], values=np.geomspace(2.3, 0.01, 480))}
    return replace(base, trace=before, after=replace(before, columns=healed, curves=falling))


def nothing_helped() -> Report:
    """A fix that found nothing."""
    base = fixed()
    return replace(base, outcomes=base.outcomes[:1], chosen=(), verdict="nothing_helped", patch="", after=None)


def healthy() -> Report:
    """A check without findings."""
    fine = trace(1.01, activation="tanh", name="good.py:experiment")
    return Report(run=fine.run, trainability=0.97, checked=CODES, skipped={"validation": "no data given"}, trace=fine)


def run(*, steps: int = 120, every: int = 4, depth: int = 12) -> Report:
    """A watched run of `steps` sampled steps: ReLU layers die one after the other, then the numbers stop being finite."""
    one = trace(0.8, depth=depth, activation="relu", name="run.py:experiment")
    step, row = np.mgrid[0:steps, 0:depth].astype(np.float64)
    gradient = 1e-3 * 0.8 ** (depth - 1 - row) * np.exp(0.4 * np.sin(step / 9 + row) + (step / steps) * (row - depth) * 0.3)
    gradient[70:, 0], gradient[90:, 1], gradient[-6:, :] = 0.0, 0.0, np.inf
    dead = np.clip((step / steps) * (depth - row) / depth * 1.3, 0, 1)
    columns = {
        "grad_out_norm": gradient,
        "out_spread": np.exp(-0.1 * row + 0.1 * np.sin(step / 20)),
        "update_norm": 1e-3 * np.exp(0.5 * np.sin(step / 15 + row / 3)),
        "weight_norm": np.ones((steps, depth)),
        "dead_fraction": dead,
    }
    every_step = np.arange(steps * every, dtype=np.int64)
    loss = 2.3 * np.exp(-every_step / 300) + 0.1 * np.sin(every_step)
    loss[-20:] = np.inf
    rate = np.full(len(every_step), 0.1)
    watched = replace(
        one,
        run=replace(one.run, verb="watch", seconds=3.2),
        steps=every_step[::every],
        columns={k: v.astype(np.float32) for k, v in columns.items()},
        curves={"loss": Curve(every_step, loss), "val_loss": Curve(every_step[::40], loss[::40] * 1.1), "lr": Curve(every_step, rate)},
    )
    dying = Finding(
        code="ACT001",
        symptom="dead_relu",
        severity="error",
        message="84% of the units of layer 1 of 12 (net.0) are off for every sample",
        evidence=(Evidence(signal="dead_fraction", value=0.84, relation=">", threshold=0.5, where="net.0", step=300),),
        where=("net.0", "net.2"),
        steps=(200, 476),
        cause="lr_too_high",
    )
    return Report(run=watched.run, findings=(dying,), causes=("lr_too_high",), checked=CODES, trace=watched)


def hostile() -> Report:
    """A check whose names try to be markup."""
    base = check()
    assert base.trace is not None
    evil = ("<script>alert(1)</script>", "[red]", "</script><img src=x onerror=alert(2)>", "\x1b[31m", "{{ body }}")
    layers = tuple(replace(x, name=evil[i] if i < len(evil) else x.name) for i, x in enumerate(base.trace.layers))
    finding = replace(_vanishing(), message=f"layer {evil[0]} and [red] and {evil[2]}", where=evil)
    who = replace(base.run, name=evil[0])
    return replace(base, run=who, findings=(finding,), trace=replace(base.trace, layers=layers), skipped={evil[0]: evil[2]}, patch=evil[0])


def hostile_run() -> Report:
    """A run of many steps with the same names."""
    base, evil = run(), hostile()
    assert base.trace is not None
    assert evil.trace is not None
    return replace(base, run=evil.run, trace=replace(base.trace, layers=evil.trace.layers[: len(base.trace.layers)]))


def _run(depth: int, name: str) -> Run:
    return Run(name=name, model="Sequential", parameters=depth * 64 * 65, samples=128, seconds=0.06)


def _layer(i: int, activation: str, prefix: str) -> Layer:
    name = f"{prefix}{2 * i}"
    return Layer(
        name=name,
        kind="linear",
        depth=i + 1,
        group=0,
        trunk=0,
        fan_in=64,
        fan_out=64,
        parameters=64 * 65,
        weight=f"{name}.weight",
        activation=activation,
    )


def _row(values: np.ndarray) -> Floats:  # type: ignore[type-arg]
    return np.asarray(values, np.float32)[None, :]


def _vanishing() -> Finding:
    return Finding(
        code="VAN001",
        symptom="vanishing_gradient",
        severity="error",
        message="the gradient is multiplied by 0.24 at each layer on its way down (-0.62 decades, R² 1.00): "
        "layer 1 of 20 (net.0) receives 1.7e-12 of what layer 20 gets",
        evidence=(Evidence(signal="gradient_gain", value=0.24, relation="<", threshold=0.78, unit="a layer"),),
        where=tuple(f"net.{2 * i}" for i in range(20)),
        cause="bad_hidden_activation",
    )


def _collapse() -> Finding:
    return Finding(
        code="INI002",
        symptom="signal_collapse",
        severity="warning",
        message="the signal across samples falls to 3e-4 of its spread by layer 14: later layers see the same thing for every input",
        evidence=(Evidence(signal="out_spread", value=3e-4, relation="<", threshold=0.01),),
        where=("net.26",),
    )


def _tried(proposal: Proposal, after: float, *, restored: bool = True) -> Intervention:
    return Intervention(
        proposal=proposal,
        cause=proposal.cause,
        code="VAN001",
        signal="gradient_gain",
        before=0.24,
        after=after,
        unit="a layer",
        restored=restored,
    )
