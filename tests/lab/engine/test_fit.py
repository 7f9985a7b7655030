"""Runs trained as one against the same networks trained one by one by torch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import evengrad as eg
from evengrad.batches import epoch_order
from evengrad.errors import InputError
from evengrad.lab.data import load
from evengrad.lab.engine.chain import Chain
from evengrad.lab.engine.fit import fit
from evengrad.lab.engine.losses import LOSSES
from evengrad.lab.engine.optimizers import SGD, Adam, Optimizer
from evengrad.lab.engine.plan import Clip, History, Plan, Samples, Schedule
from evengrad.lab.engine.runs import Runs
from evengrad.lab.models import ResidualMLP, mlp

SEEDS = (3, 5, 8)
RATES = (0.3, 0.1, 0.03)


def circles() -> tuple[torch.Tensor, torch.Tensor]:
    split = load("two_circles")
    return split.x_train[:200], split.y_train[:200]


def networks(activation: str = "tanh", norm: str = "none") -> list[nn.Module]:
    return [mlp([2, 8, 8, 1], activation, "glorot_normal", norm=norm, seed=s) for s in SEEDS]


def plan(optimizers: tuple[Optimizer, ...] | None = None, **options: Any) -> Plan:
    defaults: dict[str, Any] = {"loss": LOSSES["bce"], "seeds": SEEDS, "epochs": 8, "batch_size": 32}
    return Plan(optimizers=optimizers or tuple(SGD(lr=r, momentum=0.9) for r in RATES), **(defaults | options))


def one_by_one(models: list[nn.Module], how: Plan) -> list[nn.Module]:
    """torch's own loop: its optimizers, autograd, clipping."""
    x, y = circles()
    trained = []
    for k, (model, seed) in enumerate(zip(models, how.seeds, strict=True)):
        kind = how.optimizers[k]
        numbers = {f: v for f, v in kind.describe().items() if f not in {"name", "beta1", "beta2"}}
        if hasattr(kind, "beta1"):
            numbers["betas"] = (kind.beta1, kind.beta2)

        def step(m: nn.Module, batch: Any, loss_fn: Any, optimizer: Any, k: int = k) -> torch.Tensor:
            optimizer.zero_grad()
            loss = loss_fn(m(batch[0])[:, 0], batch[1].float())
            (loss + (how.l1[k] * sum(p.abs().sum() for p in m.parameters() if p.dim() > 1) if how.l1 else 0)).backward()
            if how.clips and how.clips[k].kind == "norm":
                nn.utils.clip_grad_norm_(m.parameters(), how.clips[k].threshold)
            elif how.clips:
                nn.utils.clip_grad_value_(m.parameters(), how.clips[k].threshold)
            optimizer.step()
            return loss.detach()

        experiment = eg.Experiment(
            lambda m=model: m,
            (x, y),
            nn.BCEWithLogitsLoss(),
            lambda m, kind=kind, numbers=numbers: getattr(torch.optim, kind.name)(m.parameters(), **numbers),
            train_step=step,
            epochs=how.epochs,
            batch_size=how.batch_size,
            metric=lambda m: 0.0,
        )
        trained.append(eg.train(experiment, seed=seed).model)
    return trained


def assert_equal(runs: Runs, models: list[nn.Module]) -> None:
    for k, model in enumerate(models):
        for ours, theirs in zip(runs.network(k).parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=2e-4, atol=2e-5)  # 56 steps in single precision


@pytest.mark.parametrize("activation", ["tanh", "relu", "sigmoid", "selu", "gelu"])
def test_equals_torch_by_the_hand_written_backward_pass(activation: str) -> None:
    runs = Runs(networks(activation))
    assert Chain.of(runs.module) is not None
    x, y = circles()
    fit(runs, Samples(x=x, y=y), plan())
    assert_equal(runs, one_by_one(networks(activation), plan()))


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_equals_torch_by_autograd(norm: str) -> None:
    runs = Runs(networks(norm=norm))
    assert Chain.of(runs.module) is None
    x, y = circles()
    fit(runs, Samples(x=x, y=y), plan())
    assert_equal(runs, one_by_one(networks(norm=norm), plan()))


