"""Clipping by unit, layer and history, and thresholds that the run's own gradients suggest."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evengrad import synthetic
from evengrad.errors import InputError
from evengrad.remedies import discovered
from evengrad.remedies.clip_gradient import suggested
from evengrad.remedies.clipping import DeviationClip, PercentileClip, clip_adaptive_
from evengrad.training import build, train
from evengrad.types import Facts, Finding, Proposal, Trace
from tests.remedies.loop_patients import X, Y, blamed, experiment, keeps, net, normal, proposals, trace_of

SPIKE = Finding(code="EXP002", symptom="loss_spike", severity="warning", message="1", steps=(30, 30), cause="no_grad_clip")


def parameter(weight: Any, gradient: Any) -> nn.Parameter:
    made = nn.Parameter(torch.tensor(weight, dtype=torch.float32))
    made.grad = torch.tensor(gradient, dtype=torch.float32)
    return made


# ---------------------------------------------------------------- clip_adaptive_


def test_each_row_is_clipped_to_a_share_of_its_own_weights() -> None:
    p = parameter([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]], [[0.6, 0.8], [0.003, 0.004], [0.0, 1.0]])
    share = clip_adaptive_([p], 0.1)
    expected = torch.tensor([[0.3, 0.4], [0.003, 0.004], [0.0, 1e-4]])  # limits 0.5, 0.05, and 0.1 of the least norm 1e-3
    assert p.grad is not None
    torch.testing.assert_close(p.grad, expected, rtol=1e-6, atol=0)
    assert float(share) == pytest.approx(2 / 3)


def reference(p: Tensor, g: Tensor, clipping: float, eps: float) -> Tensor:
    """Equation 3 of the paper, unit by unit."""
    out = g.clone()
    for i in range(len(p)) if p.dim() > 1 else [...]:
        limit = clipping * max(float(p[i].norm()), eps)
        size = float(g[i].norm())
        out[i] = g[i] * (limit / size if size > limit else 1.0)
    return out


@pytest.mark.parametrize("shape", [(5,), (4, 6), (4, 3, 3, 3), (4, 3, 5)])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_units_are_rows_filters_and_whole_vectors(shape: tuple[int, ...], scale: float) -> None:
    weight, gradient = normal(*shape), normal(*shape, seed=1) * scale
    p = parameter(weight.tolist(), gradient.tolist())
    clip_adaptive_(p, 0.05)
    assert p.grad is not None
    torch.testing.assert_close(p.grad, reference(weight, gradient, 0.05, 1e-3), rtol=1e-5, atol=0)


def test_a_parameter_without_a_gradient_is_passed_over() -> None:
    assert float(clip_adaptive_([nn.Parameter(torch.ones(2))])) == 0.0
    assert float(clip_adaptive_([])) == 0.0


@pytest.mark.parametrize("options", [{"clipping": 0.0}, {"clipping": -1.0}, {"eps": 0.0}, {"clipping": math.nan}])
def test_a_threshold_that_is_none_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match="must be above 0"):
        clip_adaptive_([], **options)


# ---------------------------------------------------------------- the remedies


def loud(output: Tensor, targets: Tensor) -> Tensor:
    return 100 * nn.functional.cross_entropy(output, targets)


WILD = experiment(loss_fn=loud, model=lambda: net(depth=3), epochs=6)  # a hundred times the rate that it stands


@pytest.mark.parametrize("name", ["clip_layer", "agc", "autoclip"])
def test_a_run_that_its_gradients_threw_off_learns(name: str) -> None:
    (made,) = proposals(name, blamed("no_grad_clip"), trace_of(experiment()))
    assert made.cause == "no_grad_clip"
    wild, tame = train(WILD), train(WILD.repaired([made]))
    assert not wild.metric > 0.75
    assert tame.metric > 0.85
    keeps(WILD, made)


def test_adaptive_clipping_spares_the_last_layer() -> None:
    (made,) = proposals("agc", blamed("no_grad_clip"), trace_of(WILD))
    assert made.options["head"] == "6"
    rig = build(WILD.repaired([made]))
    assert rig.optimizer is not None
    for p in rig.model.parameters():
        p.grad = torch.ones_like(p)
    rig.optimizer.step()
    assert [bool((p.grad == 1).all()) for p in rig.model.parameters()] == [False] * 6 + [True] * 2


def test_each_layer_is_clipped_by_itself() -> None:
    rig = build(experiment(repairs=(Proposal(remedy="clip_layer", options={"max_norm": 1.0}),)))
    assert rig.optimizer is not None
    sizes = [1e3, 0.5, 2.0, 1e-3]
    for p, size in zip(rig.model.parameters(), sizes, strict=True):
        p.grad = torch.ones_like(p) * size / math.sqrt(p.numel())
    rig.optimizer.step()
    seen = [float(p.grad.norm()) for p in rig.model.parameters() if p.grad is not None]
    assert seen == pytest.approx([1.0, 0.5, 1.0, 1e-3], rel=1e-5)


def norms_after(hook: Any, norms: list[float]) -> list[float]:
    """The norm that is left of each step's gradient."""
    p = nn.Parameter(torch.zeros(4))
    optimizer = torch.optim.SGD([p], 0.0)
    optimizer.register_step_pre_hook(hook)
    left = []
    for norm in norms:
        p.grad = torch.full((4,), norm / 2)
        optimizer.step()
        left.append(float(p.grad.norm()))
    return left


