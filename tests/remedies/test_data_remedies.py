"""Data that are not finite, labels out of range, targets without scale, frozen parameters and half precision: each is put right."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evengrad import synthetic
from evengrad.errors import InputError
from evengrad.remedies import discovered
from evengrad.remedies.clean_data import kept
from evengrad.rig import Rig
from evengrad.trace.batch import Batch
from evengrad.training import build, evaluate, first_batch, train
from evengrad.types import Facts, Proposal
from tests.remedies.contract import snapshot, stepped
from tests.remedies.loop_patients import X, Y, blamed, diagnosis, experiment, found, keeps, net, normal, proposals, sgd, trace_of

NAN = math.nan


def holed(share: float = 0.02, value: float = NAN) -> Tensor:
    holes = torch.rand(X.shape, generator=torch.Generator().manual_seed(1)) < share
    return torch.where(holes, torch.tensor(value), X)


# ---------------------------------------------------------------- values that are not finite


@pytest.mark.parametrize("name", ["fill_gaps", "drop_samples"])
@pytest.mark.parametrize("value", [NAN, math.inf], ids=["missing", "infinite"])
def test_inputs_that_are_not_finite_do_no_harm_any_more(name: str, value: float) -> None:
    given = experiment(data=(holed(value=value), Y), validation=(X, Y))
    report = diagnosis(given, ("NUM001",))
    (made,) = proposals(name, found(report, "data_nan"), report.trace)
    assert math.isnan(train(given).metric)
    assert train(given.repaired([made])).metric > 0.95
    assert not diagnosis(given.repaired([made]), ("NUM001",)).findings
    keeps(given, made, batch=Batch(X[:16], Y[:16]))


def test_filled_gaps_are_filled_in_evaluation_too() -> None:
    given = experiment(data=(holed(), Y), repairs=(Proposal(remedy="fill_gaps", options={"axis": -1}),))
    assert train(given).metric > 0.9  # judged on data with gaps


def test_gaps_get_the_mean_of_their_feature() -> None:
    x = torch.tensor([[1.0, NAN], [3.0, 10.0], [NAN, 20.0], [math.inf, 30.0]])
    rig = Rig(nn.Identity(), batches=lambda _epoch: iter((Batch(x),)))
    undo = discovered()["fill_gaps"]().apply(rig, Proposal(remedy="fill_gaps", options={"axis": -1}))
    expected = torch.tensor([[1.0, 20.0], [3.0, 10.0], [2.0, 20.0], [2.0, 30.0]])
    assert torch.equal(next(rig.batches(0)).inputs, expected)
    assert torch.equal(rig.model(x), expected)
    undo()
    assert rig.model(x).isnan().any()


def test_channels_of_images_and_inputs_by_name_are_filled() -> None:
    class Named(nn.Module):
        def forward(self, *, ids: Tensor, images: Tensor) -> Tensor:
            return images

    images = torch.stack((torch.full((2, 4, 4), 5.0), torch.full((2, 4, 4), -1.0)), 1)
    images[0, 1, 2, 3] = NAN
    rig = Rig(Named(), batches=lambda _epoch: iter((Batch({"ids": torch.zeros(2).long(), "images": images}),)))
    discovered()["fill_gaps"]().apply(rig, Proposal(remedy="fill_gaps", options={"axis": 1}))
    assert float(rig.model(**next(rig.batches(0)).inputs)[0, 1, 2, 3]) == -1.0


def test_missing_targets_are_left_out() -> None:
    y = (X[:, :1] + X[:, 1:2]).clone()
    y[::50] = NAN
    given = experiment(
        model=lambda: net(out=1), data=(X, y), loss_fn=nn.MSELoss(), optimizer=sgd(0.03), validation=(X, X[:, :1] + X[:, 1:2])
    )
    report = diagnosis(given, ("NUM001",))
    (made,) = proposals("drop_samples", found(report, "data_nan"), report.trace)
    assert proposals("fill_gaps", found(report, "data_nan"), report.trace) == []
    assert train(given.repaired([made])).metric > -0.2
    keeps(given, made, batch=Batch(X[:16], y[1:17]))


def test_finite_data_are_left_alone() -> None:
    for name in ("fill_gaps", "drop_samples"):
        assert proposals(name, blamed("data_nan"), trace_of(experiment())) == []


# ---------------------------------------------------------------- labels


def test_samples_whose_label_is_no_class_are_left_out() -> None:
    facts = Facts(targets={"labels": {"0": 3, "1": 3, "7": 2}}, head={"width": 2, "shape": [8, 2]}, loss={"op": "cross_entropy"})
    (made,) = proposals("drop_samples", blamed("labels_corrupt"), replace(synthetic.chain(3), facts=facts))
    y = torch.where(torch.arange(512) % 10 == 0, 7, Y)
    given = experiment(data=(X, y), validation=(X, y))
    with pytest.raises(InputError, match="Labels run from 0 to 7"):
        train(given)
    rig = build(given.repaired([made]))
    assert rig.validation is not None
    for source in (rig.batches, rig.validation):
        labels = torch.cat([b.targets for b in source(0)])
        assert (len(labels), int(labels.max())) == (460, 1)
    assert float(train(replace(given, validation=(X, Y)).repaired([made])).metric) > 0.95
    keeps(replace(given, data=(X, Y), validation=None), made)


def test_ignored_labels_stay_and_an_empty_batch_is_passed_over() -> None:
    y = torch.tensor([0, -100, 5, 1])
    seen = kept(Batch({"x": normal(4, 2), "shared": torch.ones(3)}, y), classes=2)
    assert seen is not None
    assert seen.targets.tolist() == [0, -100, 1]
    assert (seen.inputs["x"].shape, seen.inputs["shared"].shape) == ((3, 2), (3,))
    assert kept(Batch(normal(2, 2), torch.tensor([5, 6])), classes=2) is None
    whole = Batch(normal(2, 2), torch.tensor([0, 1]))
    assert kept(whole, classes=2) is whole


# ---------------------------------------------------------------- scale_targets


@pytest.mark.parametrize(("scale", "offset"), [(1000.0, 0.0), (1.0, 300.0), (1e-3, 0.0)])
@pytest.mark.parametrize("flat", [False, True], ids=["(n, 1)", "(n,)"])
def test_targets_of_any_scale_are_learnt_and_answered_in_their_own_unit(scale: float, offset: float, flat: bool) -> None:
    y = (X[:, 0] + X[:, 1].square()) * scale + offset
    model = (lambda: nn.Sequential(net(out=1), nn.Flatten(0))) if flat else lambda: net(out=1)
    given = experiment(model=model, data=(X, y if flat else y[:, None]), loss_fn=nn.MSELoss())
    report = diagnosis(given, ("DAT002",))
    (made,) = proposals("scale_targets", found(report, "target_not_scaled"), report.trace)
    repaired = train(given.repaired([made]))
    variance = float(y.var())
    assert -repaired.metric < 0.1 * variance  # the mean squared error, in the targets' own unit
    before = train(given).metric
    assert math.isnan(before) or repaired.metric > before
    keeps(given, made)


def test_the_loss_is_that_of_standardised_targets() -> None:
    y = torch.stack((X[:, 0] * 50 + 7, X[:, 1] * 0.01), 1)
    given = experiment(data=(X, y), loss_fn=nn.MSELoss())
    scaled = experiment(data=(X, (y - y.mean(0)) / y.std(0, correction=0)), loss_fn=nn.MSELoss())
    ours = train(given.repaired([Proposal(remedy="scale_targets")]))
    assert ours.losses.tolist() == pytest.approx(train(scaled).losses.tolist(), rel=1e-3)  # float32 rounding over 160 steps
    assert evaluate(given, Rig(ours.model)) == ours.metric


def test_classes_are_not_scaled_and_what_cannot_be_is_said() -> None:
    assert proposals("scale_targets", blamed("target_not_scaled"), trace_of(experiment())) == []
    rig = build(experiment())
    with pytest.raises(InputError, match="no floating-point numbers"):
        discovered()["scale_targets"]().apply(rig, Proposal(remedy="scale_targets"))
    with pytest.raises(InputError, match="needs a loss_fn"):
        discovered()["scale_targets"]().apply(Rig(net()), Proposal(remedy="scale_targets"))


# ---------------------------------------------------------------- unfreeze


def frozen() -> nn.Module:
    model = net(depth=2)
    for p in [*model[0].parameters(), *model[2].parameters()]:
        p.requires_grad_(False)
    return model


def of_the_head(model: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(model[-1].parameters(), 0.1)


def of_a_copy(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(copy.deepcopy(model).parameters(), 0.1)


@pytest.mark.parametrize(
    "changes", [{"model": frozen}, {"optimizer": of_the_head}, {"optimizer": of_a_copy}], ids=["frozen", "head alone", "a copy's"]
)
def test_parameters_that_stood_still_are_trained(changes: dict[str, Any]) -> None:
    y = (X[:, 0] * X[:, 1] > 0).long()
    given = experiment(**({"model": lambda: net(depth=2)} | changes), data=(X, y), epochs=20)
    report = diagnosis(given, ("OPT008",))
    (made,) = proposals("unfreeze", blamed("frozen_params"), report.trace)
    assert not diagnosis(given.repaired([made]), ("OPT008",)).findings
    before, after = train(given), train(given.repaired([made]))
    assert after.losses[-1] < 0.5 * before.losses[-1]
    start = dict(build(given).model.named_parameters())
    assert not any(torch.equal(start[name], p) for name, p in after.model.named_parameters())
    keeps(given, made)


def test_nothing_is_unfrozen_where_everything_is_trained() -> None:
    assert proposals("unfreeze", blamed("frozen_params"), trace_of(experiment())) == []


# ---------------------------------------------------------------- float32


class Cast(nn.Module):
    """Turns what it gets into another type."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        return x.to(self.dtype)