@pytest.mark.parametrize(
    "options",
    [
        {"optimizers": (Adam(lr=0.01), Adam(lr=0.03, beta1=0.5), Adam(lr=0.001, weight_decay=0.1))},
        {"clips": tuple(Clip(kind="norm", threshold=t) for t in (0.01, 0.1, 10.0))},
        {"clips": tuple(Clip(kind="value", threshold=t) for t in (0.001, 0.01, 10.0))},
        {"l1": (0.0, 0.01, 0.1)},
    ],
    ids=["Adam", "clip norm", "clip value", "L1"],
)
def test_every_run_keeps_its_own_numbers(options: dict[str, Any]) -> None:
    runs = Runs(networks())
    x, y = circles()
    fit(runs, Samples(x=x, y=y), plan(**options))
    assert_equal(runs, one_by_one(networks(), plan(**options)))


@pytest.mark.parametrize("kind", ["norm", "value"])
def test_a_weight_that_is_one_number_is_clipped_and_stepped_too(kind: str) -> None:
    x, y = circles()
    models = [ResidualMLP(inputs=2, outputs=1, blocks=2, width=4, branch="rezero").build(s) for s in SEEDS]
    how = plan(clips=tuple(Clip(kind=kind, threshold=t) for t in (0.001, 0.1, 10.0)))
    runs = Runs(models)
    fit(runs, Samples(x=x, y=y), how)
    assert_equal(runs, one_by_one(models, how))


def test_a_run_does_not_depend_on_its_neighbours() -> None:
    x, y = circles()
    trained = []
    for seeds in (SEEDS, (3, 9, 11)):
        runs = Runs([mlp([2, 8, 8, 1], "tanh", "glorot_normal", seed=s) for s in seeds])
        fit(runs, Samples(x=x, y=y), plan(seeds=seeds))
        trained.append([p.detach() for p in runs.network(0).parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*trained, strict=True))


def test_a_run_that_diverges_disturbs_no_other() -> None:
    x, y = circles()
    calm, wild = Runs(networks("relu")), Runs(networks("relu"))
    fit(calm, Samples(x=x, y=y), plan())
    fit(wild, Samples(x=x, y=y), plan((SGD(lr=RATES[0], momentum=0.9), SGD(lr=1e30, momentum=0.9), SGD(lr=RATES[2], momentum=0.9))))
    assert not all(p.isfinite().all() for p in wild.network(1).parameters())
    for k in (0, 2):
        assert all(torch.equal(a, b) for a, b in zip(calm.network(k).parameters(), wild.network(k).parameters(), strict=True))


def test_records_the_gradients_of_every_layer_of_every_run() -> None:
    x, y = circles()
    runs = Runs(networks())
    order = torch.stack([torch.randperm(200, generator=torch.Generator().manual_seed(s * 1_000_003)) for s in SEEDS])[:, :32]
    history = fit(runs, Samples(x=x, y=y), plan(epochs=2, record_every=7, signals=True))
    assert history.record_steps == [0, 7]
    assert runs.layers == ("0", "2", "4")
    for k, model in enumerate(networks()):
        seen: dict[str, torch.Tensor] = {}
        for name in runs.layers:
            layer = model.get_submodule(name)
            layer.register_forward_hook(lambda _m, _i, z, name=name, seen=seen: (z.retain_grad(), seen.__setitem__(name, z))[1])
        nn.BCEWithLogitsLoss()(model(x[order[k]])[:, 0], y[order[k]].float()).backward()
        for row, name in enumerate(runs.layers):
            g = model.get_submodule(name).weight.grad
            z = seen[name]
            expected = {
                "grad_abs_mean": g.abs().mean(),
                "grad_norm": g.norm(),
                "grad_abs_max": g.abs().max(),
                "weight_norm": model.get_submodule(name).weight.norm(),
                "weight_change": torch.zeros(()),
                "out_spread": z.var(0, correction=0).mean().sqrt(),
                "grad_out_norm": z.grad.flatten(1).norm(dim=1).mean(),
            }
            for column, value in expected.items():
                assert history.columns[column][0][row, k] == pytest.approx(value.item(), rel=1e-4), column