def test_autoclip_cuts_at_the_percentile_of_the_norms_so_far() -> None:
    norms = [3.0, 1.0, 2.0, 50.0, 0.5]
    expected = [min(n, float(np.percentile(norms[: k + 1], 40))) for k, n in enumerate(norms)]
    assert norms_after(PercentileClip(40), norms) == pytest.approx(expected, rel=1e-6)


def test_zclip_cuts_a_spike_and_nothing_else_and_its_mean_is_not_led_astray() -> None:
    usual = [1.0 + 0.1 * math.sin(k) for k in range(60)]
    hook = DeviationClip(2.5, 25)
    left = norms_after(hook, [*usual, 100.0, *usual])
    assert left[:60] == pytest.approx(usual, rel=1e-6)
    assert 1.0 < left[60] < 1.2  # 2.5² of 0.07 / z above the mean of 1, z being about 1,400
    assert left[61:] == pytest.approx(usual, rel=1e-6)
    assert hook.mean == pytest.approx(1.0, abs=0.05)


def test_a_gradient_that_is_not_finite_takes_no_step_and_is_no_history() -> None:
    for hook in (PercentileClip(50), DeviationClip(2.5, 2)):
        assert norms_after(hook, [1.0, 2.0, 1.0, math.inf, 1.0])[3:] == pytest.approx([0.0, 1.0])


def test_zclip_needs_a_run_that_was_healthy_until_its_spike() -> None:
    made = proposals("zclip", SPIKE, run(np.ones(40)))
    assert [p.options for p in made] == [{"limit": 2.5, "steps": 25}]
    keeps(WILD, made[0])
    assert proposals("zclip", blamed("no_grad_clip"), run(np.ones(40))) == []  # from the first step on
    assert proposals("autoclip", SPIKE, run(np.ones(5))) == []


# ---------------------------------------------------------------- thresholds


def run(norms: Any, **columns: Any) -> Trace:
    """A run of three layers, whose gradients have these norms."""
    each = np.asarray(norms, np.float64)[:, None] / math.sqrt(3)
    facts = Facts(optimizer={"name": "SGD", "lr": 0.1})
    return synthetic.chain(3, steps=len(each), grad_raw_norm=each, facts=facts, **columns)


def test_the_threshold_lies_above_nine_tenths_of_the_healthy_steps() -> None:
    norms = np.r_[np.linspace(0.1, 0.4, 30), 1e5, 1e6]
    assert suggested(run(norms), SPIKE) == pytest.approx(0.37)
    assert suggested(run(norms), SPIKE, "layer") == pytest.approx(0.37 / math.sqrt(3), rel=0.03)
    (made,) = discovered()["clip_norm"]().propose(SPIKE, run(norms))
    assert made.options == {"max_norm": 0.37}
    assert "0.37)" in made.code


def test_rare_large_gradients_before_the_trouble_do_not_raise_the_threshold() -> None:
    norms = np.ones(40)
    norms[[3, 9, 15, 21, 27]] = 100.0
    assert suggested(run(norms), SPIKE) == 1.0


def test_the_threshold_by_value_comes_from_the_largest_elements() -> None:
    largest = np.tile(np.array([[0.01, 0.2, 0.03]]), (40, 1))
    (made,) = discovered()["clip_value"]().propose(SPIKE, run(np.ones(40), grad_raw_abs_max=largest))
    assert made.options == {"clip_value": 0.2}


def test_without_healthy_steps_the_threshold_is_the_usual_one() -> None:
    for trace in (run(np.ones(3)), run(np.full(40, np.nan)), run(np.full(40, np.inf)), run(np.zeros(40))):
        assert suggested(trace, SPIKE) == 1.0
    assert suggested(run(np.full(40, 1e4)), blamed("no_grad_clip", "exploding_gradient")) == 1.0  # they were large from the start


def test_clipping_at_the_suggested_threshold_saves_a_run_from_its_spikes() -> None:
    x = X.clone()
    x[::100] *= 3e4  # a few samples whose gradient throws the weights off
    given = experiment(data=(x, Y), validation=(X, Y), model=lambda: net(depth=2))
    norms = [float(n) for n in np.full(40, 0.3)]
    (made,) = discovered()["clip_norm"]().propose(SPIKE, run(norms))
    assert made.options == {"max_norm": 0.3}
    assert not train(given).metric > 0.9
    assert train(given.repaired([made])).metric > 0.9