def half(dtype: torch.dtype) -> nn.Module:
    return nn.Sequential(Cast(dtype), net(depth=2).to(dtype), Cast(torch.float32))


def test_weights_that_swallowed_the_step_learn_in_single_precision() -> None:
    given = experiment(model=lambda: half(torch.bfloat16), optimizer=sgd(1e-3, momentum=0.9), epochs=20)
    report = diagnosis(given, ("OPT015",))
    (made,) = proposals("float32", found(report, "low_precision"), report.trace)
    assert not diagnosis(given.repaired([made]), ("OPT015",)).findings
    before, after = train(given), train(given.repaired([made]))
    assert after.losses[-16:].mean() < 0.95 * before.losses[-16:].mean()
    assert {p.dtype for p in after.model.parameters()} == {torch.float32}


def test_half_precision_comes_back_to_the_bit_with_its_state() -> None:
    given = experiment(model=lambda: half(torch.float16), optimizer=sgd(1e-2, momentum=0.9))
    made = Proposal(remedy="float32", cause="low_precision", summary="float32", code="+model.float()")
    keeps(given, made)
    rig = build(given)
    stepped(rig, first_batch(rig))
    assert rig.optimizer is not None
    before, gradients = snapshot(rig), [p.grad for p in rig.model.parameters()]
    undo = discovered()["float32"]().apply(rig, made)
    assert {s["momentum_buffer"].dtype for s in rig.optimizer.state.values()} == {torch.float32}
    undo()
    assert snapshot(rig) == before
    assert all(
        g is not None and p.grad is not None and torch.equal(p.grad, g) for p, g in zip(rig.model.parameters(), gradients, strict=True)
    )


def test_single_precision_is_left_alone() -> None:
    assert proposals("float32", blamed("low_precision"), trace_of(experiment())) == []