def test_a_network_that_is_mapped_over_its_runs_has_no_signals_but_its_gradients() -> None:
    class Own(nn.Module):
        def __init__(self, seed: int) -> None:
            super().__init__()
            self.inner = mlp([2, 4, 1], "tanh", "glorot_normal", seed=seed)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x) * x.shape[0] / len(x)  # reads the batch's axis

    x, y = circles()
    runs = Runs([Own(s) for s in SEEDS])
    history = fit(runs, Samples(x=x, y=y), plan(epochs=1, record_every=7, signals=True))
    assert np.isnan(history.columns["out_spread"][0]).all()
    assert (history.columns["grad_norm"][0] > 0).all()


def test_gradients_too_small_for_their_squares_keep_their_norm() -> None:
    from evengrad.lab.engine.record import Recorder

    runs = Runs(networks())
    recorder = Recorder(runs, plan(record_every=1), history := History())
    runs.grad.fill_(1e-30)
    recorder.see(*circles(), step=0)
    runs.grad.zero_()
    recorder.see(*circles(), step=1)
    recorder.close()
    first, second = history.columns["grad_norm"]  # (layers, runs)
    assert first[0, 0] == pytest.approx(1e-30 * math.sqrt(16), rel=1e-5)
    assert (second == 0).all()


def test_many_records_are_those_of_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from evengrad.lab.engine import record

    x, y = circles()
    histories = []
    for held in (1, 64):  # 8 steps an epoch: the longer buffer is filled more than once
        monkeypatch.setattr(record, "_STEPS_HELD", held)
        histories.append(fit(Runs(networks()), Samples(x=x, y=y), plan(epochs=20, record_every=1)))
    one, many = histories
    assert len(one.record_steps) == len(one.columns["grad_norm"]) > 128
    for name, lines in one.columns.items():
        np.testing.assert_array_equal(np.stack(lines), np.stack(many.columns[name]), err_msg=name)


def test_recording_changes_no_bit_of_the_training() -> None:
    x, y = circles()
    plain, watched = Runs(networks(norm="batch")), Runs(networks(norm="batch"))
    fit(plain, Samples(x=x, y=y), plan(epochs=3))
    fit(watched, Samples(x=x, y=y), plan(epochs=3, record_every=2, signals=True, evaluate_every=5), validation=Samples(x=x, y=y))
    assert torch.equal(plain.flat, watched.flat)
    assert all(torch.equal(a, b) for a, b in zip(plain.module.buffers(), watched.module.buffers(), strict=True))


def test_each_run_trains_on_its_own_samples() -> None:
    x, y = circles()
    index = torch.stack([torch.arange(start, start + 60) for start in (0, 60, 120)])
    runs = Runs(networks())
    fit(runs, Samples(x=x, y=y, index=index), plan())
    for k, seed in enumerate(SEEDS):
        alone = Runs(networks()[k : k + 1])
        fit(alone, Samples(x=x[index[k]], y=y[index[k]]), plan((SGD(lr=RATES[k], momentum=0.9),), seeds=(seed,)))
        assert_equal(alone, [runs.network(k)])


def test_stops_early_with_the_best_weights_of_each_run() -> None:
    x, y = circles()
    train, held = Samples(x=x[:40], y=y[:40]), Samples(x=x[100:], y=y[100:])
    how = plan((Adam(lr=0.05), Adam(lr=0.001), Adam(lr=0.2)), epochs=60, patience=3, evaluate_every=2)
    runs = Runs(networks())
    history = fit(runs, train, how, validation=held)
    losses = np.stack(history.curves["val_loss"])  # (evaluations, runs)
    for k in range(3):
        best, bad = math.inf, 0
        for step, loss in zip(history.steps, losses[:, k], strict=True):
            if loss < best:
                best, bad, expected = loss, 0, step
            else:
                bad += 1
            if bad == 3:
                break
        assert history.stopped_at[k] == expected
        again = nn.functional.binary_cross_entropy_with_logits(runs.network(k)(held.x)[:, 0], held.y.float())
        assert again.item() == pytest.approx(best, rel=1e-4)
    assert history.steps[-1] < 60 * 2  # all had stopped before the end


def test_a_probe_ends_the_training() -> None:
    x, y = circles()
    seen: list[tuple[int, int]] = []

    def probe(runs: Runs, epoch: int, step: int) -> bool:
        seen.append((epoch, step))
        return epoch == 2

    history = fit(Runs(networks()), Samples(x=x, y=y), plan(epochs=8), probe=probe)
    assert seen == [(0, 0), (1, 7), (2, 14)]
    assert history.stopped_at.tolist() == [14, 14, 14]


def test_frozen_weights_do_not_learn() -> None:
    x, y = circles()
    runs = Runs(networks())
    before = runs.module.get_parameter("0.weight").clone()
    fit(runs, Samples(x=x, y=y), plan(frozen=("0.weight",)))
    assert torch.equal(runs.module.get_parameter("0.weight"), before)
    assert not torch.equal(runs.network(0).get_parameter("2.weight"), networks()[0].get_parameter("2.weight"))


@pytest.mark.parametrize("kind", [lambda rate: SGD(lr=rate, momentum=0.9, weight_decay=0.01), lambda rate: Adam(lr=rate)])
def test_a_layer_with_a_rate_of_its_own_learns_as_in_a_group_of_torchs_optimizer(kind: Any) -> None:
    x, y = circles()
    runs = Runs(networks())
    fit(runs, Samples(x=x, y=y), plan(tuple(kind(0.03) for _ in SEEDS), epochs=2, rates=(("0.weight", 0.1), ("2.bias", 0.0))))
    for k, (seed, model) in enumerate(zip(SEEDS, networks(), strict=True)):
        groups = {"0.weight": 0.003, "2.bias": 0.0}
        named = [{"params": [p], "lr": groups.get(name, 0.03)} for name, p in model.named_parameters()]
        optimizer = torch.optim.Adam(named) if kind(0.03).name == "Adam" else torch.optim.SGD(named, momentum=0.9, weight_decay=0.01)
        for epoch in range(2):
            for chosen in epoch_order(len(x), seed, epoch).split(32):
                optimizer.zero_grad()
                nn.functional.binary_cross_entropy_with_logits(model(x[chosen])[:, 0], y[chosen].float()).backward()
                optimizer.step()
        for ours, theirs in zip(runs.network(k).parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)  # float32, 14 steps


def test_the_rate_warms_up_and_decays() -> None:
    linear = Schedule(warmup=0.1, decay="linear")
    assert [linear.factor(s, 100) for s in (0, 4, 9, 10, 55)] == pytest.approx([0.1, 0.5, 1.0, 1.0, 0.5])
    assert Schedule(decay="cosine").factor(50, 100) == pytest.approx(0.5)
    assert Schedule(decay="exponential").factor(100, 100) == pytest.approx(0.01)
    with pytest.raises(InputError, match="decay among none, linear"):
        Schedule(decay="stairs")


def test_wrong_numbers_of_runs_and_wrong_clips_are_refused() -> None:
    x, y = circles()
    with pytest.raises(InputError, match="3 runs need as many optimizers and seeds; got 1 and 3"):
        fit(Runs(networks()), Samples(x=x, y=y), plan((SGD(),)))
    with pytest.raises(InputError, match="early stopping needs validation"):
        fit(Runs(networks()), Samples(x=x, y=y), plan(patience=2))
    with pytest.raises(InputError, match="'value' or 'norm'"):
        Clip(kind="norms", threshold=1.0)
